"""What to simulate, and in which ranges; without numpy, since the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass

from data_tools.errors import UserError

LIMITS: dict[str, tuple[int, int | None]] = {
    "sequences": (1, 10_000),
    "frames": (1, 10_000),
    "size": (128, 4096),
    "debris": (0, None),
    "cells": (1, None),
    "seed": (0, None),
}


@dataclass(frozen=True)
class Videos:
    """Videos of cells that live, divide and die among debris."""

    sequences: int = 4
    """Videos; each depends on the seed and its own number alone, so more of them keep the first ones."""
    frames: int = 24
    """Frames in each video."""
    size: int = 320
    """Side of a frame in pixels; a cell is 18 to 30 pixels across."""
    cells: int = 24
    """Cells at the start of a video."""
    debris: int = 10
    """Pieces of debris at the start of a video; dead cells may add to them."""
    seed: int = 0
    """The same seed gives the same files, byte for byte."""

    def check(self) -> None:
        """UserError for the first option out of range, and where a frame has no room for so many."""
        from data_tools.simulator.life import ROOM

        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                bounds = f"{low} to {high}" if high is not None else f"{low} or more"
                raise UserError(f"--{name} {value} is out of range - choose {bounds}")
        room = self.size**2 // ROOM
        if self.cells + self.debris > room:
            raise UserError(
                f"--cells {self.cells} and --debris {self.debris} do not fit into --size {self.size}"
                f" - choose at most {room} together, or a greater --size"
            )
