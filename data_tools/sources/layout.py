"""What folders' names say of the images in them: normal or anomalous, MVTec's own split, masks beside images.

Names count in any case. A folder whose layout says that some images are anomalous, in a way that is not understood, is
refused: anomalies that somebody labelled are never trained on unasked.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.errors import UserError
from data_tools.text import readable
from data_tools.walk import folders_in

NORMAL = frozenset(("normal", "normals", "good", "ok", "nominal", "defect-free", "defect_free", "no_defect"))
ANOMALY = frozenset(("anomaly", "anomalies", "anomalous", "abnormal", "outlier", "outliers")) | frozenset(
    ("defect", "defects", "defective", "faulty", "bad", "ng", "nok", "not_ok")
)
TRUTH = frozenset(("ground_truth", "groundtruth", "ground-truth"))
"""Folders of masks, whatever they hold."""
MASKS = frozenset(
    ("mask", "masks", "label", "labels", "seg", "segmentation", "segmentations", "annotation", "annotations", "gt")
)
"""Folders of masks where their images lie elsewhere under the same names."""
MASK_WORDS = ("_mask", "_masks", "_seg", "_segmentation", "_label", "_labels", "_gt", "-mask", "-seg")
TRAIN, TEST = "train", "test"
MAX_KINDS = 64
"""Folders of anomalies, at most, that are kinds of them; more are days, batches or images."""


@dataclass(frozen=True)
class Layout:
    """The images of a folder. pools: label or, where the folder itself splits them, pool -> paths, in their order."""

    pools: dict[str, list[Path]]
    is_split: bool = False

    def labels(self) -> dict[str, list[str]]:
        """label -> the names of its `pools`."""
        result: dict[str, list[str]] = {}
        for pool in self.pools:
            result.setdefault(pool.rpartition("-")[2], []).append(pool)
        return result


def laid_out(folder: Path, images: Sequence[Path]) -> Layout:
    """Sort the images found in a folder by what its subfolders are called; says on stderr what is left out.

    Raises UserError where labels cannot be told for sure.
    """
    kept, masks = _without_masks(folder, images)
    tops = {path.name: [] for path in folders_in(folder)} | _by_part(folder, kept, 0)
    lower = {name.lower(): name for name in tops}
    sides = [tops.get(lower.get(side, ""), []) for side in (TRAIN, TEST)]
    if sides[0] and any(name.lower() in NORMAL | ANOMALY for side in sides for name in _by_part(folder, side, 1)):
        result = Layout(_split_by_itself(folder, *sides), True)
    else:
        result = Layout(_labelled(folder, tops))
        if not result.pools:
            _check_unlabelled(folder, kept)
            result = Layout({"unlabelled": kept})
    taken = {path for paths in result.pools.values() for path in paths}
    _say(folder, masks, "masks, which are no images to learn from")
    _say(folder, [path for path in kept if path not in taken], "images beside those that folders' names label")
    return result


def kind_of(file: str) -> str:
    """An anomaly's kind, by its path below the folder: of the folders that lead to it the first that says more than
    its label; "anomaly" where none does.
    """
    said = NORMAL | ANOMALY | {TRAIN, TEST}
    return next((part for part in Path(file).parts[:-1] if part.lower() not in said), "anomaly")


def are_kinds(anomalies: Iterable[str]) -> bool:
    """Whether the folders of these files are few enough to be kinds."""
    return len({kind_of(file) for file in anomalies}) <= MAX_KINDS


def _labelled(folder: Path, tops: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """normal/ and anomaly/, by whatever names they go; {} where there are neither."""
    result: dict[str, list[Path]] = {}
    anomalous = next((name for name in tops if name.lower() in ANOMALY), "")
    if anomalous and not any(name.lower() in NORMAL for name in tops):
        raise UserError(f"{folder}: has {anomalous}/ but no normal/ - add normal/ with images to learn from")
    for label, names in (("normal", NORMAL), ("anomaly", ANOMALY)):
        for name in tops:
            if name.lower() in names:
                if not tops[name]:
                    raise UserError(f"{folder / name}: holds no images - add some, or remove the folder")
                result.setdefault(label, []).extend(tops[name])
    return result


def _split_by_itself(folder: Path, train: list[Path], test: list[Path]) -> dict[str, list[Path]]:
    """MVTec's layout: train/good, test/good, and in test/ a folder for each defect."""
    pools: dict[str, list[Path]] = {"train-normal": [], "train-anomaly": [], "test-normal": [], "test-anomaly": []}
    for side, paths in ((TRAIN, train), (TEST, test)):
        for name, some in _by_part(folder, paths, 1).items():
            if name.lower() in NORMAL:
                pools[f"{side}-normal"] += some
            elif name.lower() in ANOMALY or (side == TEST and name):
                pools[f"{side}-anomaly"] += some
            else:
                place = some[0].relative_to(folder).parent.as_posix()
                raise UserError(
                    f"{folder / place}: normal or anomalous? Its name does not say"
                    f" - rename it to good or defect, or give {folder / TRAIN} by itself"
                )
    if not pools["train-normal"]:
        raise UserError(f"{folder}: has {TRAIN}/ without good/ - add {TRAIN}/good with images to learn from")
    return {pool: paths for pool, paths in pools.items() if paths}


