"""python -m trainer score: rank image files, with verdicts and heat maps."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro

from data_tools.dataset.cache import DEFAULT_LIMIT
from data_tools.sources.images import find_images, read_image
from data_tools.storage.transfer import as_url, brought, sent
from trainer.report.figures import save_picture
from trainer.report.overlay import beside_match, overlaid
from trainer.scoring.criterion import Criterion
from trainer.scoring.detector import Detector, Scored

BATCH = 256


@dataclass(frozen=True)
class Score:
    """Score images with a trained detector; the most anomalous come first in the list."""

    run: tyro.conf.Positional[str]
    """The run's URL, or one checkpoint's."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files, or folders that are searched for images."""
    best: bool = False
    """The best checkpoint instead of the newest."""
    out: Path = Path("scores.csv")
    """Where the list goes."""
    heatmaps: Path | None = None
    """Folder for one picture an image: query, closest match, and where it is unusual."""
    criterion: tyro.conf.OmitArgPrefixes[Criterion] = field(default_factory=Criterion)
    """By what, and above what an image is called anomalous: a column more."""
    cache: str = ""
    """Folder for decoded training images on this node (default: the user's cache folder)."""
    cache_limit: str = DEFAULT_LIMIT
    """Bytes that folder may hold; what was used for longest goes first."""

    def __call__(self) -> None:
        detector = Detector.load(self.run, self.criterion, self.best, self.cache, self.cache_limit)
        if self.heatmaps:
            detector.inference.method.check_reconstructs()
        if detector.meaning:
            print(detector.meaning)
        with contextlib.ExitStack() as stack:
            out, maps = stack.enter_context(sent(self.out.parent)), self.heatmaps
            maps = stack.enter_context(sent(maps)) if maps else None
            named: list[tuple[Path, str]] = []
            for place in self.images:
                here, url = stack.enter_context(brought(place)), as_url(place)
                named += [(file, str(file).replace(str(here), url) if url else str(file)) for file in find_images(here)]
            parts = list(self._parts([file for file, _ in named], detector, maps))
            self._write([name for _, name in named], parts, out / self.out.name)

    def _parts(self, files: list[Path], detector: Detector, maps: Path | None) -> Iterator[Scored]:
        for start in range(0, len(files), BATCH):
            some = files[start : start + BATCH]
            images = np.stack([read_image(file, detector.resolution, detector.channels) for file in some])
            yield detector.score(images)
            if maps:
                _write_maps(maps, start, some, images, detector)
            print(f"scored {start + len(some)} of {len(files)}", flush=True)

    def _write(self, names: list[str], parts: list[Scored], out: Path) -> None:
        score = np.concatenate([part.score for part in parts])
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
        verdicts = [part.anomalous for part in parts if part.anomalous is not None]
        anomalous = np.concatenate(verdicts) if verdicts else None
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = out.with_name(f".{out.name}.partial")
        order = np.argsort(-score, kind="stable")
        with staged.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", self.criterion.by, *columns, *([] if anomalous is None else ["anomalous"])])
            for i in order:
                numbers = [f"{column[i]:.9g}" for column in (score, *columns.values())]
                called = [] if anomalous is None else ["yes" if anomalous[i] else "no"]
                writer.writerow([names[i], *numbers, *called])
        os.replace(staged, out)
        print(
            f"wrote {as_url(self.out) or self.out}: {len(score)} images, the most anomalous first ({names[order[0]]})"
        )


def _write_maps(folder: Path, first: int, files: list[Path], images: np.ndarray, detector: Detector) -> None:
    """One PNG an image: query, closest match and heat map side by side, 4x."""
    folder.mkdir(parents=True, exist_ok=True)
    maps = overlaid(images, detector.heat(images)) if detector.calibration else None
    for i, picture in enumerate(beside_match(detector, images, maps)):
        save_picture(picture, folder / f"{first + i:06d}-{files[i].stem}.png", scale=4)
