"""GEOM against counts from the literature, numpy's own transforms, closed forms and draws of known distributions."""

from __future__ import annotations

import dataclasses
import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import TrainConfig
from trainer.methods import METHODS
from trainer.methods.base import Trained
from trainer.methods.geom import Geom
from trainer.methods.geom.dirichlet import fitted, inverse_digamma, log_density
from trainer.methods.geom.networks import GeomNetworks
from trainer.methods.geom.step import TransformLoss, transforms_of
from trainer.methods.geom.terms import log_answers
from trainer.methods.geom.transforms import KINDS, all_views, maps_on, transformed
from trainer.networks.wide_residual import WideResidual
from trainer.training.group import Group
from trainer.training.outlier_exposure import Exposure

CPU = torch.device("cpu")
seeds = st.integers(0, 2**31)


# the classifier


@pytest.mark.parametrize(
    ("depth", "width", "classes", "expected"),
    [(10, 4, 72, 1_214_744), (10, 4, 111, 1_224_767), (10, 1, 72, 81_880)],
)
def test_parameter_counts(depth: int, width: int, classes: int, expected: int) -> None:
    with torch.device("meta"):
        network = WideResidual(3, depth, width, classes)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (16, 3), (64, 1)])
def test_the_classifier_takes_any_side(side: int, channels: int) -> None:
    network = WideResidual(channels, 16, 1, 5)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.randn(4, channels, side, side))
    assert logits.shape == (4, 5) and logits.dtype == torch.float32
    assert network.features(torch.randn(4, channels, side, side)).shape == (4, 64)


def test_the_first_loss_is_that_of_a_guess() -> None:
    torch.manual_seed(0)
    loss, _ = TransformLoss(WideResidual(1, 10, 1, 72), Exposure("blind", 0.05, Group()))(
        torch.randn(256, 1, 8, 8), torch.arange(256) % 72
    )
    assert float(loss.detach()) == pytest.approx(math.log(72), rel=0.15)


class Fixed(torch.nn.Module):
    """Says the same of any views."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        return self.logits


@pytest.mark.parametrize(("sure", "known"), [(0.0, 0.0), (60.0, 1.0)])
def test_what_is_known_of_the_task_is_nothing_for_a_guess_and_all_where_all_is_right(sure: float, known: float) -> None:
    transforms = torch.arange(72)
    logits = torch.nn.functional.one_hot(transforms, 72) * sure
    for how in ("blind", "hard", "soft", "refine"):  # whatever is done with those that look anomalous
        _, told = TransformLoss(Fixed(logits), Exposure(how, 0.05, Group()))(torch.zeros(72, 1, 8, 8), transforms)
        assert float(told["classifier/known"]) == pytest.approx(known, abs=1e-6)


# transforms


def by_numpy(image: np.ndarray, flip: int, down: int, right: int, turn: int) -> np.ndarray:
    """In the order of the paper's code: flip, shift with a mirrored edge, turn."""
    side = len(image)
    image = np.fliplr(image) if flip else image
    padded = np.pad(image, side, mode="symmetric")
    return np.rot90(padded[side - down : 2 * side - down, side - right : 2 * side - right], turn)


@pytest.mark.parametrize("side", [8, 16, 32])
def test_the_72_are_numpys(side: int) -> None:
    image, s = np.random.default_rng(0).integers(0, 99, (side, side)), side // 4
    maps = KINDS["all"](side)
    options = list(product((0, 1), (0, -s, s), (0, -s, s), range(4)))
    assert maps.shape == (len(options), side * side) == (72, side * side)
    for places, (flip, down, right, turn) in zip(maps, options):
        np.testing.assert_array_equal(
            image.ravel()[places].reshape(side, side), by_numpy(image, flip, down, right, turn)
        )


@pytest.mark.parametrize(("kind", "count"), [("all", 72), ("turns", 8), ("shifts", 9), ("patches", 24)])
def test_all_differ_and_the_first_is_the_identity(kind: str, count: int) -> None:
    maps = KINDS[kind](8)
    assert len({tuple(each) for each in maps}) == count and np.array_equal(maps[0], np.arange(64))


@pytest.mark.parametrize("kind", ["turns", "patches"])
def test_turns_and_patches_form_groups(kind: str) -> None:
    maps = KINDS[kind](8)
    known = {tuple(each) for each in maps}
    assert all(tuple(a[b]) in known for a in maps for b in maps)
    assert all(sorted(each) == list(range(64)) for each in maps)


def test_shifts_are_among_all_and_patches_move_quarters() -> None:
    assert {tuple(each) for each in KINDS["shifts"](16)} <= {tuple(each) for each in KINDS["all"](16)}
    image = np.kron([[1, 2], [3, 4]], np.ones((4, 4), int)).ravel()
    orders = {tuple(image[places].reshape(8, 8)[::4, ::4].ravel()) for places in KINDS["patches"](8)}
    assert len(orders) == 24 and all(sorted(order) == [1, 2, 3, 4] for order in orders)


@given(seeds, st.integers(1, 3), st.sampled_from(list(KINDS)))
@settings(deadline=None, max_examples=20)
def test_one_gather_serves_all_images_and_channels(seed: int, channels: int, kind: str) -> None:
    draw = torch.Generator().manual_seed(seed)
    images, maps = torch.randn(5, channels, 8, 8, generator=draw), maps_on(kind, 8, CPU)
    chosen = torch.randint(len(maps), (5,), generator=draw)
    views, every = transformed(images, maps[chosen]), all_views(images, maps).view(5, len(maps), channels, 8, 8)
    for n in range(5):
        for c in range(channels):
            expected = images[n, c].flatten()[maps[chosen[n]]].view(8, 8)
            assert torch.equal(views[n, c], expected) and torch.equal(every[n, chosen[n], c], expected)


