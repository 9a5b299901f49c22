"""Experiments of the Baxter Algorithms: cells are normal, their false positives are the anomalies.

Read from the exported results, <experiment>/Analysis/CellData<version>/RES/<sequence>_RES:
  mask000.tif ...        the pixel's value is a label, the number counts frames in alphabetical order from 0
  res_track.txt          label, first frame, last frame, parent or 0
  deaths.txt             label, 1 if that cell died; may be absent
  dummy_tracks.txt       labels to ignore; may be absent
  false_positives/       the same files for what looked like cells and is none; may be absent
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from data_tools.dataset.intensity import asked
from data_tools.dataset.patch import Plan
from data_tools.errors import UserError
from data_tools.headings import UNSET
from data_tools.sources.common import IntensityOption, check_at_least, check_resolution
from data_tools.sources.frames import FRAME_ENDINGS, find_frames
from data_tools.sources.objects import (
    Object,
    Split,
    Tracks,
    Video,
    index_masks,
    numbered_files,
    plan_patches,
    split_objects,
)
from data_tools.walk import folders_in

MASK = r"mask(\d{3,})\.tiff?"


@dataclass(frozen=True)
class Baxter:
    """A Baxter Algorithms experiment: cells are normal, false positives the anomalies."""

    experiment: tyro.conf.Positional[Path]
    """The experiment's folder: one subfolder of frames for each sequence, and Analysis with exported results (RES)."""
    resolution: int = 64
    """Side of the square patches in pixels, a power of two; patches are cut out, not scaled."""
    rotations: int = 3
    """Random angles at which each object to train on is cut out again, besides upright."""
    split: Split = "track"
    """What stays whole on one side of the split into training and test."""
    test_size: int = 256
    """Test patches of each kind: so many cells and as many false positives."""
    version: Annotated[str, UNSET] = ""
    """Which Analysis/CellData<version> to read; needed only when several hold exported results."""
    intensity: IntensityOption = "auto"
    seed: int = 0
    """Decides which objects are for testing, and their angles."""

    @property
    def channels(self) -> int:
        return 1

    def plan(self) -> Plan:
        """Check options, layout, tracks and every mask; patches are cut from one frame at a time.

        Within a pool they come sequence by sequence and frame by frame.
        Raises UserError, for pixels of a frame that cannot be read only when the plan's `cut` reaches it.
        """
        check_resolution(self.resolution)
        check_at_least(self.rotations, 0, "--rotations")
        check_at_least(self.test_size, 1, "--test-size")
        check_at_least(self.seed, 0, "--seed")
        asked(self.intensity)
        if not self.experiment.is_dir():
            raise UserError(f"{self.experiment}: no such folder - give the folder of a Baxter experiment")
        results = self._find_results()
        videos = self._find_videos(results)
        objects: list[Object] = []
        for video in videos:
            folder = results / f"{video.name}_RES"
            masks = numbered_files(folder, MASK)
            # Fewer masks than frames means that frames were added or the export broke off: numbers may not fit.
            missing = [number for number in video.frames if number not in masks]
            if missing:
                raise UserError(
                    f"{folder}: has no mask{missing[0]:03d}.tif, but {video.name} has {len(video.frames)} frames"
                    " - export the results again"
                )
            objects += index_masks(video, masks, "normal", read_tracks(folder))
            debris = folder / "false_positives"
            masks = numbered_files(debris, MASK)
            if masks:
                objects += index_masks(video, masks, "anomaly", read_tracks(debris))
        if not any(thing.kind == "normal" for thing in objects):
            raise UserError(f"{results}: no mask holds a cell - export results with cells")
        sided = split_objects(objects, self.split, self.test_size, self.seed, self.experiment)
        return plan_patches(
            "baxter", self.experiment, videos, sided, self.resolution, self.rotations, self.seed, self.intensity
        )

    def _find_results(self) -> Path:
        """Return the RES folder of the version asked for, or of the only one there is."""
        analysis = self.experiment / "Analysis"
        versions = sorted(path for path in analysis.glob("CellData*") if path.is_dir())
        if not versions:
            raise UserError(
                f"{analysis}: holds no CellData folder - give the folder of a Baxter experiment with exported results"
            )
        names = [path.name for path in versions]
        if self.version:
            asked = {f"CellData{self.version}", f"CellData_{self.version}", self.version}
            versions = [path for path in versions if path.name in asked]
            if not versions:
                raise UserError(
                    f"--version is {self.version!r}, but {analysis} holds {', '.join(names)} - give one of these"
                )
        exported = [path for path in versions if any((path / "RES").glob("*_RES"))]
        if not exported:
            saved = "only .mat files" if any(versions[0].glob("*.mat")) else "no results"
            raise UserError(
                f"{versions[0]}: holds {saved} - export the results from the Baxter Algorithms"
                f" to {versions[0].name}/RES/<sequence>_RES"
            )
        if len(exported) > 1:
            names = [path.name for path in exported]
            raise UserError(f"{analysis}: {', '.join(names)} all hold RES - give one of these names as --version")
        return exported[0] / "RES"

    def _find_videos(self, results: Path) -> list[Video]:
        videos = []
        for folder in folders_in(self.experiment):
            if folder.name == "Analysis":
                continue
            if not (results / f"{folder.name}_RES").is_dir():
                raise UserError(
                    f"{results / folder.name}_RES: missing, so sequence {folder.name} has no labels"
                    " - export its results or move its folder away"
                )
            frames = find_frames(folder)
            if not frames:
                raise UserError(f"{folder}: holds no frames ({' '.join(sorted(FRAME_ENDINGS))}) - add or remove it")
            videos.append(Video(folder.name, dict(enumerate(frames))))
        if not videos:
            raise UserError(f"{self.experiment}: holds no folder of frames beside Analysis - add the sequences")
        return videos


