"""Labelled objects of cell videos: an index from masks, the split into training and test, and the way to patches.

The index holds a few numbers for each object, no pixels. Patches are cut frame by frame, so that one frame is read once
and held alone.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np

from data_tools.dataset.patch import Patch, Plan
from data_tools.errors import UserError
from data_tools.sources.common import key_part, shuffled
from data_tools.sources.crop import Frame, cut
from data_tools.sources.formats import named
from data_tools.sources.frames import deep_frame, frame_size, read_frame, read_mask
from data_tools.sources.learned import Rule, learned
from data_tools.text import readable
from data_tools.walk import files_in

Split = Literal["object", "track", "frame", "sequence"]
Kind = Literal["normal", "anomaly"]
CLASSES = {"normal": "cell", "anomaly": "false_positive"}


@dataclass(frozen=True)
class Video:
    """One sequence: its frames by number, in order of time."""

    name: str
    frames: Mapping[int, Path]


@dataclass(frozen=True)
class Tracks:
    """What a track table says.

    first: label -> the label under which the same object began; holds every label there is.
    endings: label -> "mitosis" or "apoptosis", for tracks that end so.
    ignored: labels to pass over.
    """

    path: Path
    first: Mapping[int, int] = field(default_factory=dict)
    endings: Mapping[int, str] = field(default_factory=dict)
    ignored: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Object:
    """One labelled object in one frame; (x, y) is the centroid of its mask in pixels."""

    sequence: str
    frame: int
    kind: Kind
    label: int
    x: float
    y: float
    track: int | None = None
    event: str = ""


def numbered_files(folder: Path, pattern: str) -> dict[int, Path]:
    """Return the files whose whole name fits `pattern` in any case, by the number in its only group.

    Raises UserError when two files have the same number.
    """
    result: dict[int, Path] = {}
    for path in files_in(folder):
        match = re.fullmatch(pattern, path.name, re.IGNORECASE)
        if match:
            other = result.setdefault(int(match[1]), path)
            if other != path:
                raise UserError(f"{path}: has the same number as {other.name} - remove one of them")
    return dict(sorted(result.items()))


def index_masks(video: Video, masks: Mapping[int, Path], kind: Kind, tracks: Tracks | None) -> list[Object]:
    """List the objects of one kind in one sequence, by frame and label.

    Without `tracks` every label is an object and nothing is known of its past. Raises UserError for a mask that cannot
    be read, that fits no frame, or that has a label which the track table does not know.
    """
    objects: list[Object] = []
    last: dict[int, int] = {}
    for number, path in masks.items():
        if number not in video.frames:
            raise UserError(f"{path}: no frame of {video.name} has number {number} - add the frame or remove the mask")
        mask = read_mask(path)
        frame = video.frames[number]
        if mask.any() and frame_size(frame) != mask.shape:
            sizes = " but ".join("{1} x {0} pixels".format(*size) for size in (mask.shape, frame_size(frame)))
            raise UserError(f"{path}: has {sizes} in its frame {frame.name} - export it from the same frames")
        for label, x, y in _locate(mask):
            if tracks and label in tracks.ignored:
                continue
            if tracks and label not in tracks.first:
                raise UserError(f"{path}: label {label} is not in {tracks.path} - export both again")
            track = tracks.first[label] if tracks else None
            objects.append(Object(video.name, number, kind, label, x, y, track))
            last[label] = number
    if not tracks:
        return objects
    return [
        replace(thing, event=tracks.endings.get(thing.label, "")) if thing.frame == last[thing.label] else thing
        for thing in objects
    ]


def _locate(mask: np.ndarray) -> Iterator[tuple[int, float, float]]:
    """Yield label, x and y of each object: centroids, which a stray pixel moves less than it moves a bounding box."""
    places = np.flatnonzero(mask)
    labels = mask.ravel()[places]
    counts = np.bincount(labels)
    rows, columns = np.divmod(places, mask.shape[1])
    row_sums, column_sums = np.bincount(labels, rows), np.bincount(labels, columns)
    for label in np.flatnonzero(counts):
        yield int(label), float(column_sums[label] / counts[label]), float(row_sums[label] / counts[label])


def split_objects(
    objects: Sequence[Object], split: Split, test_size: int, seed: int, place: Path
) -> list[tuple[Object, str]]:
    """Give objects to "train" or "test": exactly `test_size` of each kind to the test, no group to both.

    Groups go to the test in a seeded order until each kind has enough there; what they hold beyond that is left out.
    Raises UserError when this leaves too few for the test, or no normal object to learn from.
    """
    members: defaultdict[tuple, list[int]] = defaultdict(list)
    for index, thing in enumerate(objects):
        members[_group(thing, split)].append(index)
    unordered = list(members.values())
    groups = [unordered[number] for number in shuffled(len(unordered), seed, f"split by {split}")]
    kinds = sorted({thing.kind for thing in objects}, reverse=True)  # normal first
    totals = Counter(thing.kind for thing in objects)

    def draw(size: int) -> list[int] | None:
        """The groups to test on, or None when there are not enough."""
        drawn: Counter[str] = Counter()
        chosen = []
        for number, group in enumerate(groups):
            held = Counter(objects[index].kind for index in group)
            if any(drawn[kind] < size for kind in held):
                drawn += held
                chosen.append(number)
            elif all(drawn[kind] >= size for kind in kinds):
                break
        # Anomalies need not be left; they only contaminate.
        enough = all(drawn[kind] >= size for kind in kinds) and drawn["normal"] < totals["normal"]
        return chosen if enough else None

    chosen = draw(test_size)
    if chosen is None:
        low, high = 0, min(totals[kind] for kind in kinds)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if draw(middle) else (low, middle - 1)
        other = "" if split == "object" else "another --split"
        remedy = " or ".join(filter(None, (f"at most {low}" if low else "", other)))
        counts = " and ".join(_count(totals[kind], CLASSES[kind].replace("_", " ")) for kind in kinds)
        raise UserError(
            f"--test-size is {test_size}, but {place} holds {counts} in {_count(len(groups), split)}"
            f" to share between training and test - {f'give {remedy}' if remedy else 'add more data'}"
        )

    sides = dict.fromkeys(range(len(objects)), "train")
    pool = sorted(index for number in chosen for index in groups[number])
    for kind in kinds:
        candidates = [index for index in pool if objects[index].kind == kind]
        order = shuffled(len(candidates), seed, f"test {kind}")
        sides.update((candidates[drawn], "test") for drawn in order[:test_size])
        for drawn in order[test_size:]:
            del sides[candidates[drawn]]
    if len(sides) < len(objects):
        left = len(objects) - len(sides)
        print(
            f"left out {left} of {len(objects)} objects that share a {split} with objects to test on", file=sys.stderr
        )
    return [(objects[index], side) for index, side in sides.items()]


def _group(thing: Object, split: Split) -> tuple:
    if split == "sequence":
        return (thing.sequence,)
    if split == "frame":
        return (thing.sequence, thing.frame)
    if split == "track":
        return (thing.sequence, thing.kind, thing.track)
    return (thing.sequence, thing.frame, thing.kind, thing.label)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


Draft = tuple[Object, int]
"""An object and which of its turns, 0 for upright."""


def plan_patches(
    source: str,
    place: Path,
    videos: Sequence[Video],
    sided: Sequence[tuple[Object, str]],
    resolution: int,
    rotations: int,
    seed: int,
    intensity: str,
) -> Plan:
    """Plan the patches of all objects: within a pool, video by video, frame by frame, by label.

    intensity: as --intensity has it; auto learns from frames of all videos.
    Objects to train on come upright and at `rotations` random angles, objects to test on upright alone.
    The plan's `cut` raises UserError when a frame cannot be read.
    """
    numbers = {video.name: number for number, video in enumerate(videos)}
    drafts: dict[str, list[Draft]] = {}
    for thing, side in sorted(sided, key=lambda pair: (numbers[pair[0].sequence], pair[0].frame, pair[0].label)):
        turns = 1 + rotations if side == "train" else 1
        drafts.setdefault(f"{side}-{thing.kind}", []).extend((thing, turn) for turn in range(turns))
    frames = [path for video in videos for path in video.frames.values()]
    rule = learned(intensity, frames, deep_frame)
    cut = partial(_cut, source, place, tuple(videos), resolution, rotations, seed, rule)
    return Plan(drafts, cut, rule.intensity)


def _cut(
    source: str,
    place: Path,
    videos: Sequence[Video],
    resolution: int,
    rotations: int,
    seed: int,
    rule: Rule,
    pool: str,
    drafts: Sequence[Draft],
) -> Iterator[Patch]:
    """Yield the patches of drafts; reads a frame once for all drafts from it that follow one another."""
    numbers = {video.name: number for number, video in enumerate(videos)}
    for (sequence, index), of_frame in groupby(drafts, key=lambda draft: (draft[0].sequence, draft[0].frame)):
        number = numbers[sequence]
        path = videos[number].frames[index]
        try:
            frame = Frame(rule.eight_bit(read_frame(path)))
        except ValueError as error:
            raise named(str(path), error) from None
        file = readable(path.relative_to(place).as_posix())
        # The sequence's number, since two names can give the same piece of a key.
        name = f"{number:02d}-{key_part(sequence)}-{index:04d}"
        for thing, of_object in groupby(of_frame, key=lambda draft: draft[0]):
            angles = [0.0, *_angles(thing, rotations, seed)]
            for _, turn in of_object:
                image, padded = cut(frame, thing.x, thing.y, angles[turn], resolution)
                provenance = {
                    "source": source,
                    "sequence": readable(sequence),
                    "frame": index,
                    "file": file,
                    "object": thing.label,
                    "track": thing.track,
                    "class": CLASSES[thing.kind],
                    "event": thing.event,
                    "angle": angles[turn],
                    "x": round(thing.x, 2),
                    "y": round(thing.y, 2),
                    "padded": round(padded, 4),
                }
                if thing.track is None:
                    del provenance["track"]
                yield Patch(image, pool, f"{name}-{thing.kind}{thing.label:05d}-{turn}", provenance)


def _angles(thing: Object, rotations: int, seed: int) -> list[float]:
    """Draw angles that depend on seed and object alone; more rotations keep the first ones."""
    name = [seed, thing.frame, thing.label, int(thing.kind == "anomaly"), *thing.sequence.encode()]
    return [round(float(angle), 3) for angle in np.random.default_rng(name).uniform(0, 360, rotations)]
