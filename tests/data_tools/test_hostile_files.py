"""Names, numbers and files from outside: each is held against what it says, and a lie is one line before it costs."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import resource
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_tools.__main__ import main as data_tools
from data_tools.dataset.cache import Cache, clear, entries, open_cache
from data_tools.dataset.exclusion import TRAINED_ON, find_excluded, read_keys, written_key
from data_tools.dataset.manifest import read_manifest
from data_tools.dataset.patch import Patch
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.tar import names, packed, unpacked
from data_tools.dataset.writer import check_target, write_dataset
from data_tools.storage import Folder, inside, open_storage, read_bytes, write_bytes
from data_tools.walk import is_desktop_file
from tests.support.checks import plan_of, refuses
from tests.trainer.test_checkpoint import CONFIG, build, edit, save, snapshot_of
from trainer.config import TrainConfig
from trainer.methods import METHODS
from trainer.run.checkpoint import chosen_checkpoint, read_info, write_checkpoint
from trainer.run.folder import read_config, read_excluded
from trainer.run.monitor import Monitor
from trainer.scoring import calibration
from trainer.scoring.inference import Inference

SIDE = 8
DEEP = "[" * 100_000
HUGE = "9" * 5000


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A dataset of 10 normal images in three shards and 4 anomalies in one."""
    rng = np.random.default_rng(0)
    pools = {"train-normal": 10, "train-anomaly": 4}
    patches = [
        Patch(rng.integers(0, 256, (SIDE, SIDE, 1), dtype=np.uint8), pool, f"{pool}-{i}", {"frame": i})
        for pool, count in pools.items()
        for i in range(count)
    ]
    write_dataset(plan_of(patches), str(tmp_path / "d"), SIDE, 1, {}, 4)
    return tmp_path / "d"


def change(place: Path, **facts: Any) -> None:
    path = place / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def change_shard(place: Path, number: int = 0, **facts: Any) -> None:
    shards = json.loads((place / "manifest.json").read_text())["shards"]
    shards[number] |= facts
    pools = {pool: sum(int(s["samples"]) for s in shards if s["pool"] == pool) for pool in [*TRAINED_ON]}
    change(place, shards=shards, pools=pools | {"test-normal": 0, "test-anomaly": 0})


def put_shard(place: Path, content: bytes, number: int = 0, **facts: Any) -> None:
    """Another shard in its place, with a manifest that says so."""
    shard = json.loads((place / "manifest.json").read_text())["shards"][number]
    (place / shard["name"]).write_bytes(content)
    change_shard(place, number, size=len(content), sha256=hashlib.sha256(content).hexdigest(), **facts)


def readers(place: Path) -> list[Callable[[], object]]:
    """All that reads the shards of train-normal."""
    dataset = open_dataset(str(place), open_cache(place.parent / "cache"))
    return [
        lambda: data_tools(["verify", str(place)]),
        lambda: dataset.images("train-normal"),
        lambda: data_tools(["inspect", str(place), "--out", str(place.parent / "sheets")]),
    ]


# The manifest


@pytest.mark.parametrize(
    "facts",
    [
        *({"resolution": value} for value in (0, -8, 7, 2, 2**16, 10**9, 8.0, True, "8", None, [8])),
        *({"channels": value} for value in (0, 2, 4, True, "1", None)),
        *({"format_version": value} for value in (0, -1, 1.0, True, "1", None)),
        *({"source": value} for value in (None, [], "x", 3)),
        *({"shards": value} for value in (None, 7, "x", [3], [None], [{}], {"a": 1})),
        *({"pools": value} for value in (None, {}, [], 3)),
    ],
    ids=str,
)
def test_a_manifest_of_other_facts(place: Path, facts: dict[str, Any]) -> None:
    change(place, **facts)
    refuses(lambda: read_manifest(open_storage(str(place))), f"{place}/manifest.json", "damaged")


@pytest.mark.parametrize(
    "facts",
    [
        *({"name": name} for name in ("../x.tar", "/etc/passwd", "a/b.tar", "..", ".", "", ".hidden.tar", "a\nb.tar")),
        *({"name": name} for name in (".writer-000001", "manifest.json", "x" * 256, 7, None, "a\\b.tar")),
        *({"pool": pool} for pool in ("train", "", "../x", 7, None)),
        *({"samples": value} for value in (-1, 1.0, True, "4", 10**9, 2**80)),
        *({"size": value} for value in (-1, 0, 1.5, "20480", 2**80, 2**60)),
        *({"sha256": value} for value in ("", "0" * 63, "g" * 64, "A" * 64, 7, None)),
        {"further": 1},
    ],
    ids=str,
)
def test_a_manifest_with_such_a_shard(place: Path, facts: dict[str, Any]) -> None:
    change_shard(place, **facts)
    refuses(lambda: read_manifest(open_storage(str(place))), f"{place}/manifest.json", "damaged")


