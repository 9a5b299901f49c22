"""Leaving training images out by a list of keys: who is shown, in windows too, and what a run remembers of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.dataset import reader
from data_tools.dataset.cache import open_cache
from data_tools.dataset.exclusion import check_some_left, excluded_to_json, find_excluded, read_keys
from data_tools.dataset.reader import Dataset, open_dataset
from data_tools.dataset.training_set import all_images, training_set
from tests.data_tools.test_reader import values, write
from tests.support.checks import refuses
from tests.support.runs import TINY, bits, config_of, cut_back, words_of
from trainer.__main__ import main as trainer
from trainer.run.folder import prepare

GAMMA = 0.2  # 7 of the 10 anomalies


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """30 normal images 0 .. 29 in five shards, 10 anomalies 100 .. 109 in two."""
    place = tmp_path_factory.mktemp("made")
    return open_dataset(write(place / "d", {"train-normal": 30, "train-anomaly": 10}), open_cache(place / "cache"))


def key_of(value: int) -> str:
    return f"train-normal-{value}" if value < 100 else f"train-anomaly-{value - 100}"


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gone=st.sets(st.sampled_from([*range(28), *range(100, 110)]), min_size=1),
    window=st.integers(0, 4),
    seed=st.integers(0, 9),
)
def test_an_epoch_shows_all_but_the_excluded_images_once(made: Dataset, gone: set[int], window: int, seed: int) -> None:
    before = values(np.concatenate([block.images for block in all_images(made, GAMMA, seed)]))
    excluded = find_excluded(made, [key_of(value) for value in gone])
    data = training_set(made, GAMMA, seed, window, excluded)
    n = len(data)
    blocks = list(all_images(made, GAMMA, seed, window, excluded))
    left = values(np.concatenate([block.images for block in blocks]))
    assert left == [value for value in before if value not in gone] and len(left) == n
    assert [origin["key"] for block in blocks for origin in block.origins] == [key_of(value) for value in left]
    for epoch in range(2):
        places = np.arange(epoch * n, (epoch + 1) * n)
        shown = values(np.concatenate([data.at(part) for part in np.array_split(places, 3) if len(part)]))
        assert sorted(shown) == sorted(left)
        assert [left[sample] for sample in data.samples(places)] == shown


def test_without_a_list_nothing_changes(made: Dataset) -> None:
    places = np.arange(50)
    for window in (0, 2):
        one, other = training_set(made, GAMMA, 3, window), training_set(made, GAMMA, 3, window, {})
        assert np.array_equal(one.at(places), other.at(places))


def test_lists_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# junk, worst first\na-1  # 3.2\n\n  b_2\na-1\n")
    assert read_keys(str(path)) == {"a-1", "b_2"}


def test_what_is_no_list_for_this_dataset_is_refused(made: Dataset, tmp_path: Path) -> None:
    refuses(lambda: read_keys(str(tmp_path / "none.txt")), "none.txt", "no such file")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    refuses(lambda: read_keys(str(tmp_path / "empty.txt")), "empty.txt", "no key")
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\xff\xfe")
    refuses(lambda: read_keys(str(tmp_path / "picture.txt")), "picture.txt", "not UTF-8 text")
    refuses(lambda: find_excluded(made, ["train-normal-3", "elsewhere-1"]), "elsewhere-1", "no training image")
    everything = find_excluded(made, [key_of(value) for value in range(30)])
    refuses(lambda: training_set(made, 0.0, 0, 0, everything), "--exclude", "no image")
    refuses(lambda: check_some_left(made, everything), "--exclude", "no image")


def undecodable(place: Path) -> Path:
    """A dataset as `made`, of whose images no PNG can be decoded; the manifest holds the checksums of that."""
    write(place, {"train-normal": 30, "train-anomaly": 10})
    manifest = json.loads((place / "manifest.json").read_text())
    for shard in manifest["shards"]:
        content = (place / shard["name"]).read_bytes().replace(b"\x89PNG", b"none")
        (place / shard["name"]).write_bytes(content)
        shard["sha256"] = hashlib.sha256(content).hexdigest()
    (place / "manifest.json").write_text(json.dumps(manifest))
    return place


def test_prepare_decodes_no_image_and_leaves_the_cache_alone(made: Dataset, tmp_path: Path) -> None:
    data, cache, gone = undecodable(tmp_path / "d"), tmp_path / "cache", [3, 29, 104]
    broken = open_dataset(str(data), open_cache(cache))
    with pytest.raises(Exception, match=r"(?i)png"):
        broken.images("train-normal")
    shutil.rmtree(cache)
    (tmp_path / "list.txt").write_text("\n".join(map(key_of, gone)))
    words = words_of(data, tmp_path / "run", cache, [*TINY, "--resolution", "4"])
    config = config_of([*words, "--exclude", str(tmp_path / "list.txt")])
    assert [prepare(config), prepare(config)] == ["new", "unfinished"]
    assert not cache.exists()
    expected = excluded_to_json(find_excluded(made, [key_of(value) for value in gone]))
    assert (tmp_path / "run/excluded.json").read_bytes() == expected
    (tmp_path / "list.txt").write_text("\n".join(key_of(value) for value in range(30)))
    refuses(lambda: prepare(config), "--exclude", "no image")
    assert not cache.exists()


def test_keys_are_the_same_from_shards_processes_and_cache(
    made: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = open_dataset(made.storage.url, open_cache(tmp_path / "cache"))
    by_names = {pool: fresh.keys(pool) for pool in ("train-normal", "train-unlabelled", "train-anomaly")}
    assert [len(each) for each in by_names.values()] == [5, 0, 2]
    assert list(by_names["train-normal"].values())[1] == [key_of(value) for value in range(7, 14)]
    monkeypatch.setattr(reader, "FEW_KEYS", 0)
    assert {pool: fresh.keys(pool) for pool in by_names} == by_names and not (tmp_path / "cache").exists()
    shutil.copytree(made.storage.url, tmp_path / "d")
    moved = open_dataset(str(tmp_path / "d"), open_cache(tmp_path / "cache"))
    for pool in by_names:
        moved.images(pool)
    for path in (tmp_path / "d").glob("*.tar"):
        path.unlink()
    assert {pool: moved.keys(pool) for pool in by_names} == by_names, "read from the cache"
    shutil.rmtree(tmp_path / "cache")
    refuses(lambda: moved.keys("train-normal"), "train-normal-00000", "is missing")


@pytest.fixture(scope="module")
def cleaned(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run without three images, and the list."""
    place = tmp_path_factory.mktemp("cleaned")
    pool = open_dataset(str(dataset), open_cache(dataset.parent / "cache")).provenance("train-normal")
    (place / "list.txt").write_text("\n".join(pool[i]["key"] for i in (0, 5, 6)))
    trainer([*words_of(dataset, place / "run", dataset.parent / "cache"), "--exclude", str(place / "list.txt")])
    return place / "run", place / "list.txt"


