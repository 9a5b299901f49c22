"""A storage is one file and one line: a toy one, registered as any other, does all that folders and S3 do."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import pytest

from cluster.arguments import check_arguments
from cluster.package import package
from data_tools.commands.verify import Verify
from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import all_images, training_set
from data_tools.storage import (
    FETCHED,
    SCHEMES,
    WRITER,
    Folder,
    Settings,
    StillOurs,
    Storage,
    absolute,
    always_ours,
    job_settings,
    local_path,
    open_storage,
    read_bytes,
    write_bytes,
)
from data_tools.storage.transfer import as_url, downloaded, uploaded
from tests.data_tools.test_reader import write
from tests.support.checks import refuses
from tests.support.runs import TINY, bits
from trainer.__main__ import main as trainer

OBJECTS: dict[str, tuple[bytes, float]] = {}


class Toy:
    """Objects in a dict of this process, which stands for some other kind of object storage."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @staticmethod
    def settings() -> Settings:
        return Settings({"TOY_ENDPOINT": "here"}, {".toy-keys": "hidden-away"})

    def tree(self) -> list[tuple[str, float]]:
        begin = f"{self.url}/"
        found = [(name.removeprefix(begin), each[1]) for name, each in OBJECTS.items() if name.startswith(begin)]
        return sorted(item for item in found if not item[0].startswith(WRITER))

    def names(self) -> list[str]:
        return [name for name, _ in self.tree() if "/" not in name]

    def open(self, name: str) -> BinaryIO:
        if f"{self.url}/{name}" not in OBJECTS:
            raise FileNotFoundError(name)
        return io.BytesIO(OBJECTS[f"{self.url}/{name}"][0])

    @contextlib.contextmanager
    def fetch(self, name: str, scratch: Path, size: int | None = None) -> Iterator[Path]:
        path = scratch / f"{FETCHED}{name.replace('/', '-')}"
        path.write_bytes(self.open(name).read())
        yield path
        path.unlink()

    @contextlib.contextmanager
    def write(self, name: str, new: bool = False) -> Iterator[IO[bytes]]:
        file = io.BytesIO()
        yield file
        if new and f"{self.url}/{name}" in OBJECTS:
            raise FileExistsError(name)
        OBJECTS[f"{self.url}/{name}"] = file.getvalue(), time.time()

    def remove(self, name: str) -> None:
        OBJECTS.pop(f"{self.url}/{name}", None)

    @contextlib.contextmanager
    def sole_writer(self, own: Any = None, follow: bool = True) -> Iterator[StillOurs]:
        yield always_ours

    def arrow(self) -> tuple[str, Any]:
        raise NotImplementedError


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setitem(SCHEMES, "toy", "tests.data_tools.test_storage:Toy")
    OBJECTS.clear()
    yield "toy://bucket/prefix"
    OBJECTS.clear()


def test_every_registered_class_does_all_that_is_asked_of_a_storage(toy: str) -> None:
    asked = {name for name in vars(Storage) if not name.startswith("_")}
    assert {"names", "fetch", "sole_writer", "arrow"} <= asked <= set(dir(Folder))
    for place in SCHEMES.values():
        module, _, name = place.partition(":")
        missing = {*asked, "settings"} - set(dir(getattr(importlib.import_module(module), name)))
        assert not missing, f"{place} lacks {missing}"


def test_a_dataset_in_it_is_that_of_a_folder(toy: str, tmp_path: Path) -> None:
    pools = {"train-normal": 30, "train-anomaly": 10}
    there, here = open_storage(write(toy, pools)), open_storage(write(tmp_path / "d", pools))  # type: ignore[arg-type]
    assert there.names() == here.names() and "manifest.json" in there.names()
    assert all(read_bytes(there, name) == read_bytes(here, name) for name in here.names())
    Verify(toy)()
    for window in (0, 2):
        one, other = (
            training_set(open_dataset(url, open_cache(tmp_path / f"cache-{url[:3]}")), 0.2, 5, window)
            for url in (toy, str(tmp_path / "d"))
        )
        assert np.array_equal(one.at(np.arange(100)), other.at(np.arange(100)))
    blocks = list(all_images(open_dataset(toy, open_cache(tmp_path / "cache")), 0.2, 5))
    assert sum(len(block.images) for block in blocks) == 37
    refuses(lambda: write(toy, pools), toy, "already holds a dataset")  # type: ignore[arg-type]


