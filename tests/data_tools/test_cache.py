"""The node's cache: a limit, what is checked before it is used again, the commands, and the window that moves on."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from data_tools.__main__ import main as data_tools
from data_tools.dataset.cache import entries, open_cache
from data_tools.dataset.patch import Patch
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import WindowedSet, training_set
from data_tools.dataset.writer import write_dataset
from tests.support.checks import plan_of, refuses

SIDE, SHARD = 16, 20


def write(out: Path, normals: int, anomalies: int = 0, seed: int = 0) -> np.ndarray:
    """A dataset of noise; returns the normal images, then the anomalies."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (normals + anomalies, SIDE, SIDE, 1), dtype=np.uint8)
    pools = ["train-normal"] * normals + ["train-anomaly"] * anomalies
    patches = [Patch(image, pool, f"k{i}", {}) for i, (image, pool) in enumerate(zip(images, pools, strict=True))]
    write_dataset(plan_of(patches), str(out), SIDE, 1, {}, SHARD)
    return images


def test_what_was_used_for_longest_makes_room(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", "90KB")  # two of these datasets (25.6 KB and blocks half filled), not three
    for name in "abc":
        write(tmp_path / name, 100, seed=ord(name))
    for name in "abac":
        data = open_dataset(str(tmp_path / name), cache)
        data.images("train-normal")
        data.provenance("train-normal")
        times = {entry.name: entry.used for entry in entries(cache.folder)}
        for i, entry in enumerate(sorted(times, key=lambda entry: times[entry])):  # no two at one moment
            os.utime(cache.folder / entry / "entry.json", (i, i))
    assert sorted(Path(entry.origin["url"]).name for entry in entries(cache.folder)) == ["a", "c"]


def test_a_dataset_above_the_limit_is_refused_and_windows_are_offered(tmp_path: Path) -> None:
    write(tmp_path / "d", 100)
    data = open_dataset(str(tmp_path / "d"), open_cache(tmp_path / "cache", "20KB"))
    refuses(lambda: data.images("train-normal"), "--cache-limit 20 KB", "25.6 KB", "--window K")
    assert not entries(tmp_path / "cache")
    for wrong in ("much", "-3GB", "5 parsecs", ""):
        refuses(lambda wrong=wrong: open_cache(tmp_path, wrong), f"--cache-limit {wrong}")


@pytest.mark.parametrize("how", ["altered", "truncated", "gone", "unfinished"])
def test_a_spoiled_entry_is_made_anew(tmp_path: Path, how: str) -> None:
    images = write(tmp_path / "d", 50)
    cache = open_cache(tmp_path / "cache")
    open_dataset(str(tmp_path / "d"), cache).images("train-normal")
    (entry,) = entries(cache.folder)
    path = entry.path / "images.npy"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    if how == "altered":
        path.write_bytes(content)
    elif how == "truncated":
        path.write_bytes(content[:-1])
    elif how == "gone":
        path.unlink()
    else:
        (entry.path / "entry.json").unlink()
    assert np.array_equal(open_dataset(str(tmp_path / "d"), cache).images("train-normal"), images)


def test_an_entry_that_was_only_touched_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "d", 50)
    cache = open_cache(tmp_path / "cache")
    open_dataset(str(tmp_path / "d"), cache).images("train-normal")
    (entry,) = entries(cache.folder)
    os.utime(entry.path / "images.npy")
    inode = (entry.path / "images.npy").stat().st_ino
    open_dataset(str(tmp_path / "d"), cache).images("train-normal")
    assert (entry.path / "images.npy").stat().st_ino == inode


def test_the_commands_show_and_clear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "d", 50)
    cache = open_cache(tmp_path / "cache")
    open_dataset(str(tmp_path / "d"), cache).images("train-normal")
    capsys.readouterr()
    data_tools(["cache", "list", "--cache", str(cache.folder)])
    shown = "".join(capsys.readouterr().out.split())
    assert "train-normal" in shown and "50" in shown
    data_tools(["cache", "clear", "--cache", str(cache.folder)])
    assert "freed" in capsys.readouterr().out and not list(cache.folder.iterdir())
    refuses(lambda: data_tools(["cache", "empty"]), "cache empty", "cache list and cache clear")


@pytest.mark.parametrize("gamma", [0.0, 0.05])
def test_windows_show_every_image_once_an_epoch_and_hold_few_at_a_time(tmp_path: Path, gamma: float) -> None:
    images = write(tmp_path / "d", 190, 10)
    limit = "40KB"  # the normal images take 48,640 bytes, a window of three shards 15,360
    cache = open_cache(tmp_path / "cache", limit)
    data = training_set(open_dataset(str(tmp_path / "d"), cache), gamma, seed=7, window=3)
    assert isinstance(data, WindowedSet)
    n = len(data)
    assert n == (200 if gamma else 190)
    for epoch in range(2):
        shown = [data.at(np.arange(p, min(p + 16, (epoch + 1) * n))) for p in range(epoch * n, (epoch + 1) * n, 16)]
        assert sum(entry.bytes for entry in entries(cache.folder)) < 100_000
        seen = {image.tobytes() for part in shown for image in part}
        assert seen == {image.tobytes() for image in images[:n]}
    again = training_set(open_dataset(str(tmp_path / "d"), open_cache(tmp_path / "other")), gamma, 7, window=3)
    places = np.arange(n - 20, n + 20)  # across the end of an epoch, by a reader without a past
    assert np.array_equal(again.at(places), data.at(places))


def test_two_readers_of_one_node_share_a_window(tmp_path: Path) -> None:
    write(tmp_path / "d", 190)
    made = [
        training_set(open_dataset(str(tmp_path / "d"), open_cache(tmp_path / "cache")), 0.0, 7, window=3)
        for _ in range(2)
    ]
    halves: dict[int, list[np.ndarray]] = {0: [], 1: []}

    def read(rank: int) -> None:
        halves[rank] = [made[rank].at(np.arange(p + 8 * rank, p + 8 * rank + 8)) for p in range(0, 176, 16)]

    readers = [threading.Thread(target=read, args=(rank,)) for rank in (0, 1)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    joined = np.concatenate([part for pair in zip(halves[0], halves[1], strict=True) for part in pair])
    alone = training_set(open_dataset(str(tmp_path / "d"), open_cache(tmp_path / "alone")), 0.0, 7, window=3)
    assert np.array_equal(joined, alone.at(np.arange(176)))


def test_readers_that_crowd_one_another_out_still_read(tmp_path: Path) -> None:
    """A cache that holds one entry, and four readers of two: nobody meets a file that is being removed."""
    limit, wanted = "30KB", {name: write(tmp_path / name, 100, seed=ord(name)) for name in "ab"}
    wrong: list[str] = []

    def read(name: str) -> None:
        for _ in range(60):
            images = open_dataset(str(tmp_path / name), open_cache(tmp_path / "cache", limit)).images("train-normal")
            if not np.array_equal(images, wanted[name]):
                wrong.append(name)
        wrong.append("")

    readers = [threading.Thread(target=read, args=(name,)) for name in "abab"]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert wrong == [""] * 4, "all came through, none with another's images"