@pytest.mark.parametrize("text", [DEEP, '{"a": ' + DEEP, HUGE, "NaN", "Infinity", "1e999", "", "\xff", "{}x"])
def test_documents_that_are_none(place: Path, tmp_path: Path, text: str) -> None:
    """Wherever JSON is read, in one line."""
    (place / "manifest.json").write_text(text, encoding="latin-1")
    refuses(lambda: read_manifest(open_storage(str(place))), "manifest.json", "damaged")
    folder = save(tmp_path / "run")
    for name in ("checkpoint.json", "config.json", "excluded.json", "best.json"):
        (folder / name).write_text(text, encoding="latin-1")
    refuses(lambda: read_info(str(folder)), "checkpoint.json", "damaged")
    refuses(lambda: read_config(folder), "config.json", "damaged")
    refuses(lambda: read_excluded(str(folder)), "excluded.json", "damaged")
    refuses(lambda: chosen_checkpoint(str(folder), best=True), "best.json", "damaged")


def test_two_shards_of_one_name(place: Path) -> None:
    shards = json.loads((place / "manifest.json").read_text())["shards"]
    change_shard(place, 1, **shards[0])
    refuses(lambda: read_manifest(open_storage(str(place))), "twice")


def test_what_a_later_version_adds_is_passed_over(place: Path) -> None:
    before = read_manifest(open_storage(str(place)))
    change(place, further={"x": 1}, intensity=None)
    assert read_manifest(open_storage(str(place))) == before


# Shards that are no files of the dataset


def to_device(path: Path, elsewhere: Path) -> None:
    path.symlink_to("/dev/zero")


def to_fifo(path: Path, elsewhere: Path) -> None:
    os.mkfifo(path)


def to_linked_fifo(path: Path, elsewhere: Path) -> None:
    os.mkfifo(path.with_suffix(".fifo"))
    path.symlink_to(path.with_suffix(".fifo"))


def to_another_folder(path: Path, elsewhere: Path) -> None:
    elsewhere.write_bytes(b"\0" * 777)
    path.symlink_to(elsewhere)


def to_folder(path: Path, elsewhere: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("put", [to_device, to_fifo, to_linked_fifo, to_another_folder, to_folder])
def test_a_shard_that_is_no_file_of_the_dataset(place: Path, tmp_path: Path, put: Callable[..., None]) -> None:
    """At once, and of a foreign file not even its size is told."""
    path = place / "train-normal-000000.tar"
    path.unlink()
    put(path, tmp_path / "secret")
    for read in readers(place):
        refuses(read, str(path))
        with pytest.raises(Exception, match=r"not a regular file|leads out") as caught:
            read()
        assert "777" not in str(caught.value)


def test_a_shard_may_be_a_link_within_its_folder(place: Path) -> None:
    path = place / "train-normal-000000.tar"
    path.rename(place / "stored.tar")
    path.symlink_to("stored.tar")
    assert open_dataset(str(place), open_cache(place.parent / "cache")).images("train-normal").shape == (10, 8, 8, 1)


def test_no_byte_of_a_shard_of_another_size_is_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place / "train-normal-000000.tar"
    os.truncate(path, 2**40)  # a hole of a terabyte
    for read in readers(place):
        refuses(read, "1,099,511,627,776 bytes instead of")


@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_documents_that_never_end(place: Path, name: str) -> None:
    (place / name).unlink(missing_ok=True)
    (place / name).symlink_to("/dev/zero")
    refuses(lambda: read_bytes(open_storage(str(place)), name), name, "not a regular file")


# What is in a shard


def png(side: int = SIDE, mode: str = "L", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side), 3).save(file, "PNG", **options)
    return file.getvalue()


def claiming(side: int) -> bytes:
    """A PNG of a few bytes that says it is as large as that."""
    import zlib

    chunk = b"IHDR" + side.to_bytes(4) * 2 + b"\x08\0\0\0\0"
    head = len(chunk[4:]).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
    whole = png()
    return whole[:8] + head + whole[33:]


def shard_of(*files: tuple[str, bytes]) -> bytes:
    return b"".join(packed(name, content) for name, content in files) + bytes(1024)


GOOD = [(f"k{i}{ending}", content) for i in range(3) for ending, content in ((".json", b"{}"), (".png", png()))]


