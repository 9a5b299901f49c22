"""The order of samples: every sample once an epoch, the same from anywhere, anomalies spread evenly."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from data_tools.dataset.contamination import contaminants
from data_tools.dataset.order import SampleOrder, WindowedOrder
from trainer.training.batches import worker_positions

quick = settings(max_examples=150, deadline=None)
sizes = st.lists(st.integers(1, 12), min_size=1, max_size=9)
seeds = st.one_of(st.integers(0, 9), st.integers(0, 2**63 - 1))
windowed = st.tuples(sizes, st.integers(0, 30), seeds, st.integers(1, 12)).map(lambda a: lambda: WindowedOrder(*a))
whole = st.tuples(st.integers(1, 90), seeds).map(lambda a: lambda: SampleOrder(*a))
# strategies draw makers, so that a test can start afresh
Order = SampleOrder | WindowedOrder
Maker = Callable[[], Order]
makers = st.one_of(whole, windowed)


def epochs(order: Order, first: int, count: int = 1) -> np.ndarray:
    return order.samples(np.arange(first * order.n, (first + count) * order.n))


@quick
@given(makers, st.integers(0, 2**20))
def test_an_epoch_shows_every_sample_once(make: Maker, epoch: int) -> None:
    shown = epochs(make(), epoch)
    assert shown.dtype == np.int64
    np.testing.assert_array_equal(np.sort(shown), np.arange(make().n))


@quick
@given(st.integers(1, 90), seeds, st.integers(0, 2**20))
def test_the_whole_order_is_numpys_permutation_keyed_by_seed_and_epoch(n: int, seed: int, epoch: int) -> None:
    expected = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)
    np.testing.assert_array_equal(epochs(SampleOrder(n, seed), epoch), expected)


@quick
@given(makers, st.integers(0, 1000), st.integers(1, 8), st.integers(1, 40))
def test_workers_parts_join_to_the_single_workers_batch(make: Maker, seen: int, world: int, share: int) -> None:
    parts = [make().samples(worker_positions(seen, world * share, rank, world)) for rank in range(world)]
    alone = make().samples(worker_positions(seen, world * share, 0, 1))
    np.testing.assert_array_equal(np.concatenate(parts), alone)


@quick
@given(makers, st.integers(1, 50), st.data())
def test_a_restart_anywhere_continues_the_order(make: Maker, batch: int, data: st.DataObject) -> None:
    order, total = make(), 3 * make().n
    expected = epochs(make(), 0, 3)
    shown = [order.samples(np.arange(at, min(at + batch, total))) for at in range(0, total, batch)]
    np.testing.assert_array_equal(np.concatenate(shown), expected)  # batches that straddle epochs and windows too
    start = data.draw(st.integers(0, total - 1))
    np.testing.assert_array_equal(make().samples(np.arange(start, total)), expected[start:])


@quick
@given(makers, st.data())
def test_positions_may_skip_and_a_batch_may_straddle_epochs(make: Maker, data: st.DataObject) -> None:
    n = make().n
    chosen = data.draw(st.lists(st.integers(0, 4 * n - 1), min_size=1, max_size=20, unique=True).map(sorted))
    expected = np.concatenate([epochs(make(), e) for e in range(4)])
    np.testing.assert_array_equal(make().samples(np.array(chosen)), expected[chosen])
    np.testing.assert_array_equal(make().samples(np.array([n - 1, n])), expected[n - 1 : n + 1])


@pytest.mark.parametrize("window", [0, 1, 3, 8])
def test_epochs_and_seeds_differ(window: int) -> None:
    def order(seed: int) -> Order:
        return WindowedOrder([16] * 8, 12, seed, window) if window else SampleOrder(140, seed)

    shown = [epochs(order(seed), epoch) for seed in (0, 1, 2**40, 2**63 - 1) for epoch in (0, 1, 2)]
    assert len({tuple(s.tolist()) for s in shown}) == len(shown)


def test_windows_of_an_epoch_are_permuted_differently() -> None:
    order = WindowedOrder([32] * 4, 0, 5, 1)
    assert len({tuple(p.rows.tolist()) for p in order.split(np.arange(order.n))}) == 4


def test_which_anomalies_share_a_window_changes_with_the_epoch() -> None:
    order = WindowedOrder([32] * 4, 40, 5, 1)
    first = [order.split(np.arange(e * order.n, (e + 1) * order.n))[0].rows for e in range(4)]
    assert len({tuple(sorted(rows[rows < 0].tolist())) for rows in first}) == 4


@quick
@given(windowed, st.integers(0, 5))
def test_a_window_holds_only_its_shards_and_its_share_of_anomalies(make: Callable[[], WindowedOrder], e: int) -> None:
    order = make()
    shard_of = np.repeat(np.arange(len(order.sizes)), order.sizes)
    windows, shown = order.windows(e), epochs(order, e)
    assert sorted(s for w in windows for s in w) == list(range(len(order.sizes)))
    assert all(len(w) == order.window for w in windows[:-1])
    homes = [order.window_at(p) for p in range(e * order.n, (e + 1) * order.n)]
    assert homes == sorted(homes) and {h[0] for h in homes} == {e}
    numbers = np.array([h[1] for h in homes])
    for w, shards in enumerate(windows):
        inside = shown[numbers == w]
        assert set(shard_of[inside[inside < order.normals]].tolist()) == set(shards)
        share = order.anomalies * order.sizes[list(shards)].sum() / order.normals
        assert abs((inside >= order.normals).sum() - share) <= 1


@quick
@given(windowed, st.integers(0, 300), st.integers(1, 200))
def test_split_reads_the_samples(make: Callable[[], WindowedOrder], start: int, batch: int) -> None:
    order, positions = make(), np.arange(start, start + batch)
    images = np.split(np.arange(order.normals), np.cumsum(order.sizes)[:-1])  # an image is its sample's number
    read = np.full(batch, -1)
    parts = order.split(positions)
    for epoch, window, where, rows in parts:
        assert {order.window_at(p) for p in positions[where].tolist()} == {(epoch, window)}
        decoded = np.concatenate([images[s] for s in order.windows(epoch)[window]])
        read[where] = [order.normals - r - 1 if r < 0 else decoded[r] for r in rows]
    np.testing.assert_array_equal(read, make().samples(positions))
    assert [p[:2] for p in parts] == sorted({p[:2] for p in parts})


@pytest.mark.parametrize(("shards", "window"), [([4], 0), ([], 1), ([0, 0], 1)])
def test_nothing_to_order_is_refused(shards: list[int], window: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        WindowedOrder(shards, 3, 0, window)


def test_memory_does_not_grow_with_the_samples() -> None:
    tracemalloc.start()
    try:
        order = WindowedOrder([4096] * 100_000, 100_000, 3, 64)
        for start in [*range(0, 20 * order.n, 3 * order.n // 2), order.n - 64]:
            shown = order.samples(np.arange(start, start + 128))
            assert len(set(shown.tolist())) >= 127  # two epochs may share a sample
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200e6


def unevenness(anomalous: np.ndarray) -> list[str]:
    """What is uneven in an epoch's anomalies (bool, by place), beyond what one epoch in 10,000 shows by chance."""
    n, places = len(anomalous), np.flatnonzero(anomalous)
    count, found = len(places), []
    if stats.chisquare(np.bincount(places * 20 // n, minlength=20)).pvalue < 1e-4:
        found.append("counts")
    if np.diff(places, prepend=-1, append=n).max() > n / count * np.log(count * 1e4):  # gaps are near exponential
        found.append("gaps")
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gamma", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("window", [0, 1, 4, 1000])
def test_anomalies_are_mixed_evenly_through_an_epoch(window: int, gamma: float, seed: int) -> None:
    shards = [512] * 38 + [344]
    normals = sum(shards)
    anomalies = contaminants(normals, gamma)
    order = WindowedOrder(shards, anomalies, seed, window) if window else SampleOrder(normals + anomalies, seed)
    for epoch in (0, 1):
        assert not unevenness(epochs(order, epoch) >= normals)


@pytest.mark.parametrize("gamma", [0.01, 0.02, 0.05])
def test_uneven_anomalies_would_be_noticed(gamma: float) -> None:
    """Controls: anomalies all at the end; and mixed, but none in the last tenth."""
    normals = 19_800
    anomalies = contaminants(normals, gamma)
    assert unevenness(np.arange(normals + anomalies) >= normals) == ["counts", "gaps"]
    mixed = np.random.default_rng(0).permutation(np.arange(anomalies + normals * 9 // 10)) < anomalies
    assert "gaps" in unevenness(np.append(mixed, np.zeros(normals // 10, bool)))
