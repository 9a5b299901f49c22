"""The iterative search against a plain second implementation, worked numbers and what a result may depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.methods.search.descent import search
from trainer.networks.progressive import Critic, Generator

R, WIDTH = 8, 8
torch.manual_seed(1)
GENERATOR, CRITIC = Generator(R, 1, WIDTH).double(), Critic(R, 1, WIDTH).double()


def generate(z: Tensor) -> Tensor:
    return GENERATOR(z, R)


def features(images: Tensor) -> Tensor:
    return CRITIC.trunk(images, R, group=1)


def latents(count: int, seed: int) -> Tensor:
    return torch.randn(count, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made_images(count: int, seed: int = 2) -> Tensor:
    with torch.no_grad():
        return generate(latents(count, seed))


def found(queries: Tensor, starts: Tensor, steps: int = 20) -> Tensor:
    return search(queries, generate, features, starts, steps, learning_rate=0.1)


def loss(queries: Tensor, z: Tensor, weight: float = 0.1) -> Tensor:
    with torch.no_grad():
        matches = generate(z)
        residual = (queries - matches).abs().sum(dim=(1, 2, 3))
        return (1 - weight) * residual + weight * (features(queries) - features(matches)).abs().sum(dim=1)


# against worked numbers and a second implementation


def number(z: Tensor) -> Tensor:
    return z[:, :, None, None]  # an image of one pixel: z itself


def test_the_loss_after_the_last_update_decides() -> None:
    # Adam's first step is the learning rate, against the gradient's sign. Query 1: start 0.5 (loss 0.5) steps to 1.5
    # and has loss 0.5 again, start -0.4 (loss 1.4) steps to 0.6 and has loss 0.4.
    queries, starts = torch.ones(1, 1, 1, 1), torch.tensor([[0.5], [-0.4]])
    for steps, expected in ((0, 0.5), (1, 0.6)):
        z = search(queries, number, lambda images: images.flatten(1), starts, steps, learning_rate=1.0)
        torch.testing.assert_close(z, torch.tensor([[expected]]))


def test_the_feature_weight_divides_the_loss_between_pixels_and_features() -> None:
    # Query 1, f = 4 - 3 q at most 3: start 0.2 has residual 0.8 and features 3 against 1; start 2.5 has 1.5 and -3.5
    # clipped to 1. So w = 0.1 gives 0.92 and 1.35, and w = 0.9 gives 1.88 and 0.15.
    queries, starts = torch.ones(1, 1, 1, 1), torch.tensor([[0.2], [2.5]])

    def clipped(images: Tensor) -> Tensor:
        return (4 - 3 * images.flatten(1)).clamp(1, 3)

    for weight, expected in ((0.1, 0.2), (0.9, 2.5)):
        z = search(queries, number, clipped, starts, 0, 1.0, feature_weight=weight)
        torch.testing.assert_close(z, torch.tensor([[expected]]))


def plain_search(
    query: np.ndarray, a: np.ndarray, b: np.ndarray, starts: np.ndarray, steps: int, rate: float, w: float
) -> np.ndarray:
    """One query; G(z) = A z, f(x) = B x; Adam and the gradient written out."""
    ends = []
    for start in starts:
        z, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
        for t in range(1, steps + 1):
            g = (1 - w) * a.T @ np.sign(a @ z - query) + w * (b @ a).T @ np.sign(b @ a @ z - b @ query)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            z = z - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        difference = query - a @ z
        ends.append(((1 - w) * np.abs(difference).sum() + w * np.abs(b @ difference).sum(), z))
    return min(ends, key=lambda end: end[0])[1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 12), st.floats(0, 1))
def test_the_search_is_that_of_a_plain_second_implementation(seed: int, restarts: int, steps: int, w: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(12, 3)), rng.normal(size=(5, 12))
    queries, starts = rng.normal(size=(4, 12)), rng.normal(size=(restarts, 3))
    expected = [plain_search(query, a, b, starts, steps, 0.05, w) for query in queries]

    def linear(z: Tensor) -> Tensor:
        return (z @ torch.from_numpy(a).T).reshape(-1, 3, 2, 2)

    def projected(images: Tensor) -> Tensor:
        return images.flatten(1) @ torch.from_numpy(b).T

    images = torch.from_numpy(queries).reshape(4, 3, 2, 2)
    z = search(images, linear, projected, torch.from_numpy(starts), steps, 0.05, w)
    np.testing.assert_allclose(z.numpy(), expected, rtol=1e-7, atol=1e-9)


# with networks


def test_images_that_the_generator_made_are_found() -> None:
    queries = made_images(64)
    z = found(queries, latents(2, 7), steps=100)
    with torch.no_grad():
        mine, other = ((queries - generate(latent)).abs().mean(dim=(1, 2, 3)) for latent in (z, latents(64, 8)))
    assert (mine < other).double().mean() >= 0.95
    assert mine.median() < other.median() / 4


def test_a_querys_result_does_not_depend_on_its_neighbours() -> None:
    queries, starts = made_images(6), latents(3, 7)
    together = found(queries, starts)
    assert len(together.unique(dim=0)) == 6
    torch.testing.assert_close(torch.cat([found(query[None], starts) for query in queries]), together)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(found(queries[order], starts), together[order])


def test_the_order_of_the_starts_does_not_matter() -> None:
    queries, starts = made_images(6), latents(4, 7)
    torch.testing.assert_close(found(queries, starts.flip(0)), found(queries, starts))


def test_more_restarts_never_give_a_greater_loss() -> None:
    queries, starts = made_images(24), latents(6, 7)
    losses = torch.stack([loss(queries, found(queries, starts[:k])) for k in range(1, 7)])
    assert (losses.diff(dim=0) <= 1e-9).all()
    assert losses[-1].sum() < 0.9 * losses[0].sum()


def test_no_start_ends_lower_than_the_one_chosen() -> None:
    queries, starts = made_images(24), latents(4, 7)
    ends = torch.stack([loss(queries, found(queries, start[None])) for start in starts])
    torch.testing.assert_close(loss(queries, found(queries, starts)), ends.amin(dim=0))
    assert len(ends.argmin(dim=0).unique()) > 1


@pytest.mark.parametrize("trainable", [True, False])
def test_the_networks_and_the_starts_stay_as_they_are(trainable: bool) -> None:
    parameters = [*GENERATOR.parameters(), *CRITIC.parameters()]
    states = [p.detach().clone() for p in parameters]
    starts = latents(2, 7)
    try:
        for parameter in parameters:
            parameter.requires_grad_(trainable).grad = torch.full_like(parameter, 3.0)
        z = found(made_images(3), starts, steps=3)
        assert all(p.requires_grad == trainable and p.grad is not None and (p.grad == 3).all() for p in parameters)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True).grad = None
    assert all(torch.equal(p, state) for p, state in zip(parameters, states))
    assert torch.equal(starts, latents(2, 7)) and not starts.requires_grad and starts.grad is None
    assert not z.requires_grad


def test_the_search_works_where_gradients_are_switched_off() -> None:
    queries, starts = made_images(3), latents(2, 7)
    expected = found(queries, starts)
    assert not torch.allclose(expected, found(queries, starts, steps=0))
    with torch.no_grad():
        assert torch.equal(found(queries, starts), expected)
        assert not torch.is_grad_enabled()


def test_the_found_latent_has_the_starts_type_and_shape() -> None:
    generator, critic = Generator(R, 3, WIDTH), Critic(R, 3, WIDTH)
    queries, starts = torch.rand(5, 3, R, R), torch.randn(2, WIDTH)
    z = search(queries, lambda z: generator(z, R), lambda x: critic.trunk(x, R, group=1), starts, 2, 0.1)
    assert (z.shape, z.dtype) == ((5, WIDTH), torch.float32)
    assert math.isfinite(z.sum().item())
