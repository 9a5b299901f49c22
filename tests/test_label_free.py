"""Label-free criteria against closed forms and plain second implementations; what a corruption may touch."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.conftest import refuses
from trainer.scoring.made_anomalies import CORRUPTIONS, corrupted, separation
from tuning.label_free import chosen_lambda, excess_mass, mass_volume, rank_agreement, uniform_images

shapes = st.tuples(st.integers(8, 33), st.sampled_from([1, 3]))
seeds = st.one_of(st.integers(0, 99), st.integers(0, 2**63 - 1))
kinds = st.sampled_from(CORRUPTIONS)
quick = settings(max_examples=60, deadline=None)


def noise(count: int, side: int, channels: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def extent(image: np.ndarray, other: np.ndarray) -> tuple[slice, slice]:
    """The smallest rectangle that holds every changed pixel."""
    rows, columns = np.nonzero((image != other).any(axis=2))
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def size(part: tuple[slice, slice]) -> tuple[int, int]:
    return part[0].stop - part[0].start, part[1].stop - part[1].start


@quick
@given(shapes, kinds, seeds, st.integers(0, 6))
def test_an_images_corruption_does_not_depend_on_those_that_follow(
    shape: tuple[int, int], kind: str, seed: int, count: int
) -> None:
    images = noise(7, *shape)
    before = images.tobytes()
    whole = corrupted(images, kind, seed)
    assert whole.dtype == np.uint8 and whole.shape == images.shape
    assert images.tobytes() == before
    np.testing.assert_array_equal(corrupted(images[:count], kind, seed), whole[:count])
    others = np.concatenate([np.full_like(images[:3], 9), images[3:]])
    np.testing.assert_array_equal(corrupted(others, kind, seed)[3:], whole[3:])  # nor on what the others show


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruptions_differ_by_image_and_seed(kind: str) -> None:
    images = np.repeat(noise(1, 16, 3), 8, axis=0)
    results = np.concatenate([corrupted(images, kind, seed) for seed in (0, 1, 2**62)])
    assert len({image.tobytes() for image in results}) == 24
    assert all((image != images[0]).any() for image in results)


@quick
@given(shapes, seeds)
def test_cut_paste_copies_one_rectangle_from_another_place_of_the_same_image(shape: tuple[int, int], seed: int) -> None:
    side = shape[0]
    images = noise(5, *shape, seed=seed % 1000)
    for image, result in zip(images, corrupted(images, "cut-paste", seed), strict=True):
        if (image == result).all():
            continue  # a single pixel may come by its own value
        changed = extent(image, result)
        height, width = size(changed)
        sources = np.lib.stride_tricks.sliding_window_view(image, (height, width), axis=(0, 1))
        pasted = np.moveaxis(result[changed], 2, 0)
        assert (sources == pasted).all(axis=(2, 3, 4)).any()
        # neighbouring pixels that happen to be equal may hide a row or column; rounding moves each side by a half
        assert height * width <= (side / 3 + 1) ** 2 + side / 3
        assert max(height, width) <= side / 3 * math.sqrt(3) + 0.5


def test_rectangles_have_all_sizes_and_aspects_and_lie_anywhere() -> None:
    """Pixel values that are all different, so that the whole rectangle is seen to change."""
    side = 48
    image = np.arange(side * side).reshape(1, side, side, 1)
    images = np.repeat(np.concatenate([image % 256, image // 256, image % 7], axis=3).astype(np.uint8), 1500, axis=0)
    parts = [extent(a, b) for a, b in zip(images, corrupted(images, "cut-paste", 5), strict=True)]
    height, width = np.array([size(part) for part in parts]).T
    mean_size, aspect = np.sqrt(height * width) / side, height / width
    assert 1 / 8 - 0.01 < mean_size.min() < 0.14 and 0.32 < mean_size.max() < 1 / 3 + 0.01
    assert abs(mean_size.mean() - (1 / 8 + 1 / 3) / 2) < 0.01
    assert 0.28 < aspect.min() < 0.4 and 2.5 < aspect.max() < 3.6
    assert abs((aspect > 1).mean() - (aspect < 1).mean()) < 0.1
    assert all(min(part[axis].start for part in parts) == 0 for axis in (0, 1))
    assert all(max(part[axis].stop for part in parts) == side for axis in (0, 1))


@quick
@given(shapes, seeds)
def test_noise_stays_in_a_square_of_half_the_side(shape: tuple[int, int], seed: int) -> None:
    images = noise(5, *shape)
    for image, result in zip(images, corrupted(images, "noise", seed), strict=True):
        assert max(size(extent(image, result))) <= shape[0] // 2


def test_noise_has_its_sigma_and_lies_anywhere() -> None:
    images = np.full((400, 32, 32, 3), 128, np.uint8)
    change = corrupted(images, "noise", 3).astype(float) - 128
    parts = [extent(*pair) for pair in zip(images, corrupted(images, "noise", 3), strict=True)]
    assert {size(part) for part in parts} == {(16, 16)}
    assert all({part[axis].start for part in parts} == set(range(17)) for axis in (0, 1))
    values = np.concatenate([c[part].ravel() for c, part in zip(change, parts, strict=True)])
    assert abs(values.mean()) < 0.3
    assert abs(values.std() - 0.15 * 255) < 0.5


@quick
@given(shapes, seeds)
def test_a_blot_is_one_spot_of_one_value_from_the_images_own_range(shape: tuple[int, int], seed: int) -> None:
    side = shape[0]
    images = 60 + noise(5, *shape) // 2
    for image, result in zip(images, corrupted(images, "blot", seed), strict=True):
        if (image == result).all():
            continue
        changed = (image != result).any(axis=2)
        values = np.unique(result[changed])
        assert len(values) == 1 and image.min() <= values[0] <= image.max()
        height, width = size(extent(image, result))
        assert max(height, width) <= side / 2 + 1
        assert changed.sum() <= math.pi * (side / 4 + 1) ** 2


def test_blots_are_ellipses_of_the_stated_radii() -> None:
    images = np.zeros((600, 64, 64, 1), np.uint8)
    images[:, 0, 0] = 255
    results = corrupted(images, "blot", 1)
    whole = []  # those that the border does not cut; height and width of the spot, its area
    for image, result in zip(images, results, strict=True):
        if not (image != result).any():
            continue  # the value drawn is the background's
        rows, columns = extent(image, result)
        if rows.start > 0 and columns.start > 0 and rows.stop < 64 and columns.stop < 64:
            whole.append((*size((rows, columns)), (image != result).sum()))
    height, width, area = np.array(whole).T
    assert len(whole) > 100
    assert 15 <= height.min() < 19 and 29 < height.max() <= 33
    assert 15 <= width.min() < 19 and 29 < width.max() <= 33
    np.testing.assert_allclose(area, np.pi / 4 * height * width, rtol=0.12)
    values = results.max(axis=(1, 2, 3), initial=0, where=results < 255)
    assert values.max() > 240 and 110 < values.mean() < 145


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_constant_images_are_corrupted_without_harm(kind: str) -> None:
    images = np.full((4, 8, 8, 1), 255, np.uint8)
    assert corrupted(images, kind, 0).shape == images.shape
    assert (corrupted(images, kind, 0) == images).all() or kind == "noise"


def test_an_unknown_corruption_is_refused() -> None:
    refuses(lambda: corrupted(noise(1, 8, 1), "scratch", 0), "scratch", "cut-paste, noise, blot")


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
    reference = np.repeat(noise(1, 8, 3), 6, axis=0)
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
@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_separation_is_the_share_of_pairs_in_order(originals: list[int], changed: list[int]) -> None:
    pairs = np.subtract.outer(np.array(changed), np.array(originals))
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert separation(np.array(originals), np.array(changed)) == pytest.approx(expected)


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
