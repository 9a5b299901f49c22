"""Anomalies made of normal images: where they lie, how large they are, and how scores are told apart by them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.checks import refuses
from trainer.scoring.synthetic import CORRUPTIONS, corrupted, separation

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
@given(seeds)
def test_a_faint_image_keeps_its_mean_and_grain_and_loses_its_structure(seed: int) -> None:
    side, draw = 32, np.random.default_rng(seed % 1000)
    y, x = np.mgrid[:side, :side]
    spot = 80 * np.exp(-((x - 15.5) ** 2 + (y - 15.5) ** 2) / 50)
    grain = 4 * draw.normal(size=(side, side))
    images = (90 + spot + grain)[None, :, :, None].round().astype(np.uint8).repeat(4, axis=0)
    for before, after in zip(images.astype(float), corrupted(images, "faint", seed).astype(float), strict=True):
        assert abs(after.mean() - before.mean()) < 1
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.1 and 0.15 < after.std() / before.std() < 0.8
        fine = [np.diff(image[..., 0], axis=1).std() for image in (before, after)]
        assert 0.6 < fine[1] / fine[0] < 1.1


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
    refuses(lambda: corrupted(noise(1, 8, 1), "scratch", 0), "scratch", "cut-paste, noise, blot, faint")


@quick
@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_separation_is_the_share_of_pairs_in_order(originals: list[int], changed: list[int]) -> None:
    pairs = np.subtract.outer(np.array(changed), np.array(originals))
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert separation(np.array(originals), np.array(changed)) == pytest.approx(expected)
