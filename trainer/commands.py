"""The commands of `python -m trainer`, as plain functions of their options."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from data_tools.cache import DEFAULT_LIMIT, open_cache
from data_tools.errors import UserError
from data_tools.mirror import as_url, brought, sent
from data_tools.reader import open_dataset
from data_tools.sources.images import find_images, read_image
from data_tools.storage import absolute
from trainer.checkpoint import checkpoint_names, chosen_checkpoint, read_info
from trainer.config import TrainConfig
from trainer.detector import PAPER_LAMBDA, AnomalyDetector
from trainer.evaluation import check_fits, has_labels, score_table
from trainer.figures import save_picture
from trainer.report import result_rows, write_report
from trainer.run_folder import discard, prepare, read_config


def train_command(config: TrainConfig) -> None:
    """Train, in this process or on Ray workers."""
    # Ray's workers run in folders of their own, and an evaluation may be started from another one.
    paths = {name: absolute(getattr(config, name)) for name in ("data", "out", "cache", "start_from", "exclude")}
    config = dataclasses.replace(config, **paths)
    state = prepare(config)
    if state == "finished":
        print(f"{config.out}: this run is finished - evaluate it with: python -m trainer evaluate {config.out}")
        return
    try:
        if config.worker_range()[1]:
            from trainer.worker import train_on_ray

            train_on_ray(config)
        else:
            _train_here(config)
    except (UserError, OSError):
        if state == "new" and not checkpoint_names(config.out):
            discard(config.out)  # it was new or empty, so all in it is ours and of no use
        raise
    print(f"finished: {config.out}\nnext: python -m trainer evaluate {config.out}")


def _train_here(config: TrainConfig) -> None:
    """Train in this process; SIGTERM, by which machines announce that they go, is answered by a checkpoint."""
    from trainer.loop import Surroundings, train

    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        train(config, Surroundings(stopped=told.is_set))
    finally:
        signal.signal(signal.SIGTERM, before)
    if told.is_set():
        sys.exit(128 + signal.SIGTERM)


@dataclass(frozen=True)
class Evaluate:
    """Score the test set of a run's dataset; write the score table, figures and a report page."""

    run: tyro.conf.Positional[str]
    """The run's URL."""
    best: bool = False
    """The best checkpoint instead of the newest."""
    data: str = ""
    """Another dataset than the one trained on."""
    cache: str = ""
    """Folder for decoded images on this node (default: the user's cache folder)."""
    cache_limit: str = DEFAULT_LIMIT
    """Bytes that folder may hold; what was used for longest goes first."""

    def __call__(self) -> None:
        config, _ = read_config(self.run)
        info = read_info(chosen_checkpoint(self.run, self.best))
        detector = AnomalyDetector.from_checkpoint(info, with_critic=True)
        url = self.data or config.data
        dataset = open_dataset(url, open_cache(self.cache, self.cache_limit))
        check_fits(detector, dataset, url)
        if not has_labels(dataset):
            raise UserError(
                f"{url}: has no labelled test images of both kinds, so there is no AUC "
                f"- rank images with: python -m trainer score {self.run} IMAGES --out scores.csv"
            )
        table = score_table(detector, dataset)
        page = write_report(self.run, info, detector, dataset, table)
        lines = Table(title=f"AUC after {info.images_seen:,} images at {info.resolution}x{info.resolution}")
        for heading in ("score", "AUC", ""):
            lines.add_column(heading)
        for row in result_rows(table):
            lines.add_row(row.name, f"{row.auc:.3f}", row.note)
        Console(width=None if os.isatty(1) else 100).print(lines)
        print(f"report: {page}")


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
    """Folder for one picture an image: query, closest match, heat map."""
    lam: float = PAPER_LAMBDA
    """lambda in a = lambda L_n + (1 - lambda) L_o."""
    threshold: float | None = None
    """Add a column: anomalous when a is above this."""

    def __call__(self) -> None:
        if not 0 <= self.lam <= 1:
            raise UserError(f"--lam {self.lam} is outside [0, 1] - give e.g. 0.05")
        detector = AnomalyDetector.load(chosen_checkpoint(self.run, self.best))
        with contextlib.ExitStack() as stack:
            out, maps = stack.enter_context(sent(self.out.parent)), self.heatmaps
            maps = stack.enter_context(sent(maps)) if maps else None
            named: list[tuple[Path, str]] = []
            for place in self.images:
                here, url = stack.enter_context(brought(place)), as_url(place)
                named += [(file, str(file).replace(str(here), url) if url else str(file)) for file in find_images(here)]
            self._score(detector, [file for file, _ in named], [name for _, name in named], out / self.out.name, maps)

    def _score(
        self, detector: AnomalyDetector, files: list[Path], names: list[str], out: Path, maps: Path | None
    ) -> None:
        rows: list[tuple[float, list[str]]] = []
        for start in range(0, len(files), 256):
            part = files[start : start + 256]
            images = np.stack([read_image(file, detector.resolution, detector.channels) for file in part])
            scores = detector.score(images)
            a = scores.anomaly(self.lam)
            for i in range(len(part)):
                verdict = [] if self.threshold is None else ["yes" if a[i] > self.threshold else "no"]
                numbers = [f"{x[i]:.9g}" for x in (a, scores.L_n, scores.L_o, scores.L_r)]
                rows.append((float(a[i]), [names[start + i], *numbers, *verdict]))
            if maps:
                _write_heatmaps(maps, start, part, images, detector)
            print(f"scored {start + len(part)} of {len(files)}", flush=True)
        rows.sort(key=lambda row: -row[0])
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = out.with_name(f".{out.name}.partial")
        with staged.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "a", "L_n", "L_o", "L_r", *([] if self.threshold is None else ["anomalous"])])
            writer.writerows(cells for _, cells in rows)
        os.replace(staged, out)
        print(f"wrote {as_url(self.out) or self.out}: {len(rows)} images, the most anomalous first ({rows[0][1][0]})")


def _write_heatmaps(folder: Path, first: int, files: list[Path], images: np.ndarray, detector: AnomalyDetector) -> None:
    """One PNG an image: query, closest match and heat map side by side, 4x."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    heat = detector.heatmap(images)
    colours = (matplotlib.colormaps["magma"](heat)[..., :3] * 255).astype(np.uint8)
    matches = np.clip(np.rint((detector.reconstruct(images) + 1) * 127.5), 0, 255).astype(np.uint8)
    for i, file in enumerate(files):
        side = [np.broadcast_to(x, (*x.shape[:2], 3)) for x in (images[i], matches[i], colours[i])]
        save_picture(np.concatenate(side, axis=1), folder / f"{first + i:06d}-{file.stem}.png", scale=4)
