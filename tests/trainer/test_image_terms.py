"""L_c and L_i, which need of an image its pixels and its closest match, against second implementations in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.scoring.gaussian import gaussian
from trainer.scoring.terms.correlation import correlation_distance
from trainer.scoring.terms.intensities import QUANTILES, SQUARES, details, intensities, statistics
from trainer.scoring.terms.intensities import TERM as L_I

RNG = np.random.default_rng(5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.floats(0.1, 10), st.floats(-5, 5), st.floats(0.1, 10))
def test_L_c_is_numpys_correlation_whatever_brightness_and_contrast(
    seed: int, channels: int, gain: float, offset: float, other_gain: float
) -> None:
    draw = np.random.default_rng(seed)
    images = draw.normal(size=(4, channels, 8, 8))
    others = images + draw.normal(size=images.shape) * draw.uniform(0, 3)
    expected = [np.sqrt(max(2 - 2 * np.corrcoef(a.ravel(), b.ravel())[0, 1], 0)) for a, b in zip(images, others)]
    found = correlation_distance(torch.from_numpy(gain * images + offset), torch.from_numpy(other_gain * others))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_L_c_is_0_for_a_perfect_match_2_for_its_negative_and_1_where_either_is_constant() -> None:
    image = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    others = torch.cat([image, -image, torch.zeros_like(image)])
    found = correlation_distance(image.expand(3, 1, 8, 8), others)
    np.testing.assert_allclose(found.numpy(), [0, 2, 1], atol=1e-6)
    constant = others[2:]
    assert correlation_distance(constant, image) == pytest.approx(1) and not correlation_distance(constant, constant)


def coarse_by_hand(plane: np.ndarray, square: int) -> np.ndarray:
    """Means over squares, drawn as straight lines between their middles and held level beyond the outermost."""
    side = len(plane)
    means = plane.reshape(side // square, square, side // square, square).mean(axis=(1, 3))
    middles = np.arange(side // square) * square + (square - 1) / 2
    rows = np.stack([np.interp(np.arange(side), middles, column) for column in means.T], axis=1)
    return np.stack([np.interp(np.arange(side), middles, row) for row in rows])


@pytest.mark.parametrize("side", [2, 4, 8, 16, 32])
def test_details_are_what_means_over_squares_leave_out_of_each_channel(side: int) -> None:
    images, squares = RNG.normal(size=(5, 3, side, side)).cumsum(axis=3), [each for each in SQUARES if each <= side]
    expected = np.array(
        [
            [
                1  # a constant
                if square == side
                else np.sqrt(2 - 2 * np.corrcoef(plane.ravel(), coarse_by_hand(plane, square).ravel())[0, 1])
                for plane in image
                for square in squares
            ]
            for image in images
        ]
    )
    np.testing.assert_allclose(details(torch.from_numpy(images)).numpy(), expected, rtol=1e-9)
    assert statistics(torch.from_numpy(images)).shape == (5, 3 * (9 + len(squares)))
    np.testing.assert_allclose(details(torch.from_numpy(7 * images - 3)).numpy(), expected, rtol=1e-9)


def test_intensities_are_mean_deviation_and_quantiles_of_each_channel() -> None:
    images = torch.from_numpy(RNG.normal(size=(5, 3, 6, 6)))
    flat = images.flatten(2).numpy()
    expected = np.stack([flat.mean(2), flat.std(2), *np.quantile(flat, QUANTILES, axis=2)], axis=2).reshape(5, -1)
    np.testing.assert_allclose(intensities(images).numpy(), expected, rtol=1e-12)
    order = torch.from_numpy(RNG.permutation(36))
    np.testing.assert_allclose(intensities(images.flatten(2)[:, :, order].view_as(images)).numpy(), expected, rtol=1e-9)


def test_L_i_tells_what_is_empty_faint_too_bright_or_smooth() -> None:
    draw = torch.Generator().manual_seed(0)
    usual = torch.randn(300, 1, 8, 8, generator=draw) * 0.3
    kept = gaussian(statistics(usual).numpy())
    ramp = torch.linspace(-0.5, 0.5, 8).expand(1, 1, 8, 8)
    odd = torch.cat([torch.zeros(1, 1, 8, 8), 0.3 * usual[:1], usual[1:2] + 0.5, ramp])
    known = L_I.distances(statistics(usual).numpy(), kept, np.arange(300))
    assert (L_I.distances(statistics(odd).numpy(), kept) > known.max()).all()
