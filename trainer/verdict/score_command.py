"""python -m trainer score: rank image files, with verdicts and heat maps."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from data_tools.cache import DEFAULT_LIMIT
from data_tools.errors import UserError
from data_tools.mirror import as_url, brought, sent
from data_tools.sources.images import find_images, read_image
from trainer.checkpoint import chosen_checkpoint
from trainer.detector import PAPER_LAMBDA, AnomalyDetector
from trainer.figures import save_picture
from trainer.verdict.judge import Judge, asked_threshold
from trainer.verdict.overlay import beside_match, overlaid

BATCH = 256
PLAIN = ("L_n", "L_o", "L_r")


class Part(NamedTuple):
    """What is known of some images: their score, and further columns by name."""

    score: np.ndarray
    columns: dict[str, np.ndarray]


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
    by: str = "fused"
    """fused: all terms, calibrated on the training images; a: the paper's score; or one term: L_n, L_o, D, L_k."""
    lam: float = PAPER_LAMBDA
    """lambda in a = lambda L_n + (1 - lambda) L_o."""
    false_alarms: float | None = None
    """Add a column: anomalous, so that at most this share of normal images is."""
    contamination: float | None = None
    """Add a column: anomalous, by the share of anomalies that is expected among the training images."""
    threshold: float | None = None
    """Add a column: anomalous when the score is above this."""
    cache: str = ""
    """Folder for decoded training images on this node (default: the user's cache folder)."""
    cache_limit: str = DEFAULT_LIMIT
    """Bytes that folder may hold; what was used for longest goes first."""

    def __call__(self) -> None:
        if not 0 <= self.lam <= 1:
            raise UserError(f"--lam {self.lam} is outside [0, 1] - give e.g. 0.05")
        if sum(given is not None for given in (self.false_alarms, self.contamination, self.threshold)) > 1:
            raise UserError("--false-alarms, --contamination and --threshold exclude one another - give one")
        plain = self.by == "a" and self.false_alarms is None and self.contamination is None
        judge = None if plain else Judge.load(self.run, self.best, self.cache, self.cache_limit, self.by, self.lam)
        detector = judge.detector if judge else AnomalyDetector.load(chosen_checkpoint(self.run, self.best))
        above = self.threshold
        if judge and (asked := asked_threshold(judge, self.false_alarms, self.contamination)):
            above = asked.value
            print(asked.sentences())
        with contextlib.ExitStack() as stack:
            out, maps = stack.enter_context(sent(self.out.parent)), self.heatmaps
            maps = stack.enter_context(sent(maps)) if maps else None
            named: list[tuple[Path, str]] = []
            for place in self.images:
                here, url = stack.enter_context(brought(place)), as_url(place)
                named += [(file, str(file).replace(str(here), url) if url else str(file)) for file in find_images(here)]
            parts = list(self._parts([file for file, _ in named], detector, judge, maps))
            self._write([name for _, name in named], parts, above, out / self.out.name)

    def _parts(
        self, files: list[Path], detector: AnomalyDetector, judge: Judge | None, maps: Path | None
    ) -> Iterator[Part]:
        for start in range(0, len(files), BATCH):
            some = files[start : start + BATCH]
            images = np.stack([read_image(file, detector.resolution, detector.channels) for file in some])
            if judge:
                judged = judge.judged(images)
                yield Part(judged.score, {"p_value": judged.p_value, **judged.terms})
            else:
                scores = detector.score(images)
                yield Part(scores.anomaly(self.lam), {name: getattr(scores, name) for name in PLAIN})
            if maps:
                _write_maps(maps, start, some, images, detector, judge)
            print(f"scored {start + len(some)} of {len(files)}", flush=True)

    def _write(self, names: list[str], parts: list[Part], above: float | None, out: Path) -> None:
        score = np.concatenate([part.score for part in parts])
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = out.with_name(f".{out.name}.partial")
        order = np.argsort(-score, kind="stable")
        with staged.open("w", newline="") as file:
            writer = csv.writer(file)
            verdict = [] if above is None else ["anomalous"]
            writer.writerow(["image", self.by, *columns, *verdict])
            for i in order:
                numbers = [f"{column[i]:.9g}" for column in (score, *columns.values())]
                called = [] if above is None else ["yes" if score[i] > above else "no"]
                writer.writerow([names[i], *numbers, *called])
        os.replace(staged, out)
        print(
            f"wrote {as_url(self.out) or self.out}: {len(score)} images, the most anomalous first ({names[order[0]]})"
        )


def _write_maps(
    folder: Path, first: int, files: list[Path], images: np.ndarray, detector: AnomalyDetector, judge: Judge | None
) -> None:
    """One PNG an image: query, closest match and heat map side by side, 4x."""
    folder.mkdir(parents=True, exist_ok=True)
    maps = overlaid(images, judge.heat(images)) if judge else None
    for i, picture in enumerate(beside_match(detector, images, maps)):
        save_picture(picture, folder / f"{first + i:06d}-{files[i].stem}.png", scale=4)
