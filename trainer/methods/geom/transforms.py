"""Transforms of square images as maps of pixels, so that a batch of any of them is one gather (Golan, El-Yaniv 2018).

A map of side R holds for each pixel of the result, row by row, which pixel of the image it is: int64, R * R.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import permutations, product

import numpy as np
import torch
from torch import Tensor

from trainer.private import channels_last


def _shifted(places: np.ndarray, shift: int, axis: int) -> np.ndarray:
    """Pixels move by `shift` along an axis; what comes in mirrors the image, its edge included."""
    side = places.shape[axis]
    source = np.arange(side) - shift
    source = np.where(source < 0, -1 - source, np.where(source >= side, 2 * side - 1 - source, source))
    return places.take(source, axis=axis)


def _maps(side: int, flips: int, shifts: tuple[int, ...], turns: int) -> np.ndarray:
    """flip left to right, shift rows, shift columns, turn by 90 degrees: the last one changes fastest; T x side^2."""
    places = np.arange(side * side).reshape(side, side)
    result = []
    for flip, down, right, turn in product(range(flips), shifts, shifts, range(turns)):
        moved = _shifted(_shifted(places[:, ::-1] if flip else places, down, 0), right, 1)
        result.append(np.rot90(moved, turn).ravel())
    return np.stack(result)


def _all(side: int) -> np.ndarray:
    return _maps(side, 2, (0, -side // 4, side // 4), 4)


def _turns(side: int) -> np.ndarray:
    return _maps(side, 2, (0,), 4)


def _shifts(side: int) -> np.ndarray:
    return _maps(side, 1, (0, -side // 4, side // 4), 1)


def _patches(side: int) -> np.ndarray:
    """The orders of the four quarters of an image, in lexicographic order."""
    half = side // 2
    places = np.arange(side * side).reshape(side, side)
    quarters = [places[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    orders = permutations(range(4))
    return np.stack(
        [np.block([[quarters[a], quarters[b]], [quarters[c], quarters[d]]]).ravel() for a, b, c, d in orders]
    )


KINDS: dict[str, Callable[[int], np.ndarray]] = {
    "all": _all,
    "turns": _turns,
    "shifts": _shifts,
    "patches": _patches,
}
"""By name, the maps of a side: int64, T x side^2; the first is the identity."""


def transformed(images: Tensor, maps: Tensor) -> Tensor:
    """Each image under a map of its own: N x C x R x R and N x R^2 to N x C x R x R."""
    flat = images.flatten(2)
    return channels_last(flat.gather(2, maps[:, None].expand_as(flat)).view_as(images))


def all_views(images: Tensor, maps: Tensor) -> Tensor:
    """Each image under each map: N x C x R x R and T x R^2 to N * T x C x R x R, an image's views side by side."""
    n, channels, side, _ = images.shape
    views = images.flatten(2)[:, :, maps.flatten()].view(n, channels, len(maps), side * side)
    return channels_last(views.transpose(1, 2).reshape(n * len(maps), channels, side, side))


def maps_on(kind: str, side: int, device: torch.device) -> Tensor:
    """The maps of a kind, T x side^2."""
    return torch.from_numpy(_made(kind, side)).to(device)


@cache
def _made(kind: str, side: int) -> np.ndarray:
    return np.ascontiguousarray(KINDS[kind](side))
