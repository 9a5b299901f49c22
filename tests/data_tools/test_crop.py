"""Cutting patches out of frames: exact copies, angles, real pixels in the corners, and what lies beyond the frame."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from data_tools.sources.crop import Frame, cut

NOISE = np.random.default_rng(5).integers(0, 256, (90, 110), dtype=np.uint8)


def positions(x: float, y: float, angle: float, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Where in the frame each pixel of the patch comes from, from first principles: x and y.

    Turning the picture counterclockwise (with y downwards) by t takes the direction (u, v) to
    (u cos t + v sin t, v cos t - u sin t); what lands on a pixel comes from the other way round.
    """
    middle = (side - 1) / 2
    centre_x, centre_y = math.floor(x - side / 2 + 1) + middle, math.floor(y - side / 2 + 1) + middle
    v, u = np.mgrid[:side, :side] - middle
    turn = math.radians(angle)
    return (
        centre_x + u * math.cos(turn) - v * math.sin(turn),
        centre_y + u * math.sin(turn) + v * math.cos(turn),
    )


def within(x: np.ndarray, y: np.ndarray, shape: tuple[int, ...], edge: float = 0.5) -> np.ndarray:
    return (x >= -edge) & (x <= shape[1] - 1 + edge) & (y >= -edge) & (y <= shape[0] - 1 + edge)


def test_a_pattern_at_a_known_centre_is_copied_exactly() -> None:
    frame = np.full((60, 80), 7, np.uint8)
    frame[30:33, 50] = (200, 150, 100)  # an L, so that nothing is flipped or transposed
    frame[32, 51:53] = (90, 80)
    patch, padded = cut(Frame(frame), 50, 30, 0, 16)
    assert patch.shape == (16, 16, 1) and patch.dtype == np.uint8 and padded == 0
    assert np.array_equal(patch[:, :, 0], frame[30 - 7 : 30 + 9, 50 - 7 : 50 + 9])
    assert patch[7:10, 7, 0].tolist() == [200, 150, 100] and patch[9, 7:10, 0].tolist() == [100, 90, 80]


@pytest.mark.parametrize("x, y", [(40, 35), (40.49, 35.01), (39.5, 34.5), (40.99, 35.99)])
def test_the_centre_is_at_most_half_a_pixel_off(x: float, y: float) -> None:
    marked = np.zeros((80, 80), np.uint8)
    rows, columns = np.indices(marked.shape)
    marked[:] = np.where(rows == math.floor(y), 100, 0) + np.where(columns == math.floor(x), 50, 0)
    patch = cut(Frame(marked), x, y, 0, 16)[0][:, :, 0]
    row, column = np.argwhere(patch == 150)[0]
    # Between the object and the middle of the patch, which lies between its pixels 7 and 8.
    assert abs(row + (y - math.floor(y)) - 7.5) <= 0.5 and abs(column + (x - math.floor(x)) - 7.5) <= 0.5


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("side", [8, 32])
def test_quarter_turns_are_those_of_numpy(quarters: int, side: int) -> None:
    upright = cut(Frame(NOISE), 50.3, 44.8, 0, side)[0].astype(int)
    turned = cut(Frame(NOISE), 50.3, 44.8, 90 * quarters, side)[0].astype(int)
    assert np.abs(turned - np.rot90(upright, quarters)).max() <= 1


@pytest.mark.parametrize("x, y", [(3, 4), (105, 4), (3, 86), (105, 86), (50, 0)])
def test_quarter_turns_at_the_border_turn_the_padding_too(x: int, y: int) -> None:
    upright, share = cut(Frame(NOISE), x, y, 0, 32)
    turned, same_share = cut(Frame(NOISE), x, y, 90, 32)
    assert share == same_share > 0
    assert np.abs(turned.astype(int) - np.rot90(upright.astype(int))).max() <= 1


def test_a_full_turn_is_no_turn() -> None:
    assert np.array_equal(cut(Frame(NOISE), 50, 40, 360.0, 16)[0], cut(Frame(NOISE), 50, 40, 0, 16)[0])


@settings(max_examples=60, deadline=None)
@given(
    value=st.integers(0, 255),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    angle=st.one_of(st.just(0.0), st.floats(0, 360)),
    side=st.sampled_from([4, 16, 64]),
)
def test_a_constant_frame_gives_a_constant_patch(
    value: int, height: int, width: int, place: tuple[float, float], angle: float, side: int
) -> None:
    frame = np.full((height, width), value, np.uint8)
    patch, padded = cut(Frame(frame), place[0] * (width - 1), place[1] * (height - 1), angle, side)
    assert (patch == value).all() and 0 <= padded < 1


@settings(max_examples=60, deadline=None)
@given(
    slopes=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    x=st.floats(0, 99),
    y=st.floats(0, 79),
    angle=st.floats(0, 360),
    side=st.sampled_from([8, 32, 64]),
)
def test_a_slope_stays_the_same_slope_wherever_the_frame_has_pixels(
    slopes: tuple[float, float], x: float, y: float, angle: float, side: int
) -> None:
    rows, columns = np.mgrid[:80, :100]

    def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 128 + slopes[0] * (x - 49.5) + slopes[1] * (y - 39.5)

    frame = np.rint(slope(columns, rows)).astype(np.uint8)
    patch, padded = cut(Frame(frame), x, y, angle, side)
    patch = patch[:, :, 0].astype(float)
    from_x, from_y = positions(x, y, angle, side)
    known = within(from_x, from_y, frame.shape, edge=0.5 - 1e-6)
    # The frame is rounded, and so is the patch; a spline through rounded values strays a little more.
    assert np.abs(patch - slope(from_x, from_y))[known].max(initial=0) < 1.7
    beyond = ~within(from_x, from_y, frame.shape, edge=0.5 + 1e-6)
    assert len(np.unique(patch[beyond])) <= 1
    assert beyond.mean() - 1e-9 <= padded <= (~known).mean() + 1e-9


