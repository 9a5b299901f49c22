"""python -m data_tools simulate: what may be asked for, and where it goes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from data_tools.errors import UserError


@dataclass(frozen=True)
class Simulate:
    """Write simulated cell videos in the Baxter layout, with debris as false positives."""

    out: Positional[Path]
    """Folder to write: a new one, or one that is empty."""
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
    processes: int = 0
    """Processes; 0 takes one per core."""

    def __call__(self) -> None:
        """Write the experiment; it appears complete or not at all.

        UserError: an option out of range, or `out` is a file or holds something.
        """
        from data_tools.storage.transfer import uploaded

        self._check()
        with uploaded(self.out) as out:
            self._write(out.resolve())

    def _write(self, out: Path) -> None:
        from data_tools.simulator.simulate import Videos, write_videos

        videos = Videos(self.sequences, self.frames, self.size, self.cells, self.debris, self.seed)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            made = Path(scratch) / out.name
            for line in write_videos(videos, made, self.processes):
                print(line, flush=True)
            if out.exists():
                out.rmdir()  # empty, as checked; fails if somebody has filled it meanwhile
            made.rename(out)

    def _check(self) -> None:
        from data_tools.simulator.life import ROOM
        from data_tools.storage import open_storage
        from data_tools.storage.transfer import as_url

        limits = {"sequences": (1, 10_000), "frames": (1, 10_000), "size": (128, 4096), "debris": (0, None)}
        limits |= {"cells": (1, None), "seed": (0, None), "processes": (0, None)}
        for name, (low, high) in limits.items():
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
        if as_url(self.out) and open_storage(as_url(self.out)).names():
            raise UserError(f"{as_url(self.out)}: is there already and is not empty - choose another, or remove it")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UserError(f"{self.out}: is there already and is not an empty folder - choose another, or remove it")
