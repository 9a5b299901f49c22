"""How simulated cells and debris live: crawl, push one another, divide, die, drift."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data_tools.simulator.body import Body, mode_noise, new_cell, new_debris

DIVIDE = 0.012
"""Chance in a frame that a grown cell begins to divide."""
DIE = 0.006
"""Chance in a frame that a cell begins to die."""
GROWN = 8
"""Age in frames before which a cell neither divides nor dies."""
MITOSIS = 5
"""Frames from the first rounding to the last frame before two daughters."""
ROOM = 600
"""Pixels of the frame that every object needs; divisions stop when there is no room left."""
MARGIN = 3.0
"""Pixels from the border that every centre keeps, so that no object leaves the frame."""
LAST_LABEL = 65535
"""Masks are uint16."""


@dataclass(frozen=True)
class Track:
    """One row of `res_track.txt` with its row of `deaths.txt`; frames count from 0, both ends included."""

    label: int
    first: int
    last: int
    parent: int
    died: bool


class Life:
    """One sequence: `cells` and `debris` are the objects now; `step` moves on by one frame.

    Finished and running tracks come from `cell_tracks` and `debris_tracks`, in order of their labels.
    """

    def __init__(self, rng: np.random.Generator, size: int, cells: int, debris: int) -> None:
        self.rng = rng
        self.size = size
        self.frame = 0
        places = _places(rng, size, cells + debris)
        self.cells = [new_cell(rng, k + 1, *places[k]) for k in range(cells)]
        self.debris = [new_debris(rng, k + 1, *places[cells + k]) for k in range(debris)]
        self._labels = cells
        self._debris_labels = debris
        self._ended: list[Track] = []
        self._flow = rng.normal(0, 0.25, 2)  # a slow current takes the debris along
        for body in self.cells:  # some are caught in the act
            if body.age > GROWN and rng.random() < DIVIDE * MITOSIS:
                body.mitosis = int(rng.integers(1, MITOSIS))
        self._settle()

    def cell_tracks(self) -> list[Track]:
        """Every track of a cell so far."""
        running = [self._track(cell, self.frame, cell.decay >= 1) for cell in self.cells]
        return sorted(self._ended + running, key=lambda track: track.label)

    def debris_tracks(self) -> list[Track]:
        """Every track of debris so far; debris never ends."""
        return [self._track(body, self.frame, False) for body in self.debris]

    def step(self) -> None:
        """Go to the next frame."""
        self.frame += 1
        after: list[Body] = []
        for cell in self.cells:
            if cell.mitosis >= MITOSIS:
                self._ended.append(self._track(cell, self.frame - 1, False))
                after += self._daughters(cell)
            elif cell.decay >= 1:
                self._ended.append(self._track(cell, self.frame - 1, True))
                if self.rng.random() < 0.75 and self._debris_labels < LAST_LABEL:
                    self.debris.append(self._remains(cell))
            else:
                after.append(cell)
        self.cells = after
        for cell in self.cells:
            if cell.first < self.frame:
                self._choose(cell)
            self._change(cell)
            self._crawl(cell)
        for body in self.debris:
            self._drift(body)
        self._settle()

    def _track(self, body: Body, last: int, died: bool) -> Track:
        return Track(body.label, body.first, last, body.parent, died)

    def _choose(self, cell: Body) -> None:
        """Begin to divide or to die, by chance."""
        cell.age += 1
        chance = self.rng.random()
        if cell.age < GROWN or cell.mitosis or cell.decay:
            return
        crowd = len(self.cells) + len(self.debris)
        if chance < DIE:
            cell.decay = 0.1
        elif chance < DIE + DIVIDE and crowd < self.size**2 / ROOM and self._labels + 2 * crowd < LAST_LABEL:
            cell.mitosis = 1

    def _change(self, cell: Body) -> None:
        """Grow, ripple, round up, or fall apart."""
        keep = 0.9  # of the outline from one frame to the next; the spread stays that of `mode_noise`
        cell.modes = keep * cell.modes + np.sqrt(1 - keep**2) * cell.ripple * mode_noise(self.rng)
        cell.phase += self.rng.uniform(0.03, 0.12)
        if cell.mitosis:
            cell.mitosis += 1
            cell.roundness = min(1.0, cell.roundness + 0.35)
            cell.pinch = {MITOSIS - 1: 0.25, MITOSIS: 0.8}.get(cell.mitosis, 0.0)
            cell.radius += 0.25 * (0.92 * cell.goal - cell.radius)
            return
        if cell.decay:
            cell.decay = min(1.0, cell.decay + self.rng.uniform(0.14, 0.24))
            cell.radius += 0.25 * (0.68 * cell.goal - cell.radius)
            return
        cell.roundness = max(0.0, cell.roundness - 0.2)
        cell.radius += 0.06 * (cell.goal - cell.radius)

    def _crawl(self, cell: Body) -> None:
        """A persistent random walk; balls and the dying stay where they are, but for a tremble."""
        rng = self.rng
        stride = cell.speed * (1 - cell.roundness) * (1 - cell.decay) * rng.uniform(0.6, 1.4)
        cell.heading += rng.normal(0, 0.35)
        cell.x += stride * np.cos(cell.heading) + rng.normal(0, 0.25)
        cell.y += stride * np.sin(cell.heading) + rng.normal(0, 0.25)
        lag = (cell.heading - cell.angle + np.pi / 2) % np.pi - np.pi / 2  # an axis has no front
        if not cell.mitosis:
            cell.angle += 0.15 * lag + rng.normal(0, 0.03)
        if not MARGIN < cell.x < self.size - 1 - MARGIN or not MARGIN < cell.y < self.size - 1 - MARGIN:
            cell.heading += np.pi * rng.uniform(0.6, 1.4)

    def _drift(self, body: Body) -> None:
        """Brownian motion in the current."""
        body.x += self._flow[0] + self.rng.normal(0, body.speed)
        body.y += self._flow[1] + self.rng.normal(0, body.speed)
        body.angle += self.rng.normal(0, 0.05)

    def _daughters(self, mother: Body) -> list[Body]:
        """Two small round cells either side of the furrow; each inherits something and draws the rest."""
        pair = []
        away = 0.75 * mother.radius
        for side in (1, -1):
            self._labels += 1
            x = mother.x + side * away * np.cos(mother.angle)
            y = mother.y + side * away * np.sin(mother.angle)
            fresh = new_cell(self.rng, self._labels, x, y)
            look = replace(fresh.look, halo=mother.look.halo, depth=mother.look.depth, grain=mother.look.grain)
            fresh = replace(
                fresh,
                look=look,
                parent=mother.label,
                first=self.frame,
                age=0,
                radius=0.76 * mother.radius,
                angle=mother.angle,
                heading=mother.angle + (0 if side > 0 else np.pi),
                roundness=0.9,
            )
            pair.append(fresh)
        return pair

    def _remains(self, cell: Body) -> Body:
        """What a dead cell leaves: a clump with the same blebs in the same places."""
        self._debris_labels += 1
        return replace(
            cell,
            label=self._debris_labels,
            kind="clump",
            parent=0,
            first=self.frame,
            speed=self.rng.uniform(0.1, 0.5),
            mitosis=0,
            roundness=0.0,
        )

    def _settle(self) -> None:
        """Push overlapping bodies apart (debris gives way before cells do) and keep all centres in the frame."""
        bodies = self.cells + self.debris
        if not bodies:
            return
        place = np.array([[body.x, body.y] for body in bodies])
        radius = np.array([body.radius for body in bodies])
        weight = np.array([1.0 if body.kind == "cell" else 0.2 for body in bodies])
        share = weight[None, :] / (weight[:, None] + weight[None, :])
        reach = 0.92 * (radius[:, None] + radius[None, :])
        for _ in range(4):
            apart = place[:, None] - place[None, :]
            distance = np.maximum(np.hypot(apart[..., 0], apart[..., 1]), 1e-6)
            push = np.clip(reach - distance, 0, None) * share
            np.fill_diagonal(push, 0)
            place += 0.5 * (apart / distance[..., None] * push[..., None]).sum(axis=1)
            place = np.clip(place, MARGIN, self.size - 1 - MARGIN)
        for body, (x, y) in zip(bodies, place, strict=True):
            body.x, body.y = float(x), float(y)


def _places(rng: np.random.Generator, size: int, count: int) -> list[tuple[float, float]]:
    """Random centres (x, y) that keep some 20 pixels apart where there is room."""
    places = np.empty((count, 2))
    for k in range(count):
        tries = rng.uniform(6, size - 7, (16, 2))
        gap = np.linalg.norm(tries[:, None] - places[None, :k], axis=2).min(axis=1, initial=np.inf)
        places[k] = tries[np.argmax(gap > 20)] if (gap > 20).any() else tries[np.argmax(gap)]
    return [(float(x), float(y)) for x, y in places]
