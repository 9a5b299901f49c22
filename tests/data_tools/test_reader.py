"""Reading a dataset and drawing contaminated training sets from it: nothing is read twice, gammas are nested."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.dataset.cache import open_cache
from data_tools.dataset.contamination import contaminants
from data_tools.dataset.patch import Patch
from data_tools.dataset.reader import Dataset, open_dataset
from data_tools.dataset.training_set import WholeSet, training_set
from data_tools.dataset.writer import write_dataset
from data_tools.errors import UserError
from tests.support.checks import plan_of

NORMALS, ANOMALIES = 30, 10


def write(out: Path, pools: dict[str, int], samples_per_shard: int = 7) -> str:
    """Every image is one gray value: 0, 1, 2 ... in train-normal, 100, 101 ... in train-anomaly, and so on."""
    first = {"train-normal": 0, "train-unlabelled": 0, "train-anomaly": 100, "test-normal": 150, "test-anomaly": 200}
    patches = [
        Patch(np.full((4, 4, 1), first[pool] + i, np.uint8), pool, f"{pool}-{i}", {"frame": i})
        for pool, count in pools.items()
        for i in range(count)
    ]
    write_dataset(plan_of(patches), str(out), 4, 1, {}, samples_per_shard)
    return str(out)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    pools = {"train-normal": NORMALS, "train-anomaly": ANOMALIES, "test-normal": 5, "test-anomaly": 3}
    return open_dataset(write(tmp_path / "d", pools), open_cache(tmp_path / "cache"))


def whole(data: Dataset, gamma: float, seed: int) -> WholeSet:
    made = training_set(data, gamma, seed)
    assert isinstance(made, WholeSet)
    return made


def values(images: np.ndarray) -> list[int]:
    assert (images == images[:, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


def test_pools_in_order_with_provenance(dataset: Dataset) -> None:
    assert values(dataset.images("train-normal")) == list(range(NORMALS))
    assert values(dataset.images("test-anomaly")) == [200, 201, 202]
    assert dataset.provenance("test-normal") == [{"key": f"test-normal-{i}", "frame": i} for i in range(5)]
    assert dataset.images("train-unlabelled").shape == (0, 4, 4, 1) and dataset.provenance("train-unlabelled") == []
    assert [dataset.count(pool) for pool in ("train-normal", "train-unlabelled")] == [NORMALS, 0]


def test_decoded_images_are_mapped_read_only_and_shared(dataset: Dataset) -> None:
    one, two = dataset.images("train-normal"), dataset.images("train-normal")
    assert isinstance(one, np.memmap) and isinstance(two, np.memmap) and one.filename == two.filename
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 1


def test_the_cache_serves_without_the_shards(dataset: Dataset, tmp_path: Path) -> None:
    before = np.array(dataset.images("train-normal"))
    for shard in (tmp_path / "d").glob("train-normal-*.tar"):
        shard.unlink()
    assert np.array_equal(
        open_dataset(str(tmp_path / "d"), open_cache(tmp_path / "cache")).images("train-normal"), before
    )


def test_many_readers_at_once_decode_once(dataset: Dataset, tmp_path: Path) -> None:
    seen: list[np.ndarray] = []
    readers = [threading.Thread(target=lambda: seen.append(dataset.images("train-normal"))) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(seen) == 8 and all(values(images) == list(range(NORMALS)) for images in seen)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1, "and no scratch stays"


def test_a_shard_altered_by_one_byte_stops_the_reader_and_leaves_no_cache(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "d" / "train-normal-000002.tar"
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train-normal-000002\.tar: has been altered .* - restore it"):
        dataset.images("train-normal")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_gather_takes_any_samples_in_any_order(dataset: Dataset) -> None:
    data = whole(dataset, 0.2, seed=3)
    assert len(data) == NORMALS + 7  # 7.5 rounded down
    every = values(data.gather(np.arange(len(data))))
    assert every[:NORMALS] == list(range(NORMALS)) and all(100 <= value < 100 + ANOMALIES for value in every[NORMALS:])
    assert len(set(every)) == len(every)
    drawn = np.random.default_rng(0).integers(0, len(data), 50)
    assert values(data.gather(drawn)) == [every[i] for i in drawn]
    assert values(data.gather(np.array([4, 4, 2]))) == [4, 4, 2]


def test_smaller_gammas_are_contained_in_larger_ones_and_the_seed_draws(dataset: Dataset) -> None:
    drawn = [values(whole(dataset, gamma, 0).gather(np.arange(NORMALS, NORMALS + n))) for gamma, n in GAMMAS]
    assert all(set(small) < set(large) for small, large in itertools.pairwise(drawn))
    others = [values(whole(dataset, 0.1, seed).gather(np.arange(NORMALS, NORMALS + 3))) for seed in range(6)]
    assert len({tuple(other) for other in others}) > 1


GAMMAS = ((0.04, 1), (0.1, 3), (0.15, 5), (0.25, 10))


def test_unlabelled_images_are_trained_on_as_they_are(tmp_path: Path) -> None:
    data = open_dataset(write(tmp_path / "u", {"train-unlabelled": 9}), open_cache(tmp_path / "cache"))
    assert values(whole(data, 0.0, 0).gather(np.arange(9))) == list(range(9))
    with pytest.raises(UserError, match=r"--gamma 0\.1 needs 1 anomalous .* has 0 - give at most 0\.0"):
        training_set(data, 0.1, 0)


@pytest.mark.parametrize("gamma", [-0.1, 1.0, 1.5, float("nan")])
def test_a_gamma_out_of_range(dataset: Dataset, gamma: float) -> None:
    with pytest.raises(UserError, match=r"--gamma .* is outside \[0, 1\) - give"):
        training_set(dataset, gamma, 0)


def test_more_anomalies_than_there_are(dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"--gamma 0\.3 needs 12 .* has 10 - give at most 0\.25"):
        training_set(dataset, 0.3, 0)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 600_000), st.integers(0, 999))
def test_contaminants_by_exact_integers(normals: int, per_mille: int) -> None:
    assert contaminants(normals, per_mille / 1000) == per_mille * normals // (1000 - per_mille)
