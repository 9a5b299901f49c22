"""Shards and manifest: what is written is what is read, the same bytes every time, and nothing half-written stays."""

from __future__ import annotations

import hashlib
import io
import json
import resource
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from webdataset.compat import WebDataset

from data_tools.dataset.manifest import MANIFEST, read_manifest
from data_tools.dataset.patch import POOLS, Patch
from data_tools.dataset.shards import check_shard, read_shard
from data_tools.dataset.writer import write_dataset
from data_tools.errors import UserError
from data_tools.storage import open_storage
from tests.support.checks import plan_of


def patches(count: int = 10, channels: int = 1, seed: int = 0) -> list[Patch]:
    """`count` patches of each labelled pool, pools mixed."""
    rng = np.random.default_rng(seed)
    return [
        Patch(rng.integers(0, 256, (8, 8, channels), dtype=np.uint8), pool, f"{pool}-{i}", {"frame": i, "class": pool})
        for i in range(count)
        for pool in POOLS
        if pool != "train-unlabelled"
    ]


def write(out: Path, samples: Iterator[Patch] | list[Patch], channels: int = 1, samples_per_shard: int = 4):
    return write_dataset(plan_of(samples), str(out), 8, channels, {"kind": "test"}, samples_per_shard)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_read_is_what_was_written(tmp_path: Path, channels: int) -> None:
    made = patches(10, channels)
    write(tmp_path / "d", made, channels)
    storage = open_storage(str(tmp_path / "d"))
    manifest = read_manifest(storage)
    assert (manifest.resolution, manifest.channels, manifest.source) == (8, channels, {"kind": "test"})
    for pool in POOLS:
        expected = [patch for patch in made if patch.pool == pool]
        read = [sample for shard in manifest.of(pool) for sample in read_shard(storage, shard)]
        assert [key for key, _, _ in read] == [patch.key for patch in expected]
        assert all(np.array_equal(image, patch.image) for (_, image, _), patch in zip(read, expected, strict=True))
        assert [facts for *_, facts in read] == [patch.provenance for patch in expected]
        assert [shard.samples for shard in manifest.of(pool)] == ([4, 4, 2] if expected else [])


def test_any_webdataset_reader_can_read_a_shard(tmp_path: Path) -> None:
    write(tmp_path / "d", patches(3))
    pipeline = WebDataset(str(tmp_path / "d" / "train-normal-000000.tar"), shardshuffle=False)
    samples = list(pipeline.decode("l8"))  # pyright: ignore[reportArgumentType]
    assert [sample["__key__"] for sample in samples] == [f"train-normal-{i}" for i in range(3)]
    assert samples[2]["json"] == {"frame": 2, "class": "train-normal"} and samples[2]["png"].shape == (8, 8)


def test_manifest_tells_the_truth_about_the_files(tmp_path: Path) -> None:
    manifest = write(tmp_path / "d", patches())
    facts = json.loads((tmp_path / "d" / MANIFEST).read_text())
    assert facts["pools"] == {pool: 0 if pool == "train-unlabelled" else 10 for pool in POOLS}
    assert {shard.name for shard in manifest.shards} == {p.name for p in (tmp_path / "d").glob("*.tar")}
    for shard in manifest.shards:
        content = (tmp_path / "d" / shard.name).read_bytes()
        assert (shard.size, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            names = tar.getnames()
        assert len(names) == 2 * shard.samples and {name.rpartition(".")[2] for name in names} == {"png", "json"}


def test_same_patches_same_bytes_and_other_patches_another_digest(tmp_path: Path) -> None:
    one, two, other = (write(tmp_path / n, patches(seed=s)) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert one == two and one.digest == two.digest != other.digest
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def failing(after: int, error: BaseException) -> Iterator[Patch]:
    yield from patches()[:after]
    yield error  # type: ignore[misc]


@pytest.mark.parametrize("error", [UserError("a.png: broken - fix it"), KeyboardInterrupt(), MemoryError()])
def test_a_failure_midway_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write(tmp_path / "d", failing(25, error))
    assert not list(tmp_path.rglob("*.*"))


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError):
            write(tmp_path / "d", patches())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob("*.*"))


