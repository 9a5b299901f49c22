"""Random numbers by position: the published test vectors, the distribution, and independence of the batching."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from data_tools.dataset.order import SampleOrder
from trainer.training.batches import worker_positions
from trainer.training.random import drawn, latents, mixing, philox, uniforms


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # known answers of Random123 for philox4x32-10
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    c0, c1, c2, c3 = (torch.tensor(c) for c in counter)
    words = philox((c0, c1, c2, c3), key)
    assert " ".join(f"{int(word):08x}" for word in words) == expected


def test_distribution():
    positions = torch.arange(2000)
    z = latents(5, 0, positions, 64).numpy()
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(uniforms(5, 2, positions, 64).numpy().ravel(), "uniform").pvalue > 1e-3
    correlation = np.corrcoef(z.T) - np.eye(64)
    assert np.abs(correlation).max() < 6 / np.sqrt(2000)
    assert abs(np.corrcoef(z[:-1].ravel(), z[1:].ravel())[0, 1]) < 6 / np.sqrt(z.size)


def test_streams_seeds_and_far_positions_differ():
    p = torch.tensor([7])
    draws = [latents(1, 0, p, 8), latents(1, 1, p, 8), latents(2, 0, p, 8), latents(1, 0, p + 2**32, 8)]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 40), st.integers(0, 2**63 - 1))
def test_all_of_a_step_at_once_is_the_same(first, size, seed):
    positions = torch.arange(first, first + 8)
    z, again, u = drawn(seed, positions, size)
    assert torch.equal(z, latents(seed, 0, positions, size)) and torch.equal(again, latents(seed, 1, positions, size))
    assert torch.equal(u, mixing(seed, positions))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**40), st.sampled_from([1, 2, 4, 8]), st.sampled_from([32, 64, 128]), st.integers(0, 2**40))
def test_one_worker_and_many_draw_the_same(images_seen, world, batch, seed):
    order = SampleOrder(101, seed)
    whole = worker_positions(images_seen, batch, 0, 1)
    parts = [worker_positions(images_seen, batch, rank, world) for rank in range(world)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert all(len(part) % 4 == 0 for part in parts)
    fresh = SampleOrder(101, seed)  # a worker that starts here, without a past
    assert np.array_equal(np.concatenate([fresh.samples(part) for part in parts]), order.samples(whole))
    z = [latents(seed, 1, torch.from_numpy(part), 20) for part in parts]
    assert torch.equal(torch.cat(z), latents(seed, 1, torch.from_numpy(whole), 20))
    u = [mixing(seed, torch.from_numpy(part)) for part in parts]
    assert torch.equal(torch.cat(u), mixing(seed, torch.from_numpy(whole)))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 50), st.integers(0, 1000), st.integers(0, 99))
def test_every_epoch_shows_every_sample_once(n, epoch, seed):
    shown = SampleOrder(n, seed).samples(np.arange(epoch * n, (epoch + 1) * n))
    assert sorted(shown) == list(range(n))
