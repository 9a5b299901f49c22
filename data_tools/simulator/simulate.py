"""Simulated cell videos in the Baxter layout: cells that live, divide and die among debris."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile

from data_tools.processes import cores, in_processes
from data_tools.simulator.life import Life, Track
from data_tools.simulator.render import Camera
from data_tools.simulator.videos import Videos


def write_videos(videos: Videos, experiment: Path, processes: int = 0) -> Iterator[str]:
    """Write every video, several at a time; yield a line about each, in order. processes: 0 takes one per core."""
    processes = min(processes or cores(), videos.sequences)
    lines, following = dict[int, str](), 0
    for number, line in in_processes(_sequence, (videos, experiment), range(videos.sequences), processes):
        lines[number] = line
        while following in lines:
            yield lines.pop(following)
            following += 1


def _sequence(shared: tuple[Videos, Path], number: int) -> tuple[int, str]:
    """In a process of its own: write one video; return its number and line."""
    videos, experiment = shared
    return number, write_video(videos, experiment, number)


def write_video(videos: Videos, experiment: Path, number: int) -> str:
    """Write one video with its results; return a line that sums it up."""
    name = f"seq_{number:02d}"
    frames = experiment / name
    results = experiment / "Analysis" / "CellData_simulated" / "RES" / f"{name}_RES"
    false_positives = results / "false_positives"
    for folder in (frames, false_positives):
        folder.mkdir(parents=True)
    life_seed, camera_seed = np.random.SeedSequence([videos.seed, number]).spawn(2)
    life = Life(np.random.default_rng(life_seed), videos.size, videos.cells, videos.debris)
    camera = Camera(np.random.default_rng(camera_seed), videos.size)
    digits = max(3, len(str(videos.frames - 1)))  # names sort in order of time
    for time in range(videos.frames):
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
        f"{name} ({number + 1}/{videos.sequences}): {videos.frames} frames, {len(tracks)} cell tracks,"
        f" {divisions} divisions, {deaths} deaths, {len(life.debris)} debris"
    )


def _write_tif(path: Path, image: np.ndarray) -> None:
    """LZW, and no metadata that could differ from one run to the next."""
    tifffile.imwrite(path, image, compression="lzw", photometric="minisblack", metadata=None, software=False)


def _write_tracks(folder: Path, tracks: Sequence[Track]) -> None:
    """`res_track.txt` and `deaths.txt` as the Baxter Algorithms write them, with CRLF."""
    rows = [f"{track.label} {track.first} {track.last} {track.parent}\r\n" for track in tracks]
    deaths = [f"{track.label} {int(track.died)}\r\n" for track in tracks]
    (folder / "res_track.txt").write_text("".join(rows), newline="", encoding="utf-8")
    (folder / "deaths.txt").write_text("".join(deaths), newline="", encoding="utf-8")