@pytest.mark.parametrize("angle", [10, 45, 200.5])
def test_a_steep_slope_goes_on_to_the_very_border(angle: float) -> None:
    frame = np.broadcast_to(np.arange(0, 240, 3, dtype=np.uint8), (80, 80))
    from_x, from_y = positions(2, 77, angle, 32)
    known = within(from_x, from_y, frame.shape, edge=0)
    patch = cut(Frame(frame), 2, 77, angle, 32)[0][:, :, 0]
    assert np.abs(patch - 3 * from_x)[known].max() < 0.51


@pytest.mark.parametrize("angle", [3, 45, 100, 315])
def test_a_patch_is_what_a_spline_through_the_whole_frame_gives(angle: float) -> None:
    from_x, from_y = positions(50, 45, angle, 32)
    whole = ndimage.map_coordinates(NOISE.astype(float), [from_y, from_x], order=3)
    assert np.abs(cut(Frame(NOISE), 50, 45, angle, 32)[0][:, :, 0] - np.clip(whole, 0, 255)).max() < 0.51


def test_corners_of_a_turned_patch_show_what_is_there() -> None:
    """At 45 degrees a corner reaches far outside the upright patch, to a bright strip there."""
    frame = np.full((128, 128), 50, np.uint8)
    frame[:, 64 + 36 :] = 220
    upright, turned = cut(Frame(frame), 64, 64, 0, 64)[0], cut(Frame(frame), 64, 64, 45, 64)[0]
    assert (upright == 50).all()
    corners = [turned[row, column, 0] for row in (0, -1) for column in (0, -1)]
    assert sorted(corners)[:3] == [50, 50, 50] and max(corners) == 220


@pytest.mark.parametrize("angle", [0, 30, 90, 211.5])
@pytest.mark.parametrize("x, y, side", [(2, 40, 32), (108, 88, 32), (0, 0, 64), (55, 45, 256)])
def test_padding_is_the_median_of_what_the_window_sees(x: int, y: int, side: int, angle: float) -> None:
    patch, padded = cut(Frame(NOISE), x, y, angle, side)
    from_x, from_y = positions(x, y, angle, side)
    outside = ~within(from_x, from_y, NOISE.shape)
    assert padded == pytest.approx(outside.mean()) and padded > 0
    fill = np.unique(patch[:, :, 0][outside])
    assert len(fill) == 1
    reach = math.ceil(side / math.sqrt(2)) + 1
    window = NOISE[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
    assert abs(int(fill[0]) - np.median(window)) <= 3  # a row more or less of noise hardly moves a median


def test_padding_follows_uneven_light_and_ignores_the_cell() -> None:
    """Half of the frame is dark, half bright, with a white cell at each border: the padding has the level around."""
    frame = np.full((200, 400), 40, np.uint8)
    frame[:, 200:] = 160
    for column in (4, 396):
        frame[95:106, column - 4 : column + 4] = 255
        patch = cut(Frame(frame), column, 100, 0, 64)[0][:, :, 0]
        outer = patch[:, 0] if column == 4 else patch[:, -1]
        assert (outer == (40 if column == 4 else 160)).all()


def test_the_padding_does_not_depend_on_the_angle() -> None:
    corners = set()
    for angle in (0, 45, 90, 135, 180, 225, 270, 315):
        patch = cut(Frame(NOISE), 0, 0, angle, 32)[0][:, :, 0]
        from_x, from_y = positions(0, 0, angle, 32)
        corners |= set(patch[~within(from_x, from_y, NOISE.shape, 0.6)].tolist())
    assert len(corners) == 1


def test_turning_keeps_fine_grain() -> None:
    """Linear interpolation would keep 0.43 of the variance of white noise; then every turned patch would look soft."""
    grain = np.random.default_rng(1).normal(128, 20, (150, 150)).round().astype(np.uint8)
    upright = cut(Frame(grain), 75, 75, 0, 64)[0].astype(float).var()
    kept = [cut(Frame(grain), 75, 75, angle, 64)[0].astype(float).var() / upright for angle in range(7, 360, 31)]
    assert 0.65 < np.mean(kept) < 1


def test_an_edge_stays_within_the_range_of_grey() -> None:
    frame = np.zeros((80, 80), np.uint8)
    frame[:, 40:] = 255
    patch = cut(Frame(frame), 40, 40, 33, 32)[0]
    # Overshoot that was not clipped would wrap around: dark specks in the bright half.
    assert patch[:, :, 0].min() == 0 and patch.max() == 255
    from_x, _ = positions(40, 40, 33, 32)
    assert (patch[:, :, 0][from_x > 42] > 240).all() and (patch[:, :, 0][from_x < 37] < 15).all()