@given(seeds, st.integers(1, 40), st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_every_view_comes_once_before_any_comes_again(seed: int, images: int, count: int) -> None:
    places = np.arange(images * count)
    order = np.random.default_rng(seed)
    samples = np.concatenate([order.permutation(images) for _ in range(count)])
    transforms = transforms_of(seed, places, samples, images, count).numpy()
    assert set(zip(samples, transforms)) == set(product(range(images), range(count)))


def test_a_batch_holds_many_transforms() -> None:
    transforms = transforms_of(0, np.arange(7200), np.arange(7200), 10_000, 72)
    counts = torch.bincount(transforms, minlength=72)
    assert int(counts.min()) > 60 and int(counts.max()) < 145


# Dirichlet distributions


@given(st.floats(-30, 5))
@settings(deadline=None)
def test_the_inverse_of_digamma(value: float) -> None:
    x = inverse_digamma(torch.tensor([value], dtype=torch.float64))
    assert float(x) > 0 and float(torch.digamma(x)) == pytest.approx(value, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("alphas", [[0.5, 2.0, 7.0], [1.0, 1.0, 1.0], [40.0, 0.05, 1.5], [300.0, 200.0, 100.0]])
def test_a_fit_recovers_what_was_drawn(alphas: list[float]) -> None:
    drawn = np.random.default_rng(0).dirichlet(alphas, 20_000)
    log_p = torch.from_numpy(np.log(np.maximum(drawn, 1e-300)))[:, None]
    np.testing.assert_allclose(fitted(log_p)[0].numpy(), alphas, rtol=0.05)


def test_several_fits_are_each_by_itself_and_most_likely() -> None:
    draw = np.random.default_rng(1)
    log_p = torch.from_numpy(np.log(np.stack([draw.dirichlet(a, 500) for a in ([2, 3, 4], [9, 1, 1])], axis=1)))
    both = fitted(log_p)
    torch.testing.assert_close(both, torch.cat([fitted(log_p[:, :1]), fitted(log_p[:, 1:])]))
    both.requires_grad_(True)
    constants = both.sum(1).lgamma() - both.lgamma().sum(1)
    (constants + log_density(log_p, both).mean(0)).sum().backward()
    assert both.grad is not None and float(both.grad.abs().max()) < 1e-6


def test_before_the_fit_all_answers_are_equally_likely() -> None:
    log_p = torch.randn(7, 4, 4).log_softmax(-1)
    assert torch.equal(log_density(log_p, torch.ones(4, 4)), torch.zeros(7, 4))


# scores


def answers(images: torch.Tensor, kind: str = "turns") -> tuple[torch.Tensor, Trained]:
    options = Geom(width=1, transforms=kind)  # type: ignore[arg-type]
    config = dataclasses.replace(TrainConfig(resolution=8), method="geom", geom=options)  # type: ignore[call-arg]
    networks = GeomNetworks.build(1, 10, 1, len(KINDS[kind](8)), 0).by_name()
    for network in networks.values():
        network.eval()
    trained = Trained(config, networks, 8, None, CPU)
    with torch.no_grad():
        return log_answers(trained, images), trained


def test_answers_are_each_views() -> None:
    images = torch.randn(11, 1, 8, 8)
    found, trained = answers(images, "all")
    maps = maps_on("all", 8, CPU)
    with torch.no_grad():
        for view in (0, 5, 71):
            expected = trained.networks["classifier"](transformed(images, maps[view].expand(11, -1))).log_softmax(1)
            torch.testing.assert_close(found[:, view], expected, rtol=1e-4, atol=1e-5)


def test_what_looks_alike_in_all_turns_cannot_be_told() -> None:
    """Of fully symmetric images no classifier has less than the cross entropy of a guess among the 8."""
    quarter = torch.randn(6, 1, 4, 4)
    quarter = quarter + quarter.transpose(2, 3)
    half = torch.cat([quarter, quarter.flip(3)], dim=3)
    found, _ = answers(torch.cat([half, half.flip(2)], dim=2))
    cross_entropy = -found.diagonal(dim1=1, dim2=2).mean(dim=1)
    assert float(cross_entropy.min()) >= math.log(8) - 1e-5


def test_terms_are_of_the_answers() -> None:
    images = torch.randn(5, 1, 8, 8)
    found, trained = answers(images)
    from trainer.scoring.terms.base import Response

    with torch.no_grad():
        trained.networks["usual"].alphas.uniform_(0.5, 3)  # type: ignore[operator]
        response = Response(METHODS["geom"], trained, images)
        terms = {term.name: term.of(response).double().numpy() for term in METHODS["geom"].own_terms()}
    p, alphas = found.double().exp().numpy(), trained.networks["usual"].alphas.double().numpy()  # type: ignore[operator]
    likelihood = ((alphas - 1) * np.log(p)).sum(2).mean(1)
    np.testing.assert_allclose(terms["dirichlet"], -likelihood, rtol=1e-4)
    np.testing.assert_allclose(terms["softmax"], -np.einsum("nii->n", p) / 8, rtol=1e-4)
    np.testing.assert_allclose(terms["entropy"], -(p * np.log2(p)).sum(2).mean(1), rtol=1e-4)
    assert terms["entropy"].max() <= 3  # bits