def tar_of(*members: tuple[str, bytes, dict[str, Any]], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, content, facts in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in facts.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


WRONG: dict[str, list[tuple[str, bytes]]] = {
    "the same key twice": [*GOOD, *GOOD[:2]],
    "no json": [*GOOD, ("k9.png", png())],
    "no png": [*GOOD, ("k9.json", b"{}")],
    "three files": [*GOOD, ("k9.json", b"{}"), ("k9.png", png()), ("k9.txt", b"")],
    "two pngs": [*GOOD, ("k9.png", png()), ("k9.png", png())],
    "another ending": [*GOOD, ("k9.json", b"{}"), ("k9.jpg", png())],
    "a folder": [*GOOD, ("a/k9.json", b"{}"), ("a/k9.png", png())],
    "a key with a line break": [*GOOD, ("k\n9.json", b"{}"), ("k\n9.png", png())],
    "an empty key": [*GOOD, (".json", b"{}"), (".png", png())],
    "a key for paths": [*GOOD, ("../k9.json", b"{}"), ("../k9.png", png())],
    "json that is none": [*GOOD, ("k9.json", b"{'a'}"), ("k9.png", png())],
    "json that is a list": [*GOOD, ("k9.json", b"[]"), ("k9.png", png())],
    "deep json": [*GOOD, ("k9.json", DEEP.encode()), ("k9.png", png())],
    "NaN": [*GOOD, ("k9.json", b'{"a": NaN}'), ("k9.png", png())],
    "json with a key of its own": [*GOOD, ("k9.json", b'{"key": "k0"}'), ("k9.png", png())],
    "a PNG of another side": [*GOOD, ("k9.json", b"{}"), ("k9.png", png(16))],
    "a PNG in colour": [*GOOD, ("k9.json", b"{}"), ("k9.png", png(mode="RGB"))],
    "a PNG with alpha": [*GOOD, ("k9.json", b"{}"), ("k9.png", png(mode="LA"))],
    "a PNG of 16 bits": [*GOOD, ("k9.json", b"{}"), ("k9.png", png(mode="I;16"))],
    "a PNG of 1 bit": [*GOOD, ("k9.json", b"{}"), ("k9.png", png(mode="1"))],
    "a PNG with a palette": [*GOOD, ("k9.json", b"{}"), ("k9.png", png(mode="P"))],
    "a PNG of 50,000": [*GOOD, ("k9.json", b"{}"), ("k9.png", claiming(50_000))],
    "no PNG": [*GOOD, ("k9.json", b"{}"), ("k9.png", b"")],
}


@pytest.mark.parametrize("files", WRONG.values(), ids=WRONG)
def test_a_shard_of_what_no_writer_has_written(place: Path, files: list[tuple[str, bytes]]) -> None:
    put_shard(place, shard_of(*files), samples=4)
    for read in readers(place)[:2]:
        refuses(read, f"{place}/train-normal-000000.tar: ", "write the dataset again")
    assert not entries(place.parent / "cache")


@pytest.mark.parametrize("samples", [1, 2, 4, 5])
def test_a_shard_of_more_or_fewer_samples(place: Path, samples: int) -> None:
    put_shard(place, shard_of(*GOOD) + bytes(10_000), samples=samples)
    for read in readers(place)[:2]:
        refuses(read, "holds 3 samples")


def test_a_damaged_png_is_named(place: Path) -> None:
    files = [*GOOD, ("k9.json", b"{}"), ("k9.png", png()[:40] + bytes(30))]
    put_shard(place, shard_of(*files), samples=4)
    refuses(readers(place)[1], "train-normal-000000.tar", "k9.png")


@pytest.mark.parametrize("pool", ["train-normal", "train-anomaly"])
def test_a_key_in_two_shards(place: Path, pool: str) -> None:
    """Of one pool: whoever reads both finds it; of two: verify."""
    content = (place / "train-normal-000000.tar").read_bytes()
    put_shard(place, content, 1 if pool == "train-normal" else 3, samples=4)
    refuses(readers(place)[0], "train-normal-", "another shard")
    dataset = open_dataset(str(place), open_cache(place.parent / "cache"))
    if pool == "train-normal":
        refuses(readers(place)[1], "another shard")
        refuses(lambda: find_excluded(dataset, ["train-normal-2"]), "another shard")


@pytest.mark.parametrize("facts", [b'{"a":\n"b"}', ' {"a": "b\u2028c\x85"} '.encode(), b"{ }", b'{"a": "\\u2028"}\r\n'])
def test_each_sample_is_one_line_of_provenance(place: Path, facts: bytes) -> None:
    files = [(f'k"ü{i}{end}', content) for i in range(2) for end, content in ((".json", facts), (".png", png()))]
    put_shard(place, shard_of(*files), samples=2)
    found = open_dataset(str(place), open_cache(place.parent / "cache")).provenance("train-normal")
    assert found[0] == {"key": 'k"ü0', **json.loads(facts)} and len(found) == 8
    assert [line["frame"] for line in found[2:]] == [4, 5, 6, 7, 8, 9]


TARS = {
    "sparse": tar_of(("a.png", b"1\n0\n9\n" + bytes(506), {"pax_headers": {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40), "GNU.sparse.name": "a.png"
    }})),
    "a size in the headers that is a lie": tar_of(("a.png", b"x", {"pax_headers": {"size": str(2**80)}})),
    "a size below 0": tar_of(("a.png", b"x", {"pax_headers": {"size": "-512"}})),
    "headers in a row": tar_of(*[(f"{'n' * 120}{i}", b"", {"type": b"x"}) for i in range(2000)]),
}  # fmt: skip


