"""Simulated cell videos in the Baxter layout: cells that live, divide and die among debris."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from tyro.conf import Positional

from data_tools.errors import UserError
from data_tools.processes import cores, in_processes
from data_tools.simulator.life import ROOM, Life, Track
from data_tools.simulator.render import Camera
from data_tools.storage import open_storage
from data_tools.storage.transfer import as_url, uploaded


@dataclass(frozen=True)
class Simulate:
    """Write simulated cell videos in the Baxter layout, with debris as false positives."""

    out: Positional[Path]
    """Folder to write: a new one, or one that is empty."""
    sequences: int = 4
    """Videos; each depends on the seed and its own number alone, so more of them keep the first ones."""
    frames: int = 24
    """Frames a video."""
    size: int = 320
    """Side of a frame in pixels; a cell is 18 to 30 pixels across."""
    cells: int = 24
    """Cells at the start of a video."""
    debris: int = 10
    """Pieces of debris at the start of a video; dead cells may add to them."""
    seed: int = 0
    """The same seed gives the same files, byte for byte."""
    processes: int = 0
    """Processes; 0 takes one a core."""

    def run(self) -> None:
        """Write the experiment; it appears complete or not at all.

        UserError: an option out of range, or `out` is a file or holds something.
        """
        self._check()
        with uploaded(self.out) as out:
            self._write(out.resolve())

    def _write(self, out: Path) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            made = Path(scratch) / out.name
            for line in self._write_sequences(made):
                print(line, flush=True)
            if out.exists():
                out.rmdir()  # empty, as checked; fails if somebody has filled it meanwhile
            made.rename(out)

    def _check(self) -> None:
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

    def _write_sequences(self, experiment: Path) -> Iterator[str]:
        """Write every video, several at a time; yield their lines in order."""
        processes = min(self.processes or cores(), self.sequences)
        lines, following = dict[int, str](), 0
        for number, line in in_processes(_sequence, (self, experiment), range(self.sequences), processes):
            lines[number] = line
            while following in lines:
                yield lines.pop(following)
                following += 1

    def _write_sequence(self, experiment: Path, number: int) -> str:
        """Write one video with its results; return a line that sums it up."""
        name = f"seq_{number:02d}"
        frames = experiment / name
        results = experiment / "Analysis" / "CellData_simulated" / "RES" / f"{name}_RES"
        false_positives = results / "false_positives"
        for folder in (frames, false_positives):
            folder.mkdir(parents=True)
        life_seed, camera_seed = np.random.SeedSequence([self.seed, number]).spawn(2)
        life = Life(np.random.default_rng(life_seed), self.size, self.cells, self.debris)
        camera = Camera(np.random.default_rng(camera_seed), self.size)
        digits = max(3, len(str(self.frames - 1)))  # names sort in order of time
        for time in range(self.frames):
            if time:
                life.step()
            frame, cells, debris = camera.picture(life.cells, life.debris)
            _write_tif(frames / f"frame_{time:0{digits}d}.tif", frame)
            _write_tif(results / f"mask{time:0{digits}d}.tif", cells)
            _write_tif(false_positives / f"mask{time:0{digits}d}.tif", debris)
        tracks = life.cell_tracks()
        _write_tracks(results, tracks)
        _write_tracks(false_positives, life.debris_tracks())
        divisions = len({track.parent for track in tracks} - {0})
        deaths = sum(track.died for track in tracks)
        return (
            f"{name} ({number + 1}/{self.sequences}): {self.frames} frames, {len(tracks)} cell tracks,"
            f" {divisions} divisions, {deaths} deaths, {len(life.debris)} debris"
        )


def _sequence(shared: tuple[Simulate, Path], number: int) -> tuple[int, str]:
    """In a process of its own: write one video; return its number and line."""
    simulate, experiment = shared
    return number, simulate._write_sequence(experiment, number)


def _write_tif(path: Path, image: np.ndarray) -> None:
    """LZW, and no metadata that could differ from one run to the next."""
    tifffile.imwrite(path, image, compression="lzw", photometric="minisblack", metadata=None, software=False)


def _write_tracks(folder: Path, tracks: Sequence[Track]) -> None:
    """`res_track.txt` and `deaths.txt` as the Baxter Algorithms write them, with CRLF."""
    rows = [f"{track.label} {track.first} {track.last} {track.parent}\r\n" for track in tracks]
    deaths = [f"{track.label} {int(track.died)}\r\n" for track in tracks]
    (folder / "res_track.txt").write_text("".join(rows), newline="")
    (folder / "deaths.txt").write_text("".join(deaths), newline="")