def test_a_run_keeps_its_list_and_goes_on_with_it(
    cleaned: tuple[Path, Path], full: Path, dataset: Path, tmp_path: Path
) -> None:
    run, excluded = cleaned
    assert sum(map(len, json.loads((run / "excluded.json").read_text()).values())) == 3
    assert bits(run) != bits(full)
    again = cut_back(run, 144, tmp_path / "again")
    (again / "finished.json").unlink()
    trainer([*words_of(dataset, again, dataset.parent / "cache"), "--exclude", str(excluded)])
    assert bits(again) == bits(run)


def test_a_run_with_another_list_is_refused(cleaned: tuple[Path, Path], dataset: Path, tmp_path: Path) -> None:
    run, excluded = cleaned
    words = words_of(dataset, run, dataset.parent / "cache")
    refuses(lambda: trainer(words), "--exclude", "leaves out other images")
    shorter = tmp_path / "shorter.txt"
    shorter.write_text(excluded.read_text().splitlines()[0])
    refuses(lambda: trainer([*words, "--exclude", str(shorter)]), str(shorter), "leaves out other images")


@pytest.mark.slow
def test_a_start_that_was_killed_can_be_made_again(cleaned: tuple[Path, Path], dataset: Path, tmp_path: Path) -> None:
    run, excluded = cleaned
    (tmp_path / "run").mkdir()
    shutil.copy(run / "excluded.json", tmp_path / "run")  # written before config.json
    trainer([*words_of(dataset, tmp_path / "run", dataset.parent / "cache"), "--exclude", str(excluded)])
    assert bits(tmp_path / "run") == bits(run)


@pytest.mark.slow
def test_the_list_of_a_killed_start_is_not_trained_by_without_the_option(
    cleaned: tuple[Path, Path], full: Path, dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(cleaned[0] / "excluded.json", tmp_path / "run")
    trainer(words_of(dataset, tmp_path / "run", dataset.parent / "cache"))
    assert bits(tmp_path / "run") == bits(full)
