"""What a simulated object is: the state that changes from frame to frame, and the look that stays its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

DEBRIS_KINDS = ("shard", "clump", "speck", "fibre")
MODES = np.arange(2, 7)
"""Fourier modes of a cell's outline; mode 1 would only shift it."""
TILE = 32
"""Side of the repeating texture tiles, in texels."""


@dataclass(frozen=True)
class Look:
    """What makes one object recognisable through its life. Gray values are in levels of an 8-bit image."""

    polarity: float  # -1 darker than the background inside, +1 brighter; values between are fainter
    halo: float  # gray levels of the bright rim
    depth: float  # gray levels between the inside and the background
    grain: float  # gray levels (standard deviation) of the texture inside
    focus: float  # blur in pixels
    texture: np.ndarray  # 2 x TILE x TILE, zero mean and unit variance; mixed slowly so that granules stir
    nucleus: tuple[float, float, float, float]  # centre u, v and radius in units of the body's radius; gray levels
    spots: np.ndarray  # n x 4: u, v, radius (units of the body's radius), shade in -1..1; blebs, granules, nucleoli
    facets: np.ndarray  # n x 2: direction (radians) and distance (units of the radius) of a shard's edges
    bend: float  # curvature of a fibre, units of its length


@dataclass
class Body:
    """One object now. Lengths in pixels, angles in radians, times in frames.

    kind: "cell" or one of `DEBRIS_KINDS`; parent: label of the mother cell, 0 for none.
    roundness: 0 spread out .. 1 a ball about to divide; decay: 0 alive .. 1 dead.
    """

    label: int
    kind: str
    look: Look
    x: float
    y: float
    radius: float
    goal: float  # radius that growth leads to
    angle: float  # of the long axis
    heading: float  # of the motion
    speed: float
    elongation: float
    ripple: float  # strength of the outline's modes
    modes: np.ndarray  # complex, one for each of MODES
    parent: int = 0
    first: int = 0
    age: int = 0
    phase: float = 0.0  # of the texture's stirring
    mitosis: int = 0  # frames since rounding began, 0 when not dividing
    roundness: float = 0.0
    pinch: float = 0.0  # 0 no furrow .. 1 about to part
    decay: float = 0.0


def _texture(rng: np.random.Generator, scale: float) -> np.ndarray:
    """2 x TILE x TILE band-passed noise that repeats at its borders."""
    noise = rng.standard_normal((2, TILE, TILE))
    sigma = (0, scale, scale)
    band = gaussian_filter(noise, sigma, mode="wrap") - gaussian_filter(noise, (0, 3 * scale, 3 * scale), mode="wrap")
    return band / band.std()


def _spots(rng: np.random.Generator, count: int, spread: float, low: float, high: float) -> np.ndarray:
    """Discs around the centre, the first one on it; n x 4 as `Look.spots`."""
    angle = rng.uniform(0, 2 * np.pi, count)
    away = spread * np.sqrt(rng.uniform(0, 1, count))
    away[0] = 0.0
    radius = rng.uniform(low, high, count)
    return np.stack([away * np.cos(angle), away * np.sin(angle), radius, rng.uniform(-1, 1, count)], axis=1)


def _facets(rng: np.random.Generator) -> np.ndarray:
    """Edges of a convex polygon around the centre; n x 2 as `Look.facets`. Gaps stay below pi, so it is closed."""
    count = int(rng.integers(4, 7))
    direction = (np.arange(count) + rng.uniform(-0.32, 0.32, count)) * 2 * np.pi / count
    return np.stack([direction, rng.uniform(0.5, 1.0, count)], axis=1)


def _look(rng: np.random.Generator, kind: str) -> Look:
    """Draw the look of an object. Brightness ranges of cells and debris overlap on purpose."""
    cell = kind == "cell"
    strength = rng.lognormal(
        0.0 if cell else 0.35, 0.3
    )  # contrast differs from object to object more than anything else does
    nucleus = (*rng.uniform(-0.2, 0.2, 2), rng.uniform(0.36, 0.5), rng.uniform(8, 18) * strength)
    if cell:
        spots = _spots(rng, int(rng.integers(7, 12)), 0.75, 0.22, 0.42)
    else:
        spots = _spots(rng, int(rng.integers(6, 13)), 0.85, 0.16, 0.38)
    return Look(
        polarity=-1.0 if cell else float(rng.choice([-1.0, 1.0], p=[0.6, 0.4])),
        halo=rng.uniform(18, 42) * strength,
        depth=rng.uniform(10, 28) * strength,
        grain=rng.uniform(5, 12) * strength,
        focus=rng.uniform(0.4, 1.0),
        texture=_texture(rng, 0.8 if cell else 1.1),
        nucleus=nucleus,
        spots=spots,
        facets=_facets(rng),
        bend=rng.uniform(-0.5, 0.5),
    )


def new_cell(rng: np.random.Generator, label: int, x: float, y: float) -> Body:
    """A living cell, 18 to 30 pixels across."""
    goal = rng.uniform(9.5, 14.0)
    heading = rng.uniform(0, 2 * np.pi)
    ripple = rng.uniform(0.6, 1.4)
    return Body(
        label=label,
        kind="cell",
        look=_look(rng, "cell"),
        x=x,
        y=y,
        radius=goal * rng.uniform(0.9, 1.0),
        goal=goal,
        angle=heading,
        heading=heading,
        speed=rng.lognormal(0.2, 0.5),
        elongation=1.0 + rng.gamma(2.0, 0.18),
        ripple=ripple,
        modes=ripple * mode_noise(rng),
        age=int(rng.integers(0, 24)),
        phase=rng.uniform(0, 2 * np.pi),
    )


def new_debris(rng: np.random.Generator, label: int, x: float, y: float) -> Body:
    """A piece of debris of a random kind, 12 to 34 pixels across."""
    kind = str(rng.choice(DEBRIS_KINDS, p=[0.3, 0.32, 0.18, 0.2]))
    low, high = {"shard": (9, 15), "clump": (10, 16), "speck": (8, 13), "fibre": (13, 20)}[kind]
    radius = rng.uniform(low, high)
    angle = rng.uniform(0, 2 * np.pi)
    return Body(
        label=label,
        kind=kind,
        look=_look(rng, kind),
        x=x,
        y=y,
        radius=radius,
        goal=radius,
        angle=angle,
        heading=angle,
        speed=rng.uniform(0.1, 0.6),
        elongation=1.0 + rng.gamma(2.0, 0.15),
        ripple=0.0,
        modes=np.zeros(len(MODES), complex),
    )


def mode_noise(rng: np.random.Generator) -> np.ndarray:
    """A fresh draw of the outline's modes (complex, relative to the radius); higher modes are weaker."""
    return (rng.standard_normal(len(MODES)) + 1j * rng.standard_normal(len(MODES))) * 0.3 / MODES**1.5
