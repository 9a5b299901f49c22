"""python -m trainer score: rank image files, with verdicts and heat maps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from data_tools.commands.options import CacheOptions, Caching
from data_tools.headings import UNSET
from data_tools.sources.images import find_images, read_image
from data_tools.text import CsvWriter
from trainer.commands.shared import Best, Run
from trainer.scoring.criterion import Criterion

if TYPE_CHECKING:
    from trainer.scoring.detector import Detector, Scored

BATCH = 256


@dataclass(frozen=True)
class Score:
    """Score images with a trained detector; the most anomalous come first in the list."""

    run: Run
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], UNSET]
    """Image files, or folders that are searched for images."""
    best: Best = False
    out: Path = Path("scores.csv")
    """Where the list goes."""
    heatmaps: Annotated[Path | None, UNSET] = None
    """Folder for one picture per image: query, closest match, and where it is unusual."""
    criterion: tyro.conf.OmitArgPrefixes[Criterion] = field(default_factory=Criterion)
    """By what, and above what an image is called anomalous: a column more."""
    caching: Caching = field(default_factory=CacheOptions)

    def __call__(self) -> None:
        from data_tools.storage.transfer import as_url, downloaded, uploaded
        from trainer.scoring.detector import Detector

        cache = self.caching
        detector = Detector.load(self.run, self.criterion, self.best, cache.cache, cache.cache_limit)
        if self.heatmaps:
            detector.inference.method.check_reconstructs()
        if detector.meaning:
            print(detector.meaning)
        with contextlib.ExitStack() as stack:
            out, maps = stack.enter_context(uploaded(self.out.parent)), self.heatmaps
            maps = stack.enter_context(uploaded(maps)) if maps else None
            named: list[tuple[Path, str]] = []
            for place in self.images:
                here, url = stack.enter_context(downloaded(place)), as_url(place)
                named += [(file, str(file).replace(str(here), url) if url else str(file)) for file in find_images(here)]
            parts = list(self._parts([file for file, _ in named], detector, maps))
            self._write([name for _, name in named], parts, out / self.out.name)

    def _parts(self, files: list[Path], detector: Detector, maps: Path | None) -> Iterator[Scored]:
        for start in range(0, len(files), BATCH):
            some = files[start : start + BATCH]
            form = detector.resolution, detector.channels, detector.intensity
            images = np.stack([read_image(file, *form) for file in some])
            yield detector.score(images)
            if maps:
                _write_maps(maps, start, some, images, detector)
            print(f"scored {start + len(some)} of {len(files)}", flush=True)

    def _write(self, names: list[str], parts: list[Scored], out: Path) -> None:
        from data_tools.storage.transfer import as_url

        score = np.concatenate([part.score for part in parts])
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
        verdicts = [part.anomalous for part in parts if part.anomalous is not None]
        anomalous = np.concatenate(verdicts) if verdicts else None
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = out.with_name(f".{out.name}.partial")
        order = np.argsort(-score, kind="stable")
        with staged.open("w", newline="", encoding="utf-8") as file:
            writer = CsvWriter(file)
            writer.writerow(["image", self.criterion.by, *columns, *([] if anomalous is None else ["anomalous"])])
            for i in order:
                numbers = [f"{column[i]:.9g}" for column in (score, *columns.values())]
                called = [] if anomalous is None else ["yes" if anomalous[i] else "no"]
                writer.writerow([names[i], *numbers, *called])
        os.replace(staged, out)
        place = as_url(self.out) or self.out
        print(f"wrote {place}: {len(score)} images, the most anomalous first ({names[order[0]]})")


def _write_maps(folder: Path, first: int, files: list[Path], images: np.ndarray, detector: Detector) -> None:
    """One PNG per image: query, closest match and heat map side by side, 4x."""
    from trainer.report.figures import save_picture
    from trainer.report.overlay import beside_match, overlaid

    folder.mkdir(parents=True, exist_ok=True)
    maps = overlaid(images, detector.heat(images)) if detector.calibration else None
    for i, picture in enumerate(beside_match(detector, images, maps)):
        save_picture(picture, folder / f"{first + i:06d}-{files[i].stem}.png", scale=4)
