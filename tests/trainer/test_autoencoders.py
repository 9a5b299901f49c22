"""Autoencoders against counts from the literature, worked numbers and second implementations in float64."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from tests.support.runs import leave_group
from trainer.config import TrainConfig
from trainer.methods import METHODS
from trainer.methods.drae.step import DraeLoss, drae_loss, split
from trainer.methods.vae.step import divergence, drawn, negative_log_likelihood
from trainer.training.group import Group, form_group

errors_of_a_batch = st.lists(st.integers(0, 1000).map(lambda n: n / 8), min_size=2, max_size=40)
WORKED = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("resolution", "channels", "expected"), [(32, 3, (1_420_544, 1_431_811)), (64, 1, (3_649_152, 3_671_937))]
)
def test_parameter_counts(resolution: int, channels: int, expected: tuple[int, int]) -> None:
    config = dataclasses.replace(TrainConfig(), method="ae", resolution=resolution)
    networks = METHODS["ae"].networks(config, channels, 0).by_name().values()
    assert tuple(sum(p.numel() for p in each.parameters()) for each in networks) == expected


# DRAE (Xia et al. 2015)


def plain_split(errors: np.ndarray) -> tuple[int, float]:
    """All n - 1 splits, one after the other."""
    ordered = np.sort(errors)
    total = ((ordered - ordered.mean()) ** 2).sum()
    parts = [(ordered[:k], ordered[k:]) for k in range(1, len(ordered))]
    within = [sum(((part - part.mean()) ** 2).sum() for part in both) for both in parts]
    return 1 + int(np.argmin(within)), min(within) / total if total else 0.0


@given(errors_of_a_batch)
@settings(deadline=None)
def test_the_split_is_the_best_of_all(values: list[float]) -> None:
    errors = torch.tensor(values, dtype=torch.float64)
    (low, h), (_, least) = split(errors), plain_split(errors.numpy())
    assert 1 <= int(low) < len(values)
    np.testing.assert_allclose(float(h), least, atol=1e-12)
    loss, rejected = drae_loss(errors, 1.0)
    np.testing.assert_allclose(float(loss), np.sort(errors.numpy())[: int(low)].mean() + least, atol=1e-10)
    assert float(rejected) == pytest.approx(1 - int(low) / len(values))


@given(errors_of_a_batch.filter(lambda values: len(set(values)) > 1), st.floats(0.1, 10), st.floats(-5, 5))
@settings(deadline=None)
def test_the_split_ignores_shift_and_scale(values: list[float], scale: float, shift: float) -> None:
    errors = torch.tensor(values, dtype=torch.float64)
    np.testing.assert_allclose(float(split(scale * errors + shift)[1]), float(split(errors)[1]), atol=1e-9)


def test_worked_numbers() -> None:
    errors = WORKED.clone().requires_grad_(True)
    loss, rejected = drae_loss(errors, 0.1)
    loss.backward()
    assert (float(split(WORKED)[0]), float(split(WORKED)[1])) == (2, pytest.approx(0.2))
    assert float(loss.detach()) == pytest.approx(0.52) and float(rejected) == 0.5
    torch.testing.assert_close(errors.grad, torch.tensor([0.492, 0.524, -0.024, 0.008], dtype=torch.float64))


@given(st.integers(0, 2**31), st.integers(5, 60))
@settings(deadline=None, max_examples=30)
def test_the_gradient_is_the_closed_form(seed: int, count: int) -> None:
    errors = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).exp()
    errors.requires_grad_(True)
    weight = 0.1
    drae_loss(errors, weight)[0].backward()
    assert errors.grad is not None
    e, (low, h) = errors.detach(), split(errors)
    is_low = e <= e.sort().values[int(low) - 1]
    centre = torch.where(is_low, e[is_low].mean(), e[~is_low].mean())
    by_h = 2 * weight * ((e - centre) - h * (e - e.mean())) / (e - e.mean()).square().sum()
    torch.testing.assert_close(errors.grad, is_low / low + by_h)
    assert float(errors.grad.sum()) == pytest.approx(1)  # a shift of all errors shifts the loss by as much
    assert float((e * by_h).sum()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "h", "rejected"), [("normal", 1 - 2 / math.pi, 0.5), ("uniform", 0.25, 0.5), ("exponential", 0.352, 0.20)]
)
def test_what_it_makes_of_errors_without_outliers(name: str, h: float, rejected: float) -> None:
    draw = getattr(np.random.default_rng(0), "standard_normal" if name == "normal" else name)
    errors = torch.from_numpy(draw(size=50_001))
    low, found = split(errors)
    assert float(found) == pytest.approx(h, abs=0.01) and 1 - int(low) / len(errors) == pytest.approx(
        rejected, abs=0.02
    )


@pytest.mark.parametrize(("share", "rejected"), [(0.01, 0.45), (0.02, 0.38), (0.05, 0.05), (0.10, 0.10)])
def test_it_finds_outliers_that_are_far_and_not_few(share: float, rejected: float) -> None:
    """Below 5 % of outliers, six standard deviations off, it rejects a large part of the others."""
    errors = np.random.default_rng(0).standard_normal(20_000)
    errors[: int(share * len(errors))] += 6
    low, _ = split(torch.from_numpy(errors))
    assert 1 - int(low) / len(errors) == pytest.approx(rejected, abs=0.02)


def test_errors_that_are_all_alike_do_no_harm() -> None:
    errors = torch.full((8,), 3.0, requires_grad=True)
    loss, _ = drae_loss(errors, 0.1)
    loss.backward()
    assert float(loss.detach()) == 3 and errors.grad is not None and bool(errors.grad.isfinite().all())


class Squeeze(nn.Module):
    """An autoencoder without batch norm, whose gradients are the global batch's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(12, 3).double(), nn.Linear(3, 12).double()


