"""Data sets of the Cell Tracking Challenge: labelled cells, all of them normal.

<dataset>/01/t000.tif                 frames; 01, 02, ... are the sequences
<dataset>/01_GT/SEG/man_seg000.tif    outlines by hand, often of a few frames alone
<dataset>/01_ST/SEG/man_seg000.tif    outlines by several algorithms together
<dataset>/01_RES/mask000.tif          result of one tracker, with res_track.txt
<dataset>/01_ERR_SEG/mask000.tif      segmentation with errors

The markers in TRA are often smaller than the cells, so they are not used.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from data_tools.dataset.intensity import asked
from data_tools.dataset.patch import Plan
from data_tools.errors import UserError
from data_tools.sources.baxter import read_tracks
from data_tools.sources.common import IntensityOption, check_at_least, check_resolution
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

FRAME = r"t(\d{3,})\.tiff?"
PLACES = {
    "GT": ("_GT/SEG", r"man_seg(\d{3,})\.tiff?"),
    "ST": ("_ST/SEG", r"man_seg(\d{3,})\.tiff?"),
    "RES": ("_RES", r"mask(\d{3,})\.tiff?"),
    "ERR_SEG": ("_ERR_SEG", r"mask(\d{3,})\.tiff?"),
}
"""Kind of masks -> what comes after the sequence's name, and the names of the files."""


@dataclass(frozen=True)
class Ctc:
    """A data set of the Cell Tracking Challenge: labelled cells, all of them normal."""

    dataset: tyro.conf.Positional[Path]
    """The folder that holds the sequences 01, 02 ... and their masks."""
    resolution: int = 64
    """Side of the square patches in pixels, a power of two; patches are cut out, not scaled."""
    rotations: int = 3
    """Random angles at which each object to train on is cut out again, besides upright."""
    split: Split = "frame"
    """What stays whole on one side of the split into training and test; track needs masks of RES."""
    test_size: int = 256
    """Cells to test on."""
    masks: Literal["auto", "GT", "ST", "RES", "ERR_SEG"] = "auto"
    """Which masks to read; auto takes the first of these with a mask for every frame, else those with most masks."""
    intensity: IntensityOption = "auto"
    seed: int = 0
    """Decides which objects are for testing, and their angles."""

    @property
    def channels(self) -> int:
        return 1

    def plan(self) -> Plan:
        """Check options, layout and every mask; patches are cut from one frame at a time.

        Within a pool they come sequence by sequence and frame by frame; frames without a mask give none.
        Raises UserError, for pixels of a frame that cannot be read only when the plan's `cut` reaches it.
        """
        check_resolution(self.resolution)
        check_at_least(self.rotations, 0, "--rotations")
        check_at_least(self.test_size, 1, "--test-size")
        check_at_least(self.seed, 0, "--seed")
        asked(self.intensity)
        if not self.dataset.is_dir():
            raise UserError(f"{self.dataset}: no such folder - give the folder of a Cell Tracking Challenge data set")
        videos = self._find_videos()
        kind, masks = self._find_masks(videos)
        if self.split == "track" and kind != "RES":
            raise UserError(
                f"--split is track, but the masks of {kind} in {self.dataset} do not say which objects are the same"
                " - give --split frame, or --masks RES where there are results"
            )
        objects: list[Object] = []
        for video in videos:
            tracks = _find_tracks(self.dataset, video, masks[video.name]) if kind == "RES" else None
            objects += index_masks(video, masks[video.name], "normal", tracks)
        if not objects:
            raise UserError(f"{self.dataset}: the masks of {kind} hold no cell - give other --masks")
        bare = [video.name for video in videos if not masks[video.name]]
        if bare:
            print(f"no masks of {kind} for {', '.join(bare)}: left out", file=sys.stderr)
        sided = split_objects(objects, self.split, self.test_size, self.seed, self.dataset)
        return plan_patches(
            "ctc", self.dataset, videos, sided, self.resolution, self.rotations, self.seed, self.intensity
        )

    def _find_videos(self) -> list[Video]:
        videos = []
        for folder in folders_in(self.dataset):
            if not re.fullmatch(r"\d{2,}", folder.name):
                continue
            frames = numbered_files(folder, FRAME)
            if not frames:
                raise UserError(f"{folder}: holds no t000.tif - add the frames or remove the folder")
            videos.append(Video(folder.name, frames))
        if not videos:
            raise UserError(f"{self.dataset}: holds no sequence 01, 02 ... - give the folder around them")
        return videos

    def _find_masks(self, videos: list[Video]) -> tuple[str, dict[str, dict[int, Path]]]:
        """Return the kind of masks and, by sequence, the masks by the number of their frame."""
        kinds = list(PLACES) if self.masks == "auto" else [self.masks]
        result: dict[str, dict[str, dict[int, Path]]] = {}
        for kind in kinds:
            ending, pattern = PLACES[kind]
            result[kind] = {
                video.name: numbered_files(self.dataset / f"{video.name}{ending}", pattern) for video in videos
            }
            if all(video.frames.keys() <= result[kind][video.name].keys() for video in videos):
                return kind, result[kind]
        counts = {kind: sum(map(len, masks.values())) for kind, masks in result.items()}
        kind = max(kinds, key=lambda kind: counts[kind])  # the first of equals
        if not counts[kind]:
            missing = " or ".join(f"{videos[0].name}{PLACES[kind][0]}" for kind in kinds)
            raise UserError(f"{self.dataset}: holds no masks in {missing} - add them or give other --masks")
        return kind, result[kind]


def _find_tracks(dataset: Path, video: Video, masks: dict[int, Path]) -> Tracks | None:
    """Read the track table beside the masks; a sequence without masks needs none."""
    if not masks:
        return None
    tracks = read_tracks(dataset / f"{video.name}_RES")
    # Only the Baxter Algorithms tell deaths, and only of their own results.
    return Tracks(tracks.path, tracks.first, ignored=tracks.ignored)