def with_size(field: bytes, kind: bytes = b"0") -> bytes:
    """A header with such a size."""
    header = bytearray(packed("a.png", b"x" * 100)[:512])
    header[124:136], header[156:157] = field.ljust(12, b"\0"), kind
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"x" * 100 + bytes(412) + bytes(1024)


for _name, _field in {
    "minus": b"-0000000001",
    "2^80": b"\x80\0" + (2**80).to_bytes(11)[1:],
    "2^63": b"\x80\0\0\0\x80" + bytes(7),
    "below 0 in base 256": b"\xff" * 12,
    "no digits": b"00000000x99",
    "eights": b"00000000888",
    "spaces": b"      144",
    "underscores": b"0_0_0_0_144",
}.items():
    TARS[_name] = with_size(_field)
    TARS[f"{_name}, of a long name"] = with_size(_field, b"L")
    TARS[f"{_name}, of headers"] = with_size(_field, b"x")


@pytest.mark.parametrize("content", TARS.values(), ids=TARS)
def test_tars_with_lies_are_errors_or_read_as_tarfile_does(tmp_path: Path, content: bytes) -> None:
    """In 500 MB of address space more than there is: nothing is allocated that is not there."""
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 500 * 2**20, hard))
    try:
        for read in (lambda: list(unpacked(path)), lambda: list(names(path))):
            try:
                assert len(read()) <= 1
            except tarfile.TarError:
                continue
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# The cache