def test_folders_of_files_go_there_and_back(toy: str) -> None:
    place = Path(toy)  # as an option of that type has it: toy:/bucket/prefix
    with uploaded(place) as folder:
        (folder / "deep").mkdir(parents=True)
        (folder / "deep/a.txt").write_text("a")
        (folder / "b.txt").write_text("b")
    assert open_storage(toy).names() == ["b.txt"]
    with downloaded(place) as folder:
        files = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.txt")}
        assert files == {"deep/a.txt": "a", "b.txt": "b"} and folder.name == "prefix"
        assert (folder / "b.txt").stat().st_mtime == pytest.approx(OBJECTS[f"{toy}/b.txt"][1], abs=1e-3)
    refuses(lambda: downloaded(Path(f"{toy}-none")).__enter__(), f"{toy}-none", "nothing is there")


@pytest.mark.slow
def test_a_run_in_it_is_that_in_a_folder(toy: str, run: Path, dataset: Path) -> None:
    for path in dataset.iterdir():
        write_bytes(open_storage(f"{toy}/shards"), path.name, path.read_bytes())
    words = ["--data", f"{toy}/shards", "--out", f"{toy}/run", "--cache", str(dataset.parent / "cache")]
    trainer(["train", *words, *TINY])
    assert bits(f"{toy}/run") == bits(run)
    trainer(["evaluate", f"{toy}/run", "--cache", str(dataset.parent / "cache")])
    assert {"scores.csv", "index.html"} <= set(open_storage(f"{toy}/run/evaluation").names())
    assert not Path("toy:").exists(), "nothing took it for a path"


def test_jobs_get_its_settings(toy: str) -> None:
    settings = job_settings()
    assert settings.variables["TOY_ENDPOINT"] == "here" and settings.files[".toy-keys"] == "hidden-away"
    assert "hidden-away" not in repr(settings)
    with package(with_storage=True) as ours:
        file = ours.folder / ".toy-keys"
        assert file.read_text() == "hidden-away" and file.stat().st_mode & 0o777 == 0o600
        assert ours.environment["TOY_ENDPOINT"] == "here" and "hidden-away" not in str(ours.environment)
    check_arguments(["python", "--data", toy])


def test_what_a_url_is(toy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere")
    assert [local_path(url) for url in (toy, "s3://b/x", "ftp://b/x")] == [None] * 3
    assert [local_path(url) for url in ("a/b", "/a", "~/a")] == [Path("a/b"), Path("/a"), Path("/somewhere/a")]
    assert [absolute(url) for url in (toy, "", "a", "~/a")] == [toy, "", str(tmp_path / "a"), "/somewhere/a"]
    assert [as_url(Path(url)) for url in (toy, "s3://b/x", "ftp://b/x", "a:/b", "a")] == [toy, "s3://b/x", "", "", ""]
    assert as_url("s3:///b/x") == "s3://b/x" and as_url(toy) == toy
    refuses(lambda: open_storage("ftp://b/x"), "ftp://b/x", "s3://bucket/prefix or toy://bucket/prefix")
    with pytest.raises(Exception, match=re.escape("ftp://: unknown")) as caught:
        open_storage("ftp://user:secret@b/x")
    assert "secret" not in str(caught.value)


def test_ray_and_pyarrow_get_what_they_want(url: str, tmp_path: Path) -> None:
    assert open_storage(f"{tmp_path}/x/../y").arrow() == (str(tmp_path / "y"), None)
    path, filesystem = open_storage(url).arrow()
    write_bytes(open_storage(url), "x", b"content")
    with filesystem.open_input_stream(f"{path}/x") as file:
        assert file.read() == b"content"