def test_nothing_to_train_on(tmp_path: Path) -> None:
    anomalies = [patch for patch in patches() if "anomaly" in patch.pool]
    for samples in ([], anomalies):
        with pytest.raises(UserError, match=r"no normal training image.* - "):
            write(tmp_path / "d", samples)
    assert not list(tmp_path.rglob("*.*"))


def test_a_dataset_or_foreign_files_are_never_written_over(tmp_path: Path) -> None:
    write(tmp_path / "d", patches())
    before = {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir()}
    with pytest.raises(UserError, match="already holds a dataset - "):
        write(tmp_path / "d", patches(seed=1))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep")
    with pytest.raises(UserError, match=r"thesis\.txt.* - give an empty folder"):
        write(tmp_path / "mine", patches())
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "keep"


def test_what_a_killed_writer_left_is_no_dataset_and_is_replaced(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", patches())
    left = tmp_path / "d"
    left.mkdir()
    (left / "train-normal-000007.tar").write_bytes(b"of an earlier, larger source")
    (left / ".test-normal-000000.tar.partial").write_bytes(b"half")
    with pytest.raises(UserError, match=r"is not a dataset \(it has no manifest"):
        read_manifest(open_storage(str(left)))
    assert write(left, patches()) == whole
    assert {path.name for path in left.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[:-512])
    else:
        content[700] ^= 1  # inside the first picture
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("how", "words"), [("missing", "missing"), ("truncated", "bytes instead of"), ("altered", "altered")]
)
def test_a_damaged_shard_is_named(tmp_path: Path, how: str, words: str) -> None:
    manifest = write(tmp_path / "d", patches())
    shard = manifest.of("train-anomaly")[1]
    damage(tmp_path / "d" / shard.name, how)
    storage = open_storage(str(tmp_path / "d"))
    for read in (check_shard, lambda *arguments: list(read_shard(*arguments))):
        with pytest.raises(UserError, match=f"{shard.name}: .*{words}.* - restore it") as caught:
            read(storage, shard)
        assert "\n" not in str(caught.value)
    check_shard(storage, manifest.of("train-anomaly")[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda facts: facts | {"format_version": 3}, "format version 3 is newer than 2 - update"),
        (lambda facts: {k: v for k, v in facts.items() if k != "shards"}, "damaged"),
        (lambda facts: facts | {"shards": facts["shards"][1:]}, "do not add up"),
        (lambda facts: facts | {"shards": [{"name": "x"}]}, "damaged"),
        (lambda facts: [], "damaged"),
    ],
)
def test_a_wrong_manifest_is_named(tmp_path: Path, change, words: str) -> None:
    write(tmp_path / "d", patches())
    path = tmp_path / "d" / MANIFEST
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=f"{MANIFEST}: .*{words}") as caught:
        read_manifest(open_storage(str(tmp_path / "d")))
    assert "\n" not in str(caught.value) and " - " in str(caught.value)


def test_urls_that_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for url in (str(tmp_path / "file"), "s3://", "s3://KEY:SECRET@bucket/x", "https://example.org/x"):
        with pytest.raises(UserError, match=" - give a "):
            open_storage(url)


def test_pictures_in_a_shard_are_plain_png(tmp_path: Path) -> None:
    made = patches(1, 3)
    write(tmp_path / "d", made, 3)
    with tarfile.open(tmp_path / "d" / "train-normal-000000.tar") as tar:
        picture = Image.open(io.BytesIO(tar.extractfile("train-normal-0.png").read()))  # type: ignore[union-attr]
        assert picture.format == "PNG" and np.array_equal(np.asarray(picture), made[0].image)