def read_tracks(folder: Path) -> Tracks:
    """Read res_track.txt, deaths.txt and dummy_tracks.txt of a folder; raises UserError.

    A track with a single child goes on as that child after a gap, so both are one object. One with more divided.
    A death counts for a track without children, as the Baxter Algorithms have it.
    """
    path = folder / "res_track.txt"
    if not path.is_file():
        raise UserError(f"{path}: missing - export the results again")
    parents: dict[int, int] = {}
    for number, (label, begin, end, parent) in _read_rows(path, 4):
        if label < 1 or parent < 0 or not 0 <= begin <= end:
            raise UserError(f"{path}: line {number} is not a track (label, first frame, last frame, parent) - fix it")
        if label in parents:
            raise UserError(f"{path}: line {number} has label {label} again - fix it")
        parents[label] = parent
    ignored = frozenset(label for _, (label,) in _read_rows(folder / "dummy_tracks.txt", 1))
    deaths = {label for _, (label, died) in _read_rows(folder / "deaths.txt", 2) if died}
    for label, parent in parents.items():
        if parent and parent not in parents and parent not in ignored:
            raise UserError(f"{path}: track {label} has parent {parent}, which is not listed - fix it")
    children = Counter(parent for label, parent in parents.items() if parent and label not in ignored)
    first: dict[int, int] = {}
    for label in parents:
        start, passed = label, dict[int, None]()
        while start not in first and children[parents.get(start, 0)] == 1:
            if start in passed:
                raise UserError(f"{path}: track {label} is its own ancestor - fix it")
            passed[start] = None
            start = parents[start]
        first |= dict.fromkeys([*passed, label], first.get(start, start))
    endings = {label: "apoptosis" for label in deaths if not children[label]}
    endings |= {label: "mitosis" for label, count in children.items() if count > 1}
    return Tracks(path, first, endings, ignored)


def _read_rows(path: Path, least: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the line number and the first `least` numbers of each row that is not empty; nothing without a file."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        try:
            values = [int(word) for word in words[:least]]
        except ValueError:
            values = []
        if len(values) < least:
            expected = "a number" if least == 1 else f"{least} numbers"
            raise UserError(f"{path}: line {number} is not {expected} ({line.strip()[:40]!r}) - export it again")
        yield number, values