def test_a_manifest_of_the_same_shards_with_other_counts_spoils_nothing(place: Path, tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache")
    lying = Path(shutil.copytree(place, tmp_path / "lying"))
    shards = json.loads((lying / "manifest.json").read_text())["shards"]
    change_shard(lying, 0, samples=shards[0]["samples"] - 1)
    change_shard(lying, 1, samples=shards[1]["samples"] + 1)
    refuses(lambda: open_dataset(str(lying), cache).images("train-normal"), "holds 4 samples")
    for facts in ({"resolution": 16}, {"channels": 3}):
        other = Path(shutil.copytree(place, tmp_path / f"other-{len(facts)}-{next(iter(facts))}"))
        change(other, **facts)
        refuses(lambda other=other: open_dataset(str(other), cache).images("train-normal"), "side, depth and colour")
    honest = open_dataset(str(place), cache)
    alone = open_dataset(str(place), open_cache(tmp_path / "alone"))
    assert np.array_equal(honest.images("train-normal"), alone.images("train-normal"))
    open_dataset(str(lying), cache)
    refuses(lambda: open_dataset(str(lying), cache).images("train-normal"), "samples")  # not served the honest entry
    assert [origin["frame"] for origin in honest.provenance("train-normal")] == list(range(10))


def test_an_entry_is_the_users_own(place: Path, tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache")
    open_dataset(str(place), cache).images("train-normal")
    (entry,) = entries(cache.folder)
    for path in (cache.folder, entry.path):
        assert path.stat().st_mode & 0o777 == 0o700


def asked(place: Path, cache: Cache) -> None:
    open_dataset(str(place), cache).images("train-normal")


@pytest.mark.parametrize("ending", ["", ".partial", ".lock"])
@pytest.mark.parametrize("how", ["link", "foreign"])
def test_what_others_planted_in_a_cache_is_neither_served_nor_followed(
    place: Path, tmp_path: Path, ending: str, how: str
) -> None:
    cache, victim = open_cache(tmp_path / "cache"), tmp_path / "victim"
    asked(place, cache)
    (entry,) = entries(cache.folder)
    planted = entry.path.with_name(entry.name + ending)
    victim.mkdir()
    (victim / ".fetched-thesis").write_text("keep")
    if ending == ".lock":
        planted.unlink(missing_ok=True)
    elif not ending:
        shutil.rmtree(entry.path)
    if how == "link":
        planted.symlink_to(victim if ending != ".lock" else victim / ".fetched-thesis")
    else:
        planted.touch() if ending == ".lock" else planted.mkdir()
        if os.geteuid():
            pytest.skip("only root gives files away")
        os.chown(planted, 12345, -1)
    if ending != ".lock":
        shutil.rmtree(entry.path, ignore_errors=True) if ending else None
    refuses(lambda: asked(place, cache), str(planted), "--cache")
    assert (victim / ".fetched-thesis").read_text() == "keep" and len(list(victim.iterdir())) == 1
    clear(cache.folder)
    assert (victim / ".fetched-thesis").read_text() == "keep" and os.path.lexists(planted)


def test_a_cache_folder_of_others_is_refused(place: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(real)
    refuses(lambda: asked(place, open_cache(tmp_path / "link")), "is a link", "--cache")
    for mode in (0o777, 0o770, 0o1777):
        real.chmod(mode)
        refuses(lambda: asked(place, open_cache(real)), "others may write there", "chmod 700")
        refuses(lambda: data_tools(["cache", "clear", "--cache", str(real)]), "others may write there")
    real.chmod(0o755)
    asked(place, open_cache(real))
    if not os.geteuid():
        os.chown(real, 12345, -1)
        refuses(lambda: asked(place, open_cache(real)), "belongs to user 12345", "--cache")


# Names that become paths


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..", "a/..", "", "a/", "a\0b"])
def test_no_name_leads_out_of_a_folder(tmp_path: Path, name: str) -> None:
    storage = Folder(tmp_path / "f")
    storage.path.mkdir()
    (tmp_path / "x").write_text("keep")
    for action in (
        lambda: inside(storage.path, name),
        lambda: storage.open(name),
        lambda: write_bytes(storage, name, b"lost"),
        lambda: storage.remove(name),
    ):
        refuses(action, "leads out")
    assert (tmp_path / "x").read_text() == "keep" and sorted(p.name for p in tmp_path.iterdir()) == ["f", "x"]


@pytest.mark.parametrize("name", ["../../../other/x", "images-1", "images-000004000/../../x", "x", 7, None, {}, "\n"])
def test_best_json_names_a_checkpoint_or_is_refused(tmp_path: Path, name: Any) -> None:
    (tmp_path / "best.json").write_text(json.dumps({"checkpoint": name}))
    refuses(lambda: chosen_checkpoint(str(tmp_path), best=True), "best.json", "damaged")
    (tmp_path / "best.json").write_text(json.dumps({"checkpoint": "images-000004000"}))
    assert chosen_checkpoint(str(tmp_path), best=True) == f"{tmp_path}/checkpoints/images-000004000"


class Elsewhere(Folder):
    """A store whose listing holds names as S3 may have them."""

    def tree(self) -> list[tuple[str, float]]:
        return [
            (name, 0.0) for name in ("pictures/../../escaped-x.png", "pictures/000000001-a/../../../x.png", "log.txt")
        ]


def test_a_resumed_run_writes_nothing_outside_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Elsewhere(tmp_path / "store")
    write_bytes(store, "log.txt", b"said\n")
    monkeypatch.setattr("trainer.run.monitor.open_storage", lambda url: store)
    monkeypatch.setattr("trainer.run.monitor.tempfile.mkdtemp", lambda prefix: str(_made(tmp_path / "local" / "run")))
    monitor = Monitor("s3://bucket/run", CONFIG.schedule(), 100, print)
    files = {path.relative_to(tmp_path / "local").parts[0] for path in (tmp_path / "local").rglob("*")}
    assert files == {"run"} and (tmp_path / "local/run/log.txt").read_text() == "said\n"
    monitor.close()


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


# Checkpoints


@pytest.mark.parametrize(
    "changes",
    [
        *({"width": value} for value in (10**9, 2**80, -4, 0, 4.0, "8", None, True)),
        *({"resolution": value} for value in (10**9, 2**20, 7, "8")),
        *({"method": value} for value in ("proposed2", "", 7, None, "__class__")),
        *({"gamma": value} for value in ("0", None, [0])),
        *({"seed": value} for value in (2**63, 1.5, "1")),
        *({"minibatch": value} for value in ([], {"a": 1}, 7)),
        *({"search": value} for value in ({"restarts": 10**9}, {"steps": 2**80}, {"further": 1}, [])),
        {"further": 1},
        {"method": "search", "search": {"restarts": 10**9}},
        {"method": "fanogan", "fanogan": {"width": 10**9}},
    ],
    ids=str,
)
def test_a_checkpoint_of_a_run_that_cannot_be(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = save(tmp_path)
    edit(folder, config=CONFIG.to_json() | changes)
    if changes.get("search") == {"restarts": 10**9} and "method" not in changes:
        return  # of a method that this is not
    refuses(lambda: Inference.load(str(folder), "cpu"), f"{folder}/checkpoint.json")


def test_an_unknown_method_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path)
    edit(folder, config=CONFIG.to_json() | {"method": "theirs"})
    refuses(lambda: Inference.load(str(folder), "cpu"), "--method theirs is unknown", " or ".join(METHODS))


@pytest.mark.parametrize(
    "facts",
    [
        *({"images_seen": value} for value in (-1, 2**80, 1.5, True)),
        *({"resolution": value} for value in (0, 16, 10**9, True)),
        *({"channels": value} for value in (0, 4, 10**9)),
        *({"alpha": value} for value in (-1, 2, "0.5", True, [])),
        *({"sha256": {name: "0" * 64}} for name in ("../x.safetensors", "/x.safetensors", "x", "a.b.safetensors", "")),
        {"sha256": {"ema.safetensors": 7}},
        {"versions": 7},
    ],
    ids=str,
)
def test_a_checkpoint_of_other_facts(tmp_path: Path, facts: dict[str, Any]) -> None:
    folder = save(tmp_path)
    edit(folder, **facts)
    refuses(lambda: Inference.load(str(folder), "cpu"), f"{folder}/checkpoint.json", "damaged")


def test_networks_take_no_more_room_than_a_file_holds(tmp_path: Path) -> None:
    """The widest networks that are allowed take terabytes; the file has kilobytes."""
    folder = save(tmp_path)
    edit(folder, config=dataclasses.replace(CONFIG, width=2**16).to_json())
    refuses(lambda: Inference.load(str(folder), "cpu"), "ema.safetensors", "does not fit its configuration")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_do_not_score(tmp_path: Path, value: float) -> None:
    networks = build()
    with torch.no_grad():
        next(iter(networks.encoder.parameters())).view(-1)[3] = value
    write_checkpoint(str(tmp_path), snapshot_of(networks))
    refuses(lambda: Inference.load(str(tmp_path), "cpu"), "encoder.safetensors", "NaN or infinite weights")


@pytest.mark.parametrize(
    "rows", [{"x": [-1]}, {"x": [1, 1]}, {"x": [2, 1]}, {"x": [2**80]}, {"x": ["1"]}, {"x": [True]}]
)
def test_rows_left_out_are_rows(tmp_path: Path, rows: Any) -> None:
    (tmp_path / "excluded.json").write_text(json.dumps(rows))
    refuses(lambda: read_excluded(str(tmp_path)), "excluded.json", "damaged")


# Calibrations


class _Inference:
    """What a calibration is read for."""

    joined: tuple[Any, ...] = ()
    reconstructs, resolution = True, 4


def _calibration(**changes: Any) -> bytes:
    whole = {
        "samples": np.array([5, 0, 3]),
        "heat.middle": np.zeros((4, 4), np.float32),
        "heat.spread": np.ones((4, 4), np.float32),
    }
    tensors = {name: value for name, value in (whole | changes).items() if value is not None}
    return safetensors.numpy.save(tensors, {"checkpoint": "d", "heat": calibration.HEAT})


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": np.array([-1, 0, 3])},
        {"samples": np.array([3, 0, 3])},
        {"samples": np.zeros(0, np.int64)},
        {"samples": np.array([0.0, 1.0])},
        {"samples": np.zeros((3, 1), np.int64)},
        {"samples": None},
        {"heat.middle": np.full((4, 4), np.nan, np.float32)},
        {"heat.middle": np.zeros((4, 5), np.float32)},
        {"heat.middle": np.zeros(4, np.float32)},
        {"heat.spread": np.zeros((4, 4), np.float32)},
        {"heat.spread": np.full((4, 4), np.inf, np.float32)},
        {"heat.spread": np.ones((4, 4), np.int32)},
        {"heat.spread": None},
    ],
    ids=str,
)
def test_a_calibration_of_hostile_numbers(changes: dict[str, Any]) -> None:
    inference: Any = _Inference()
    assert len(calibration._read(_calibration(), "RUN/c.safetensors", "d", inference).samples) == 3
    content = _calibration(**changes)
    refuses(lambda: calibration._read(content, "RUN/c.safetensors", "d", inference), "RUN/c.safetensors", "delete c.")


# Lists of keys

ODD = ["a#b", "#a", '"a"', " a", "a ", "a\nb", "\ud800", "\ufeffa", "a\u2028b", "a # b", "'", "\\"]
KEYS = st.text(st.characters(), min_size=1, max_size=30) | st.sampled_from(ODD)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.sets(KEYS, min_size=1, max_size=8), crlf=st.booleans(), bom=st.booleans())
def test_keys_come_back_as_they_were_written(tmp_path: Path, keys: set[str], crlf: bool, bom: bool) -> None:
    lines = ["# a list", "", *(f"{written_key(key)}  # score 3, p 0.1" for key in keys)]
    text = ("\r\n" if crlf else "\n").join(lines)
    (tmp_path / "list.txt").write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    assert read_keys(str(tmp_path / "list.txt")) == keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a#b\n", {"a#b"}),
        ("a #b\n", {"a"}),
        ("#a\n  # c\nb\t# d", {"b"}),
        ('"a b"  # 1\n"c"\n', {"a b", "c"}),
        ("# junk, worst first\na-1  # 3.2\n\n  b_2\na-1\n", {"a-1", "b_2"}),  # of the released version
    ],
)
def test_lists(tmp_path: Path, text: str, keys: set[str]) -> None:
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    assert read_keys(str(tmp_path / "list.txt")) == keys