def _check_unlabelled(folder: Path, images: Sequence[Path]) -> None:
    """UserError when folders further down say that some images are anomalous."""
    for path in images:
        parts = path.relative_to(folder).parts[:-1]
        for depth, part in enumerate(parts):
            split = depth and part.lower() in NORMAL and parts[depth - 1].lower() in (TRAIN, TEST)
            if part.lower() in ANOMALY or split:
                around = folder.joinpath(*parts[: depth - 1 if split else depth])
                raise UserError(
                    f"{folder.joinpath(*parts[: depth + 1])}: is labelled, but lies too deep in {folder} to be"
                    f" understood - give {around}, or have normal/ and anomaly/ right in one folder"
                )


def _without_masks(folder: Path, images: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Images, and the masks beside them."""
    names = {(path.parent, path.stem) for path in images}

    def is_apart(path: Path, folders: frozenset[str]) -> bool:
        return any(part.lower() in folders for part in path.relative_to(folder).parts[:-1])

    elsewhere = {path.stem for path in images if not is_apart(path, MASKS | TRUTH)}

    def is_mask(path: Path) -> bool:
        bare = _bare(path.stem)
        if is_apart(path, TRUTH) or (bare != path.stem and (path.parent, bare) in names):
            return True
        return is_apart(path, MASKS) and bool({path.stem, bare} & elsewhere)

    masks = [path for path in images if is_mask(path)]
    if len(masks) == len(images):
        return list(images), []
    dropped = set(masks)
    return [path for path in images if path not in dropped], masks


def _bare(stem: str) -> str:
    """A mask's name without the word that says so."""
    word = next((word for word in MASK_WORDS if stem.lower().endswith(word)), "")
    return stem[: len(stem) - len(word)] if word else stem


def _by_part(folder: Path, images: Sequence[Path], depth: int) -> dict[str, list[Path]]:
    """Images by the name of the folder `depth` levels down; "" for those that lie above it."""
    result: dict[str, list[Path]] = {}
    for path in images:
        parts = path.relative_to(folder).parts
        result.setdefault(parts[depth] if len(parts) > depth + 1 else "", []).append(path)
    return result


def _say(folder: Path, left: Sequence[Path], what: str) -> None:
    if left:
        places = Counter(path.relative_to(folder).parent.as_posix() for path in left)
        shown = ", ".join(readable(f"{count} in {place}") for place, count in places.most_common(3))
        more = " ..." if len(places) > 3 else ""
        print(f"left out {len(left)} {what}: {shown}{more}", file=sys.stderr)
