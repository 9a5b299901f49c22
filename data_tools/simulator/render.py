"""How simulated cells and debris look through a phase-contrast microscope: frames and label masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from data_tools.simulator.body import TILE, Body

Window = tuple[np.ndarray, np.ndarray]
"""Gray levels to add to the background, and signed distance to the outline in pixels (below 0 inside)."""


class Camera:
    """Background and noise of one sequence; `picture` turns objects into a frame and its two masks."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        self.size = size
        self.noise = rng.uniform(1.6, 2.6)
        self.light = rng.uniform(0, 2 * np.pi)  # slightly oblique: one side of every halo is brighter
        self.background = _background(rng, size)

    def picture(self, cells: Sequence[Body], debris: Sequence[Body]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frame (uint8), mask of cells, mask of debris (both uint16, pixel = label), each size x size.

        Every object keeps at least one pixel of its mask.
        """
        scene = np.zeros((self.size, self.size))
        masks = [self._draw(scene, debris), self._draw(scene, cells)]
        flicker = 1 + self.rng.normal(0, 0.004)
        gray = flicker * (self.background + gaussian_filter(scene, 0.5))
        gray += self.rng.normal(0, self.noise, gray.shape) * np.sqrt(np.maximum(gray, 10) / 110)  # shot noise
        return np.clip(np.rint(gray), 0, 255).astype(np.uint8), masks[1], masks[0]

    def _draw(self, scene: np.ndarray, bodies: Sequence[Body]) -> np.ndarray:
        """Add every body's pixels to the scene; return their label mask. The deeper body owns a shared pixel."""
        mask = np.zeros(scene.shape, np.uint16)
        owner = np.zeros(scene.shape)
        for body in bodies:
            half = int(np.ceil(1.5 * body.radius * np.sqrt(body.elongation))) + 8
            column, row = round(body.x), round(body.y)
            rows = slice(max(row - half, 0), min(row + half + 1, self.size))
            columns = slice(max(column - half, 0), min(column + half + 1, self.size))
            dy = np.arange(rows.start, rows.stop)[:, None] - body.y
            dx = np.arange(columns.start, columns.stop)[None, :] - body.x
            dx, dy = np.broadcast_arrays(dx, dy)
            gray, distance = _PAINT[body.kind](body, dx, dy, self.light)
            scene[rows, columns] += gaussian_filter(gray, body.look.focus, truncate=3)
            rank = distance / body.radius
            wins = (distance < 0) & (rank < owner[rows, columns])
            owner[rows, columns][wins] = rank[wins]
            mask[rows, columns][wins] = body.label
        _keep_all(mask, bodies)
        return mask


def _keep_all(mask: np.ndarray, bodies: Sequence[Body]) -> None:
    """Give an object that others have covered the pixel next to its centre that nobody will miss."""
    present, counts = np.unique(mask, return_counts=True)
    pixels = dict(zip(present.tolist(), counts.tolist(), strict=True))
    for body in bodies:
        if pixels.get(body.label):
            continue
        rows, columns = np.indices(mask.shape)
        for place in np.argsort(((rows - body.y) ** 2 + (columns - body.x) ** 2).ravel(), kind="stable"):
            before = int(mask.flat[place])
            if before == 0 or pixels[before] > 1:
                mask.flat[place] = body.label
                pixels[before] = pixels.get(before, 0) - 1
                pixels[body.label] = 1
                break


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Uneven illumination: a slope, a vignette and slow blotches; size x size gray levels."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    slope = rng.uniform(-9, 9, 2)
    level = rng.uniform(100, 128) + slope[0] * x + slope[1] * y - rng.uniform(3, 10) * (x**2 + y**2)
    for cells_across, strength in ((5, 3.0), (14, 1.6), (40, 0.9)):
        coarse = rng.standard_normal((cells_across, cells_across))
        blotches = zoom(coarse, size / cells_across, order=3, mode="reflect", grid_mode=True)
        level += strength * blotches[:size, :size]
    return level


def _inside(distance: np.ndarray, soft: float = 0.7) -> np.ndarray:
    """1 inside, 0 outside, smooth over `soft` pixels."""
    return 1 / (1 + np.exp(np.clip(distance / soft, -30, 30)))


def _ring(distance: np.ndarray, at: float, width: float) -> np.ndarray:
    """A ridge of height 1 at a distance from the outline."""
    return np.exp(-(((distance - at) / width) ** 2))


def _turn(body: Body, dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image offsets to the body's own axes, in pixels."""
    c, s = np.cos(body.angle), np.sin(body.angle)
    return c * dx + s * dy, c * dy - s * dx


def _grain(body: Body, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Texture fixed to the body, about unit variance; bright granules stick out."""
    tile = np.cos(body.phase) * body.look.texture[0] + np.sin(body.phase) * body.look.texture[1]
    scale = TILE / 3.0 / body.goal  # texels a pixel: as fine in a big cell as in a small one
    noise = map_coordinates(tile, [v * scale, u * scale], order=1, mode="grid-wrap")
    return noise + np.maximum(noise - 1, 0)


def _oblique(dx: np.ndarray, dy: np.ndarray, light: float) -> np.ndarray:
    """1 on average around the body, more on the side of the light."""
    return 1 + 0.35 * (dx * np.cos(light) + dy * np.sin(light)) / np.maximum(np.hypot(dx, dy), 1)


def _cell(body: Body, dx: np.ndarray, dy: np.ndarray, light: float) -> Window:
    look, ball = body.look, body.roundness
    stretch = np.sqrt(1 + (body.elongation - 1) * (1 - ball) * (1 - body.decay) + 0.35 * body.pinch)
    u, v = _turn(body, dx, dy)
    u, v = u / stretch, v * stretch
    r = np.hypot(u, v)
    around = (u + 1j * v) / np.maximum(r, 1e-6)
    edge = np.ones(r.shape)
    power = around
    for mode in body.modes * (1 - ball):
        power = power * around  # MODES begins at 2
        edge += (mode * power).real
    if body.pinch:
        edge += 0.22 * body.pinch * (around**2).real
    rho = r / (body.radius * np.clip(edge, 0.5, 1.6))
    distance = (rho - 1) * body.radius
    inner = _inside(distance)
    halo = look.halo * (0.75 + 0.65 * ball) + 8 * ball
    gray = halo * _oblique(dx, dy, light) * (_ring(distance, 1.6, 1.9) + 0.3 * np.exp(-np.maximum(distance, 0) / 5))
    gray *= 1 - 0.6 * inner
    gray -= 0.8 * look.depth * _ring(distance, -1.2, 1.5)
    flat = 1 - ball
    nucleus, cover = _nucleus(body, u, v)
    hump = np.clip(1 - rho**2, 0, 1)  # thickness: thin at the edge
    gray -= inner * look.depth * (0.4 + flat * (0.2 + 0.7 * hump))
    gray += inner * look.grain * (0.5 + 0.5 * flat) * (1 - 0.8 * flat * cover) * _grain(body, u, v)
    gray += inner * (ball * halo * 0.9 * hump + flat * nucleus)
    if body.mitosis >= 3:  # chromosomes lined up across the axis, then drawn apart
        off = 0.35 * body.pinch * body.radius
        plate = _ring(np.abs(u), off, 1.6) * np.exp(-((v / (0.45 * body.radius)) ** 4))
        gray -= 1.2 * look.depth * plate
    if body.decay:
        blebs, outline = _clump(body, dx, dy, light)
        gray = (1 - body.decay) * gray + body.decay * blebs
        gray += 3 * body.decay * (1 - body.decay) * halo * inner * hump  # it lights up as it shrinks
        distance = distance + body.decay * (outline - distance)
    return gray, distance


def _nucleus(body: Body, u: np.ndarray, v: np.ndarray) -> Window:
    """A paler smooth disc with a dark rim and two dark nucleoli; its gray levels, and its cover from 0 to 1."""
    at_u, at_v, size, shade = body.look.nucleus
    radius = size * body.radius
    away = np.hypot((u - at_u * body.radius) / 1.15, v - at_v * body.radius) - radius
    cover = _inside(away)
    gray = shade * (1.1 * cover - 0.8 * _ring(away, 0.3, 1.2))
    for spot_u, spot_v, _, _ in body.look.spots[:2]:
        middle_u, middle_v = at_u + 0.35 * spot_u * size * 2, at_v + 0.35 * spot_v * size * 2
        gray = gray - 2 * shade * np.exp(-((u - middle_u * body.radius) ** 2 + (v - middle_v * body.radius) ** 2) / 3)
    return gray, cover


def _clump(body: Body, dx: np.ndarray, dy: np.ndarray, light: float) -> Window:
    """Granules stuck together, each a small lens: dark ring, bright or dark heart."""
    look = body.look
    dense = 1 + 0.4 * body.decay  # a dead cell's remains
    u, v = _turn(body, dx, dy)
    gray = np.zeros(u.shape)
    distance = np.full(u.shape, np.inf)
    for spot_u, spot_v, size, shade in look.spots:
        radius = max(size * body.radius, 1.6)
        away = np.hypot(u - spot_u * body.radius, v - spot_v * body.radius) - radius
        gray += look.depth * (0.5 + 1.3 * shade) * _inside(away + 1, 0.8) - 0.9 * look.depth * _ring(away, 0, 1.0)
        distance = np.minimum(distance, away)
    gray += 0.75 * look.halo * _oblique(dx, dy, light) * _ring(distance, 1.8, 1.6)
    return dense * gray, distance - 1.0


def _shard(body: Body, dx: np.ndarray, dy: np.ndarray, light: float) -> Window:
    """A splinter with straight edges and flat faces, each face with a shade of its own."""
    look = body.look
    u, v = _turn(body, dx, dy)
    stretch = np.sqrt(body.elongation)
    u, v = u / stretch, v * stretch
    direction, reach = look.facets[:, 0, None, None], look.facets[:, 1, None, None] * body.radius
    planes = np.cos(direction) * u + np.sin(direction) * v - reach
    grain = _grain(body, u, v)
    distance = planes.max(axis=0) + 0.35 * grain  # broken edges are not straight to the last pixel
    face = (planes / reach).argmax(axis=0)
    inner = _inside(distance, 0.5)
    shades = look.polarity * (0.5 + 0.9 * np.cos(look.facets[:, 0] + body.angle - light))
    gray = look.depth * inner * (shades[face] + 0.25 * look.polarity)
    gray += 0.5 * look.grain * inner * grain
    gray += look.halo * (0.75 * _oblique(dx, dy, light) * _ring(distance, 1.4, 1.4) - 0.25 * _ring(distance, 4.2, 1.5))
    gray -= 0.7 * look.depth * _ring(distance, -0.8, 1.1)
    return gray, distance


def _speck(body: Body, dx: np.ndarray, dy: np.ndarray, light: float) -> Window:
    """Dust out of focus: a bright or dark core with rings around it."""
    look = body.look
    u, v = _turn(body, dx, dy)
    r = np.hypot(u / body.elongation**0.25, v * body.elongation**0.25)
    waves = np.cos(2 * np.pi * r / (0.75 * body.radius)) * np.exp(-((r / (0.95 * body.radius)) ** 2))
    core = np.exp(-((r / (0.42 * body.radius)) ** 2))
    gray = look.polarity * (1.6 * look.depth * waves + 1.3 * look.halo * core)
    return gray * (0.7 + 0.3 * _oblique(dx, dy, light)), r - body.radius


def _fibre(body: Body, dx: np.ndarray, dy: np.ndarray, light: float) -> Window:
    """A bent thread: dark (or bright) along the middle, bright on both sides."""
    look = body.look
    u, v = _turn(body, dx, dy)
    along = np.clip(u, -body.radius, body.radius)
    bow = look.bend / body.radius * along**2
    slope = 2 * look.bend * along / body.radius
    away = np.hypot((v - bow) / np.sqrt(1 + slope**2), u - along)
    thick = 1.3 + 0.35 * np.sin(look.facets[0, 0] + 3 * u / body.radius)
    gray = look.polarity * (1.3 * look.depth + 0.5 * look.halo) * np.exp(-((away / thick) ** 2))
    gray += 0.55 * look.halo * _ring(away, 3.0, 1.4) * _oblique(dx, dy, light)
    return gray, away - thick - 1.0


_PAINT = {"cell": _cell, "clump": _clump, "shard": _shard, "speck": _speck, "fibre": _fibre}