def test_lists_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    for content, word in ((b"gr\xf6\xdfe\n", "UTF-8"), (b'"a\n', "quote"), (b'"a" b\n', "quote"), (b'"a"b', "quote")):
        path.write_bytes(content)
        refuses(lambda: read_keys(str(path)), "list.txt", word)


def bom_list(folder: Path) -> Path:
    """troubles.py: an editor put a byte order mark and CRLF into it."""
    (folder / "exclude.txt").write_bytes(b"\xef\xbb\xbf# edited elsewhere\r\nnormal-000003-c003\r\n")
    return folder / "exclude.txt"


def test_bom_list(tmp_path: Path) -> None:
    assert read_keys(str(bom_list(tmp_path))) == {"normal-000003-c003"}


# Files of desktops


def test_finder_dataset(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """troubles.py: a dataset through which a desktop has gone."""
    data_tools(["verify", str(place)])
    before = capsys.readouterr().out
    for name in (".DS_Store", "._manifest.json", "Thumbs.db", "desktop.ini", ".~lock.manifest.json#"):
        (place / name).write_bytes(b"\0\0\0\1Bud1")
    data_tools(["verify", str(place)])
    assert capsys.readouterr().out == before
    (place / "manifest.json").unlink()
    check_target(str(place))  # what a killed writer left, and the desktop's
    assert is_desktop_file("THUMBS.DB") and not any(map(is_desktop_file, ("a.png", ".writer", "_a", "store")))


# Sweeps and clusters

DOCUMENTS = [DEEP, HUGE, "", "NaN", "[]", "7", "null", "{}", "\xff"]


@pytest.mark.parametrize("text", [*DOCUMENTS, '{"sweep": {"set": []}, "dataset": 7, "trials": []}'])
def test_plans_and_states_that_are_none(tmp_path: Path, text: str) -> None:
    from filelock import FileLock

    from cluster.local_state import running
    from cluster.scoring import ScoringConfig, _plan
    from tuning.plan import read_plan
    from tuning.sweep_tables import read_sweep

    for name in ("plan.json", "state.json"):
        (tmp_path / name).write_text(text, encoding="latin-1")
    refuses(lambda: read_plan(str(tmp_path)), "plan.json", "damaged")
    refuses(lambda: read_sweep(str(tmp_path)), "plan.json", "damaged")
    refuses(lambda: _plan(ScoringConfig("RUN", "IMAGES", str(tmp_path))), "plan.json", "damaged")
    with FileLock(tmp_path / "lock", is_singleton=False):
        refuses(lambda: running(tmp_path), "state.json", "damaged")


@pytest.mark.parametrize("pid", [-1, 0, 1, 2**40, "7", True, None])
def test_a_state_names_a_process_that_may_be_ended(tmp_path: Path, pid: Any) -> None:
    """`down` signals it: a number of 0 or less means a whole group."""
    from filelock import FileLock

    from cluster.local_state import LocalState, running

    facts = dataclasses.asdict(LocalState("http://h", "h", "", "", {}, os.getpid()))
    with FileLock(tmp_path / "lock", is_singleton=False):
        (tmp_path / "state.json").write_text(json.dumps(facts))
        assert running(tmp_path) == LocalState(**facts)
        (tmp_path / "state.json").write_text(json.dumps(facts | {"pid": pid}))
        refuses(lambda: running(tmp_path), "state.json", "damaged")


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../x", "", "a\nb", 7])
def test_a_trials_name_leads_nowhere_else(tmp_path: Path, name: Any) -> None:
    from tuning.sweep_tables import read_sweep

    trial = {"name": name, "method": "proposed", "gamma": 0, "seed": 0, "options": {}, "config": {}}
    plan = {"sweep": {"name": "x", "data": "d"}, "dataset": {}, "lambdas": [0.5], "trials": [trial]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    refuses(lambda: read_sweep(str(tmp_path)), "plan.json", "damaged")


@pytest.mark.parametrize(
    "place",
    [
        {"options": {"out": "/etc"}},
        {"options": {"width": "8"}, "seed": "../x"},
        {"options": 7},
        {"method": "theirs"},
        [],
    ],
    ids=str,
)
def test_what_an_earlier_sweep_proposed_is_a_trial_of_the_plan(tmp_path: Path, place: Any) -> None:
    from tuning.config import SweepConfig
    from tuning.optuna import known_trials
    from tuning.plan import Plan, read_options

    config = SweepConfig(data="d", out=str(tmp_path), preset="demo", set=("width=8,16",), sampler="optuna")
    plan = Plan(config, None, np.zeros(1), read_options(config)[1], ())  # type: ignore[arg-type]
    good = {"method": "proposed", "gamma": 0.0, "seed": 0, "options": {"width": "8"}}
    folder = tmp_path / "trials/a"
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text(json.dumps(good))
    assert [trial.options for trial in known_trials(plan).trials] == [{"width": "8"}]
    (folder / "trial.json").write_text(json.dumps(good | place if isinstance(place, dict) else place))
    refuses(lambda: known_trials(plan), "trial.json", "damaged")


# Exported folders


def folder_of(place: Path, **changes: Any) -> Path:
    place.mkdir()
    facts = {"format": "torch", "resolution": 4, "channels": 1, "by": "fused", "weights": {}, "threshold": 1.0}
    facts |= {"terms": {"A": "x"}, "heat": False, "meaning": "", **changes}
    (place / "detector.json").write_text(json.dumps(facts))
    np.savez(place / "calibration.npz", score=np.arange(3.0), A=np.arange(3.0))
    shape = {"images": {0: torch.export.Dim("images", min=1)}}
    program = torch.export.export(_Model(), (torch.zeros(2, 4, 4, 1),), dynamic_shapes=shape)
    torch.export.save(program, place / "model.pt2")
    return place


class _Model(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (images.mean((1, 2, 3)),)


def is_refused(action: Callable[[], object], *words: str) -> None:
    with pytest.raises(ValueError) as caught:
        action()
    assert "\n" not in str(caught.value) and " - " in str(caught.value), caught.value
    assert all(word in str(caught.value) for word in words), caught.value


def test_an_exported_folder_that_is_none(tmp_path: Path) -> None:
    from trainer.export.standalone import Detector

    images = np.zeros((3, 4, 4, 1), np.uint8)
    good = folder_of(tmp_path / "good")
    assert len(Detector(good).score(images)["score"]) == 3
    sha256 = hashlib.sha256((good / "model.pt2").read_bytes()).hexdigest()
    assert len(Detector(folder_of(tmp_path / "sha", sha256=sha256)).score(images)["score"]) == 3
    for number, facts in enumerate(
        ({"resolution": 10**9}, {"channels": "1"}, {"threshold": float("nan")}, {"terms": 7}, {"by": "a"}, {"heat": 1})
    ):
        place = folder_of(tmp_path / f"facts-{number}", **facts)
        is_refused(lambda place=place: Detector(place), "detector.json", "damaged")
    is_refused(lambda: Detector(folder_of(tmp_path / "mixed", sha256="0" * 64)), "model.pt2", "another model")
    for number, facts in enumerate(({"heat": True}, {"resolution": 8}, {"channels": 3})):
        detector = Detector(folder_of(tmp_path / f"other-{number}", **facts))
        side, channels = detector.facts["resolution"], detector.facts["channels"]
        blank = np.zeros((3, side, side, channels), np.uint8)
        is_refused(lambda detector=detector, blank=blank: detector.score(blank), "is not the one of detector.json")
    for name, content in (("calibration.npz", b"PK"), ("model.pt2", b"junk"), ("detector.json", DEEP.encode())):
        place = folder_of(tmp_path / f"junk-{name}")
        (place / name).write_bytes(content)
        is_refused(lambda place=place: Detector(place), name, "damaged")
        (place / name).unlink()
        is_refused(lambda place=place: Detector(place), name, "missing")
    for number, columns in enumerate(
        (
            {"A": np.arange(2.0)},
            {"A": np.array([0, np.nan, 1])},
            {"A": np.zeros((3, 1))},
            {"A": np.array(["a"] * 3)},
            {},
        )
    ):
        place = folder_of(tmp_path / f"npz-{number}")
        np.savez(place / "calibration.npz", score=np.arange(3.0), **columns)  # type: ignore[arg-type]
        is_refused(lambda place=place: Detector(place), "calibration.npz", "damaged")


def test_configurations_come_back_as_they_were() -> None:
    config = dataclasses.replace(TrainConfig(), gamma=0.5, seed=2**62, workers="1:4")
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