def gradients(images: Tensor, group: Group) -> dict[str, Tensor]:
    loss: nn.Module = DraeLoss(Squeeze(), 0.1, group)  # type: ignore[arg-type]
    if group.size > 1:
        loss = DistributedDataParallel(loss, process_group=group.process_group)
    loss(images)[0].backward()
    return {name.removeprefix("module."): p.grad for name, p in loss.named_parameters() if p.grad is not None}


def images_of_a_batch() -> Tensor:
    return torch.randn(16, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).exp()


def _worker(rank: int, place: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=2)
    mine = images_of_a_batch().chunk(2)[rank]
    torch.save(gradients(mine, form_group({16}, 60)), f"{place}/{rank}")
    leave_group()


@pytest.mark.slow
def test_two_workers_have_the_gradients_of_one(tmp_path: Path) -> None:
    spawn(_worker, args=(str(tmp_path),), nprocs=2)
    expected = gradients(images_of_a_batch(), Group())
    halves = [gradients(half, Group()) for half in images_of_a_batch().chunk(2)]
    for rank in range(2):
        found = torch.load(tmp_path / str(rank), weights_only=True)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-12)
            apart = torch.stack([half[name] for half in halves]).mean(0)
            assert not torch.allclose(apart, gradient, rtol=1e-3)  # or the comparison would show nothing


# VAE (An and Cho 2015)

HALF_LOG_2_PI = 0.9189385


@pytest.mark.parametrize(("mean", "spread", "expected"), [(0, 1, 0.0), (1, 1, 0.5), (0, 2, 0.8068528)])
def test_divergence_of_one_number(mean: float, spread: float, expected: float) -> None:
    normal = torch.full((2, 3), float(mean)), torch.full((2, 3), 2 * math.log(spread))
    torch.testing.assert_close(divergence(normal), torch.full((2,), 3 * expected))


def test_likelihood_at_the_mean_is_that_of_the_formula() -> None:
    images = torch.randn(2, 3, 4, 4)
    unlikely = negative_log_likelihood(images, (images, torch.zeros_like(images)))
    torch.testing.assert_close(unlikely, torch.full((2,), 48 * HALF_LOG_2_PI))


@given(st.integers(0, 2**31), st.floats(-3, 3))
@settings(deadline=None, max_examples=30)
def test_likelihood_and_divergence_are_torchs(seed: int, level: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    x, mean = (torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=draw) for _ in range(2))
    log_variance = level + torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=draw)
    known = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    torch.testing.assert_close(negative_log_likelihood(x, (mean, log_variance)), -known.log_prob(x).flatten(1).sum(1))
    standard = torch.distributions.Normal(torch.zeros_like(mean), 1)
    apart = torch.distributions.kl_divergence(known, standard).flatten(1).sum(1)
    torch.testing.assert_close(divergence((mean.flatten(1), log_variance.flatten(1))), apart)


def test_with_one_variance_the_score_ranks_as_the_squared_error() -> None:
    images, mean = torch.randn(9, 1, 4, 4), torch.randn(9, 1, 4, 4)
    for log_variance in (-2.0, 1.0):
        unlikely = negative_log_likelihood(images, (mean, torch.full_like(mean, log_variance)))
        error = (images - mean).square().flatten(1).sum(1)
        affine = 16 * (HALF_LOG_2_PI + log_variance / 2) + error * math.exp(-log_variance) / 2
        torch.testing.assert_close(unlikely, affine)


def test_the_bound_of_a_linear_model_is_its_evidence_at_the_posterior() -> None:
    """z ~ N(0, 1), x | z ~ N(w z, s^2): at q(z) = N(w x / (w^2 + s^2), s^2 / (w^2 + s^2)) the bound is log p(x)."""
    w, s, x = 1.5, 0.7, torch.tensor([-1.0, 0.3, 2.0], dtype=torch.float64)
    variance = torch.full((3, 1), s**2 / (w**2 + s**2), dtype=torch.float64)
    posterior = (w * x / (w**2 + s**2))[:, None], variance.log()
    noise = torch.randn(200_000, 3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = drawn(posterior, noise)
    decoded = [(w * z[:, i], torch.full_like(z[:, i], 2 * math.log(s))) for i in range(3)]
    unlikely = [negative_log_likelihood(each.expand(len(z), 1), normal) for each, normal in zip(x, decoded)]
    bound = -torch.stack([each.mean() for each in unlikely]) - divergence(posterior)
    evidence = torch.distributions.Normal(0.0, math.hypot(w, s)).log_prob(x)
    torch.testing.assert_close(bound, evidence, rtol=0, atol=0.01)


@given(*[st.floats(-3, 3)] * 4, *[st.floats(0.1, 3)] * 2)
@settings(deadline=None, max_examples=50)
def test_no_bound_is_above_what_the_data_leave_open(
    gain: float, shift: float, slope: float, offset: float, noise: float, spread: float
) -> None:
    """x ~ N(0, 1): for any q(z) = N(slope x + offset, spread^2) and decoder N(gain z + shift, noise^2)."""
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(5))  # exact for squares
    weights = weights / weights.sum()
    x, e = (each.reshape(-1, 1) for each in torch.meshgrid(nodes, nodes, indexing="ij"))
    mean, z = slope * x + offset, slope * x + offset + spread * e
    decoded = gain * z + shift, torch.full_like(z, 2 * math.log(noise))
    divergences = divergence((mean, torch.full_like(mean, 2 * math.log(spread))))
    bound = -(negative_log_likelihood(x, decoded) + divergences)
    expected = (torch.outer(weights, weights).flatten() * bound).sum()
    assert float(expected) <= -HALF_LOG_2_PI - 0.5 + 1e-6
