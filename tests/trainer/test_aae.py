"""The adversarial autoencoder and ITSR against counts from the literature, closed forms and plain code."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainer.config import TrainConfig
from trainer.methods import METHODS
from trainer.methods.aae import Aae
from trainer.methods.aae.networks import AdversarialAutoencoder
from trainer.methods.aae.step import DiscriminatorLoss, FoolingLoss, ReconstructionLoss
from trainer.methods.aae.terms import greater_rank, quantiles
from trainer.methods.itsr.step import negated, outside
from trainer.networks.dense import Dense


def test_parameter_counts_without_batch_norm() -> None:
    with torch.device("meta"):
        networks = Dense(784, 1000, 1000, 2), Dense(2, 1000, 1000, 784), Dense(2, 1000, 1000, 1)
    assert [sum(p.numel() for p in each.parameters()) for each in networks] == [1_788_002, 1_788_784, 1_005_001]
    with torch.device("meta"):
        normed = Dense(784, 1000, 1000, 2, norm=True)
    assert sum(p.numel() for p in normed.parameters()) == 1_788_002 + 4000


def networks_of(layers: str = "dense") -> AdversarialAutoencoder:
    options = Aae(layers=layers, width=8, code_size=2, discriminator_width=8)  # type: ignore[arg-type]
    return AdversarialAutoencoder.build(options, 8, 1, 5, 0)


@pytest.mark.parametrize("layers", ["dense", "convolutions"])
def test_shapes_and_ranges(layers: str) -> None:
    networks, images = networks_of(layers), torch.randn(6, 1, 8, 8)
    codes = networks.encoder(images)
    matches = networks.decoder(100 * codes)
    assert codes.shape == (6, 2) and matches.shape == images.shape and bool((matches.abs() <= 1).all())


def test_at_equilibrium_losses_are_those_of_a_guess() -> None:
    networks = networks_of()
    for parameter in networks.discriminator.parameters():
        nn.init.zeros_(parameter)
    ones = torch.ones(6)
    telling, _ = DiscriminatorLoss(networks.discriminator)(torch.randn(6, 2), torch.randn(6, 2), ones)
    fooling, _ = FoolingLoss(networks, False)(torch.randn(6, 1, 8, 8), ones)
    assert float(telling.detach()) == pytest.approx(2 * math.log(2))
    assert float(fooling.detach()) == pytest.approx(math.log(2))


def test_weights_are_each_images() -> None:
    networks, images = networks_of(), torch.randn(4, 1, 8, 8)
    weights = torch.tensor([1.0, 0.0, -0.5, 1.0])
    loss, _ = ReconstructionLoss(networks, False)(images, weights)
    errors = F.mse_loss(networks.decoder(networks.encoder(images)), images, reduction="none").flatten(1).mean(1)
    torch.testing.assert_close(loss, (weights * errors).mean())
    with_ones, _ = ReconstructionLoss(networks, False)(images, torch.ones(4))
    torch.testing.assert_close(with_ones, errors.mean())


def test_a_weight_of_0_is_leaving_the_image_out() -> None:
    """But for batch norm, which takes every image of a batch, and for the mean, which is of all."""
    networks, images = networks_of(), torch.randn(4, 1, 8, 8)
    for network in networks.by_name().values():
        network.eval()
    for loss in (ReconstructionLoss(networks, False), FoolingLoss(networks, False)):
        parameters = [p for p in loss.parameters() if p.requires_grad]
        whole = torch.autograd.grad(loss(images, torch.tensor([1.0, 1.0, 0.0, 1.0]))[0], parameters)
        without = torch.autograd.grad(loss(images[[0, 1, 3]], torch.ones(3))[0], parameters)
        torch.testing.assert_close(whole, tuple(0.75 * each for each in without))


def test_the_encoder_fools_a_discriminator_that_stays_as_it_is() -> None:
    networks = networks_of()
    FoolingLoss(networks, False)(torch.randn(6, 1, 8, 8), torch.ones(6))[0].backward()
    assert all(p.grad is None for p in networks.discriminator.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in networks.encoder.parameters())


def test_the_prior_threshold_of_normal_codes() -> None:
    """Of N(0, I) in two dimensions p(z) / p(0) is uniform, so its 10th percentile is .1 / (2 pi)."""
    z = torch.randn(400_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    density = (-0.5 * z.square().sum(1)).exp() / (2 * math.pi)
    assert float(density.quantile(0.1)) == pytest.approx(0.015915, rel=0.01)


@given(st.integers(0, 2**31), st.integers(150, 400))
@settings(deadline=None, max_examples=20)
def test_the_joint_rank_is_either_ones(seed: int, count: int) -> None:
    draw = np.random.default_rng(seed)
    known, queries = draw.standard_normal((count, 2)), 1.5 * draw.standard_normal((50, 2))
    found = greater_rank(*(torch.from_numpy(each.astype(np.float32)) for each in (queries, quantiles(known)))).numpy()
    plain = np.stack([(known[:, i] < queries[:, i, None]).mean(1) for i in range(2)]).max(0)
    inside = (queries < known.max(0)).all(1)
    np.testing.assert_allclose(found[inside], plain[inside], atol=0.02)
    assert (found[~inside] >= 0.99).all()


def test_beyond_all_training_images_the_farther_has_the_greater_rank() -> None:
    known = torch.from_numpy(quantiles(np.random.default_rng(0).standard_normal((500, 2))))
    rows = torch.tensor([[9.0, 0.0], [0.0, 12.0], [15.0, -3.0]])
    ranks = greater_rank(rows, known)
    assert bool((ranks.diff() > 0).all()) and float(ranks[0]) > 1


@given(st.integers(0, 2**31), st.sampled_from([0.02, 0.05, 0.2]))
@settings(deadline=None, max_examples=10)
def test_a_round_rejects_at_most_its_share(seed: int, nu: float) -> None:
    codes = np.random.default_rng(seed).standard_normal((300, 2))
    rejected = outside(codes, nu, 0)
    assert rejected.mean() <= nu + 1e-9


def test_a_round_finds_codes_that_are_far_out() -> None:
    draw = np.random.default_rng(0)
    codes = np.concatenate([draw.standard_normal((285, 2)), 8 + draw.standard_normal((15, 2)) * 3])
    rejected = outside(codes, 0.05, 0)
    assert rejected[285:].mean() > 5 * rejected[:285].mean()


def test_weights_in_the_end_are_the_definitions() -> None:
    rejected, errors = np.array([True, False, True, False]), np.array([9.0, 8.0, 1.0, 2.0])
    np.testing.assert_array_equal(negated(rejected, errors, 0.5, 1.0), [-0.5, 1, 0, 1])
    np.testing.assert_array_equal(negated(rejected, errors, 0.5, 2.0), [-1, 1, 0, 1])


def test_phases_of_itsr() -> None:
    phases = METHODS["itsr"].schedule(dataclasses.replace(TrainConfig(), method="itsr"))
    assert [phase.kind for phase in phases] == ["all", *["rejection"] * 10, "last"]
    assert [phases[0].end, phases[10].end, phases[11].end] == [2_500_000, 7_500_000, 12_500_000]
    assert all(a.end == b.start for a, b in pairwise(phases))
