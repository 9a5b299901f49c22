"""Label-free criteria against closed forms and plain second implementations."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trainer.scoring.synthetic import separation
from tuning.label_free import chosen_lambda, excess_mass, mass_volume, rank_agreement, uniform_images

quick = settings(max_examples=60, deadline=None)


def reference_images(count: int, side: int, channels: int) -> np.ndarray:
    """Far from black and white, so that nothing is clipped, with a spectrum that falls."""
    draw = np.random.default_rng(8)
    pixels = side * side * channels
    axes = np.linalg.qr(draw.normal(size=(pixels, pixels)))[0]
    flat = 128 + draw.uniform(-1, 1, (count, pixels)) * 60 * 0.6 ** np.arange(pixels) @ axes
    return flat.round().astype(np.uint8).reshape(count, side, side, channels)


@pytest.mark.parametrize(("count", "side", "channels"), [(300, 4, 3), (300, 8, 1), (20, 8, 3)])
def test_uniform_images_fill_the_box_of_the_principal_components(count: int, side: int, channels: int) -> None:
    reference = reference_images(count, side, channels)
    flat = reference.reshape(count, -1).astype(np.float64)
    mean = flat.mean(axis=0)
    axes = np.linalg.svd(flat - mean, full_matrices=False)[2][:5]
    known = (flat - mean) @ axes.T
    images = uniform_images(reference, 3000, 5, 2)
    assert images.dtype == np.uint8 and images.shape == (3000, side, side, channels)
    centred = images.reshape(3000, -1) - mean
    drawn = centred @ axes.T
    # rounding to grey levels is an error of 1 / sqrt(12) a pixel, in every direction alike
    assert (drawn > known.min(axis=0) - 1.5).all() and (drawn < known.max(axis=0) + 1.5).all()
    np.testing.assert_allclose(centred, drawn @ axes, atol=2)
    place = (drawn - known.min(axis=0)) / np.ptp(known, axis=0)
    for column in place[:, :2].T:  # the wide sides, where rounding is small
        assert stats.kstest(column, "uniform").statistic < 0.04
    correlation = np.corrcoef(place.T) - np.eye(5)
    assert np.abs(correlation).max() < 0.08
    np.testing.assert_array_equal(uniform_images(reference, 3000, 5, 2), images)
    assert not np.array_equal(uniform_images(reference, 3000, 5, 3), images)


def test_uniform_images_of_alike_images_are_that_image() -> None:
    reference = np.repeat(np.random.default_rng(1).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8), 6, axis=0)
    np.testing.assert_array_equal(uniform_images(reference, 4, 5, 0), reference[:4])


def plain_excess_mass(scores: np.ndarray, uniform_scores: np.ndarray) -> float:
    """The definition level by level; the area exactly, between the points where two of the lines cross."""
    lines = []
    for u in scores:
        volume = (1 + (uniform_scores <= u).sum()) / (1 + len(uniform_scores))
        lines.append(((scores <= u).mean(), volume))
    end = max((mass - 0.9) / volume for mass, volume in lines)
    crossings = [(m - n) / (v - w) for (m, v), (n, w) in combinations(set(lines), 2) if v != w]
    t = np.unique([0, end, *(c for c in crossings if 0 < c < end)])
    curve = np.array([max(mass - x * volume for mass, volume in lines) for x in t])
    return float((np.diff(t) * (curve[1:] + curve[:-1]) / 2).sum() / 0.095)


def plain_mass_volume(scores: np.ndarray, uniform_scores: np.ndarray) -> float:
    ordered, alphas = np.sort(scores), 0.9 + 0.099 * (np.arange(4000) + 0.5) / 4000
    return float(np.mean([(uniform_scores <= ordered[math.ceil(a * len(scores) - 1e-9) - 1]).mean() for a in alphas]))


@quick
@given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 40), st.integers(0, 10**6))
def test_excess_mass_and_mass_volume_match_their_definitions(data: int, uniform: int, values: int, seed: int) -> None:
    """Few distinct values, so that many scores are equal."""
    draw = np.random.default_rng(seed)
    scores, uniform_scores = draw.integers(0, values, data) / 7, draw.integers(0, values, uniform) / 7
    assert excess_mass(scores, uniform_scores) == pytest.approx(plain_excess_mass(scores, uniform_scores), rel=1e-4)
    assert 1 - 1e-9 <= excess_mass(scores, uniform_scores) <= uniform + 1
    assert mass_volume(scores, uniform_scores) == pytest.approx(plain_mass_volume(scores, uniform_scores), abs=2e-3)


@pytest.mark.parametrize("half_width", [0.02, 0.1, 0.5])
def test_a_distance_that_fits_the_data_has_the_closed_forms(half_width: float) -> None:
    """Data uniform in [-h, h], space [-1, 1], score |x|: mass m lies in volume h m, so EM(t) = 1 - h t."""
    points, space = np.linspace(-half_width, half_width, 20_001), np.linspace(-1, 1, 20_001)
    assert mass_volume(np.abs(points), np.abs(space)) == pytest.approx(half_width * (0.9 + 0.999) / 2, abs=2e-4)
    assert excess_mass(np.abs(points), np.abs(space)) == pytest.approx(1 / half_width, rel=5e-3)


def test_a_gaussian_has_the_volume_of_its_quantiles() -> None:
    """Data N(0, s), space [-1, 1], score |x|: the volume at mass alpha is the (1 + alpha) / 2 quantile of N(0, s)."""
    points = stats.norm.ppf((np.arange(40_000) + 0.5) / 40_000) * 0.1
    space = np.linspace(-1, 1, 40_001)
    alpha = 0.9 + 0.099 * (np.arange(20_000) + 0.5) / 20_000
    expected = (0.1 * stats.norm.ppf((1 + alpha) / 2)).mean()
    assert mass_volume(np.abs(points), np.abs(space)) == pytest.approx(expected, rel=2e-3)


def test_a_score_that_knows_nothing_gets_the_mean_alpha_and_one() -> None:
    draw = np.random.default_rng(4)
    scores, uniform_scores = draw.random(20_000), draw.random(20_000)
    assert mass_volume(scores, uniform_scores) == pytest.approx((0.9 + 0.999) / 2, abs=0.01)
    assert excess_mass(scores, uniform_scores) == pytest.approx(1, abs=0.02)
    assert excess_mass(np.zeros(9), np.zeros(9)) == pytest.approx(1)
    assert mass_volume(np.zeros(9), np.zeros(9)) == pytest.approx(1)


def test_a_better_score_has_more_excess_mass_and_less_volume() -> None:
    draw = np.random.default_rng(5)
    data, space = draw.normal(0, 0.1, (4000, 2)), draw.uniform(-1, 1, (4000, 2))
    scores: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda x: np.linalg.norm(x, axis=1),
        lambda x: np.linalg.norm(x - 0.15, axis=1),
        lambda x: np.linalg.norm(x - 0.6, axis=1),
        lambda x: -np.linalg.norm(x, axis=1),
    ]
    masses = [excess_mass(score(data), score(space)) for score in scores]
    volumes = [mass_volume(score(data), score(space)) for score in scores]
    assert masses == sorted(masses, reverse=True) and len(set(masses)) == 4
    assert volumes == sorted(volumes) and len(set(volumes)) == 4


@quick
@given(st.integers(0, 10**6), st.sampled_from([lambda s: 3 * s - 8, np.exp, lambda s: s**3, np.arctan]))
def test_only_the_order_of_scores_counts(seed: int, transform: Callable[[np.ndarray], np.ndarray]) -> None:
    draw = np.random.default_rng(seed)
    scores, uniform_scores = draw.normal(0, 1, 80), draw.normal(1, 2, 90)
    for criterion in (excess_mass, mass_volume, separation):
        expected = criterion(scores, uniform_scores)
        assert criterion(transform(scores), transform(uniform_scores)) == expected
        assert criterion(draw.permutation(scores), draw.permutation(uniform_scores)) == expected


@quick
@given(st.integers(2, 6), st.integers(3, 30), st.integers(2, 12), st.integers(0, 10**6))
def test_rank_agreement_is_the_mean_of_scipys_spearman(runs: int, images: int, values: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, values, (runs, images)).astype(np.float64)
    scores[:, :2] = [0, values]  # no constant row
    expected = [np.asarray(stats.spearmanr(a, b))[0] for a, b in combinations(scores, 2)]
    assert rank_agreement(scores) == pytest.approx(np.mean(expected), abs=1e-12)


@pytest.mark.filterwarnings("error")
def test_rank_agreement_of_constant_rows_and_of_one_run() -> None:
    rising = np.arange(5.0)
    assert rank_agreement(np.stack([rising, np.exp(rising)])) == pytest.approx(1)
    assert rank_agreement(np.stack([rising, -rising])) == pytest.approx(-1)
    assert rank_agreement(np.stack([rising, np.full(5, 0.1)])) == 0
    assert rank_agreement(np.full((3, 4), 0.1)) == 0
    assert rank_agreement(np.stack([rising, rising, np.ones(5)])) == pytest.approx(1 / 3)
    assert math.isnan(rank_agreement(rising[None]))


def test_the_chosen_lambda_has_the_greatest_criterion_and_is_the_least_of_ties() -> None:
    grid = np.array([0, 0.05, 0.5, 0.9, 1])
    assert chosen_lambda(grid, np.array([1.0, 2, 5, 3, 4])) == 2
    assert chosen_lambda(grid, np.array([1, 5 - 1e-13, 5, 5 + 1e-13, 4])) == 1
    assert chosen_lambda(grid, np.array([1, 5 - 1e-11, 5, 3, 4])) == 2
    assert chosen_lambda(grid[::-1], np.array([1.0, 2, 5, 5, 4])) == 3
    assert chosen_lambda(grid, np.array([np.nan, -3, -1, np.nan, -2])) == 2
    assert chosen_lambda(grid, np.full(5, np.nan)) == 0
