"""Deep SVDD against counts from the literature and closed forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import TrainConfig
from trainer.methods import METHODS
from trainer.methods.svdd.networks import Sphere, SvddNetworks
from trainer.methods.svdd.step import CodeLoss, SphereLoss, centre_of, normalised, radius_of, soft_loss
from trainer.networks.lenet import LeNet, LeNetDecoder
from trainer.schedule import Phase
from trainer.training.group import Group
from trainer.training.outlier_exposure import Exposure


def test_parameter_counts() -> None:
    with torch.device("meta"):
        networks = (LeNet(32, 3, 32, 128), LeNetDecoder(32, 3, 32, 128), LeNet(64, 1, 32, 128))
    counts = [sum(p.numel() for p in each.parameters()) for each in networks]
    assert counts == [520_544, 284_000, 1_600_288]


def test_there_is_no_bias_to_collapse_by() -> None:
    networks = SvddNetworks.build(16, 1, 4, 16, 0)
    assert all(p.ndim > 1 for p in networks.parameters())
    black = torch.zeros(2, 1, 16, 16)
    assert torch.equal(networks.encoder.eval()(black), torch.zeros(2, 16))


@given(st.integers(0, 2**31), st.floats(0.1, 10), st.floats(-3, 3))
@settings(deadline=None, max_examples=30)
def test_images_are_brought_to_one_contrast(seed: int, scale: float, shift: float) -> None:
    images = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(seed))
    found = normalised(images)
    torch.testing.assert_close(found.flatten(1).mean(1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.flatten(1).abs().mean(1), torch.ones(3))
    torch.testing.assert_close(normalised(scale * images + shift), found, rtol=1e-3, atol=1e-4)
    assert bool(normalised(torch.full((1, 1, 8, 8), shift)).abs().max() < 1e-2)


def test_the_centre_is_the_mean_but_for_numbers_that_all_reach() -> None:
    codes = torch.tensor([[1.0, 0.1, -0.02, 0.0], [3.0, 0.02, -0.06, 0.0]])
    torch.testing.assert_close(centre_of(codes), torch.tensor([2.0, 0.1, -0.1, 0.0]))


@given(st.integers(0, 2**31), st.sampled_from([0.05, 0.1, 0.25, 0.5]))
@settings(deadline=None, max_examples=30)
def test_the_best_radius_leaves_a_share_nu_outside(seed: int, nu: float) -> None:
    distances = torch.rand(400, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 9
    radius = radius_of(distances, nu)
    assert float((distances.sqrt() > radius).double().mean()) == pytest.approx(nu, abs=0.01)
    least = float(soft_loss(distances, radius, nu))
    assert all(float(soft_loss(distances, radius + shift, nu)) >= least - 1e-4 for shift in (-0.3, -0.1, 0.1, 0.3))


def test_what_lies_in_the_centre_costs_nothing() -> None:
    sphere = Sphere(3)
    sphere.centre.copy_(torch.tensor([1.0, -2.0, 0.5]))
    codes = torch.stack([sphere.centre, sphere.centre + torch.tensor([3.0, 0.0, 4.0])])
    torch.testing.assert_close(sphere.distances(codes), torch.tensor([0.0, 25.0]))
    assert float(soft_loss(sphere.distances(codes)[:1], torch.tensor(0.0), 0.1)) == 0


@pytest.mark.parametrize("soft", [False, True])
def test_losses_are_the_formulas_and_move_the_encoder_alone(soft: bool) -> None:
    networks = SvddNetworks.build(8, 1, 4, 16, 0)
    networks.sphere.centre.fill_(0.3)
    networks.sphere.radius.fill_(0.7)
    images = torch.randn(8, 1, 8, 8)
    loss, parts = SphereLoss(networks, soft, 0.25, Exposure("blind", 0.05, Group()))(images)
    loss.backward()
    d = (networks.encoder(normalised(images)) - 0.3).square().sum(1).detach().numpy()
    expected = 0.49 + np.maximum(d - 0.49, 0).mean() / 0.25 if soft else d.mean()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert all(p.grad is not None for p in networks.encoder.parameters())
    assert all(p.grad is None for p in networks.decoder.parameters())
    if soft:
        assert float(parts["sphere/next_radius"]) == pytest.approx(np.quantile(np.sqrt(d), 0.75), rel=1e-4)
    CodeLoss(networks)(images)[0].backward()
    assert all(p.grad is not None for p in networks.decoder.parameters())


def test_the_rate_falls_to_a_tenth_at_the_milestone() -> None:
    phase = Phase(0, 8, "sphere", 300, 600, 10, 0.5, milestone=1 / 3)
    assert [phase.rate(seen) for seen in (300, 390, 400, 599)] == pytest.approx([0.5, 0.5, 0.05, 0.05])
    both = dataclasses.replace(phase, decay=0.5)
    assert [both.rate(seen) for seen in (300, 450, 525)] == pytest.approx([0.5, 0.05, 0.025])
    assert dataclasses.replace(phase, milestone=1.0).rate(599) == 0.5


def test_its_phases_are_two() -> None:
    config = dataclasses.replace(TrainConfig(), method="svdd")
    first, second = METHODS["svdd"].schedule(config)
    assert (first.kind, first.end, second.kind, second.end) == ("autoencoder", 1_750_000, "sphere", 2_500_000)
    assert first.rate(1_249_800) == 1e-4 and first.rate(1_250_000) == pytest.approx(1e-5)
    assert not METHODS["svdd"].ready(config, 1_750_000) and METHODS["svdd"].ready(config, 1_750_200)
