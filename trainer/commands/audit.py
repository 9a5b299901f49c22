"""Which of a run's own training images are junk: all of them ranked, the worst on a page, a list to train without."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from data_tools.dataset.cache import DEFAULT_LIMIT, open_cache
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import BLOCK, all_images
from data_tools.errors import UserError
from data_tools.progress import progress
from data_tools.storage.transfer import sent
from trainer.report.audit_page import Ranking, write_page
from trainer.run.checkpoint import chosen_checkpoint
from trainer.run.folder import read_config, read_excluded, run_images
from trainer.scoring.calibration import run_of
from trainer.scoring.criterion import PAPER_LAMBDA, Criterion
from trainer.scoring.detector import Detector, Scored
from trainer.scoring.evaluation import provenance_columns


@dataclass(frozen=True)
class Audit:
    """Rank a run's own training images, the most anomalous first; write the list, a page and an exclusion list."""

    run: tyro.conf.Positional[str]
    """The run's URL, or one checkpoint's."""
    out: str = ""
    """Where it goes (default: RUN/audit)."""
    best: bool = False
    """The best checkpoint instead of the newest."""
    by: str = "fused"
    """fused: all terms, calibrated on the training images; a: the paper's score; or one term by its name, as L_n."""
    lam: float = PAPER_LAMBDA
    """lambda in a = lambda L_n + (1 - lambda) L_o."""
    contamination: float | None = None
    """Exclude by the share of anomalies that is expected among the training images (default: 0.02)."""
    false_alarms: float | None = None
    """Exclude so that at most this share of the normal images goes with the anomalies."""
    shown: int = 200
    """Images on the page."""
    cache: str = ""
    """Folder for decoded training images on this node (default: the user's cache folder)."""
    cache_limit: str = DEFAULT_LIMIT
    """Bytes that folder may hold; what was used for longest goes first."""

    def __call__(self) -> None:
        if self.shown < 1:
            raise UserError(f"--shown {self.shown} is below 1 - give the number of images on the page")
        checkpoint = chosen_checkpoint(self.run, self.best)
        run = run_of(checkpoint)
        expected = 0.02 if self.contamination is None and self.false_alarms is None else self.contamination
        criterion = Criterion(self.by, self.lam, self.false_alarms, expected)
        detector = Detector.load(checkpoint, criterion, False, self.cache, self.cache_limit)
        ranking = self._ranked(run, detector)
        junk = int(ranking.excluded.sum())
        place = self.out or f"{run}/audit"
        with sent(Path(place)) as folder:
            staged = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            _write_table(staged / "audit.csv", ranking, self.by)
            _write_exclusions(staged / "exclude.txt", ranking, junk, detector.meaning)
            write_page(staged / "index.html", ranking, detector)
            shutil.rmtree(folder, ignore_errors=True)
            staged.rename(folder)
        print(detector.meaning)
        print(f"{len(ranking.origins):,} training images ranked, {junk:,} of them to exclude: {place}/index.html")
        print(f"next: python -m trainer train … --exclude {place}/exclude.txt --out ANOTHER")

    def _ranked(self, run: str, detector: Detector) -> Ranking:
        """One pass over the training images; of the images themselves only the worst so far are held."""
        config, _ = read_config(run)
        dataset = open_dataset(config.data, open_cache(self.cache, self.cache_limit))
        count = len(run_images(run, config, dataset))
        parts: list[Scored] = []
        origins: list[str] = []
        worst = dataset.decoded(())
        held = np.zeros(0)  # their scores
        blocks = all_images(dataset, config.gamma, config.seed, config.window, read_excluded(run))
        for block in progress(blocks, "auditing", "blocks", -(-count // BLOCK)):
            found = detector.score(block.images, np.arange(len(origins), len(origins) + len(block.images)))
            parts.append(found)
            origins += [json.dumps(origin) for origin in block.origins]
            both = np.concatenate([held, found.score])
            first = np.argsort(-both, kind="stable")[: self.shown]
            worst, held = np.concatenate([worst, block.images])[first], both[first]
        order = np.argsort(-np.concatenate([each.score for each in parts]), kind="stable")
        return Ranking(_in_order(parts, order), [origins[i] for i in order], worst)


def _in_order(parts: list[Scored], order: np.ndarray) -> Scored:
    def joined(columns: Iterable[np.ndarray | None]) -> np.ndarray:
        return np.concatenate([column for column in columns if column is not None])[order]

    terms = {name: joined(each.terms[name] for each in parts) for name in parts[0].terms}
    score, p_value = joined(each.score for each in parts), joined(each.p_value for each in parts)
    return Scored(score, terms, p_value, joined(each.anomalous for each in parts))


def _write_table(path: Path, ranking: Ranking, by: str) -> None:
    """A row an image: rank, whether excluded, score, p-value, terms, provenance."""
    scored = ranking.scored
    known = provenance_columns(json.loads(line) for line in ranking.origins)  # one at a time: they may be millions
    others = [name for name in known if name not in ("key", "pool")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "key", "excluded", by, *scored.columns, "pool", *others])
        for i, line in enumerate(ranking.origins):
            origin = json.loads(line)
            numbers = (f"{column[i]:.9g}" for column in (scored.score, *scored.columns.values()))
            rest = (origin.get(name, "") for name in ("pool", *others))
            writer.writerow([i + 1, origin["key"], "yes" if ranking.excluded[i] else "no", *numbers, *rest])


def _write_exclusions(path: Path, ranking: Ranking, junk: int, meaning: str) -> None:
    """What `train --exclude` takes."""
    lines = [
        f"# {junk} of {len(ranking.origins)} training images, the worst first; delete the lines of those to keep",
        *(f"# {sentence}" for sentence in meaning.split(". ")),
    ]
    assert ranking.scored.p_value is not None
    for line, score, p in zip(ranking.origins[:junk], ranking.scored.score, ranking.scored.p_value):
        lines.append(f"{json.loads(line)['key']}  # score {score:.4g}, p {p:.2g}")
    path.write_text("\n".join(lines) + "\n")
