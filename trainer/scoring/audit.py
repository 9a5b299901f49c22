"""Which of a run's own training images are junk: all of them ranked, as a table and as a list to train without."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.dataset.cache import Cache
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import BLOCK, all_images
from data_tools.progress import progress
from trainer.run.folder import read_config, read_excluded, run_images
from trainer.scoring.evaluation import PROVENANCE
from trainer.scoring.judge import Judge, Judged
from trainer.scoring.thresholds import Threshold


@dataclass(frozen=True)
class Ranking:
    """All n training images, the most anomalous first.

    judged: terms, scores, p-values; origins: pool, key and provenance of each as a line of JSON; worst: the first
    images themselves, uint8 K x H x W x C.
    """

    judged: Judged
    origins: list[str]
    worst: np.ndarray


def ranked(run: str, judge: Judge, cache: Cache, shown: int) -> Ranking:
    """One pass over a run's training images; of the images themselves only the `shown` worst so far are held."""
    config, _ = read_config(run)
    dataset = open_dataset(config.data, cache)
    count = len(run_images(run, config, dataset))
    judged: list[Judged] = []
    origins: list[str] = []
    worst = dataset.decoded(())
    held = np.zeros(0)  # their scores
    blocks = all_images(dataset, config.gamma, config.seed, config.window, read_excluded(run))
    for block in progress(blocks, "auditing", "blocks", -(-count // BLOCK)):
        found = judge.judged(block.images, np.arange(len(origins), len(origins) + len(block.images)))
        judged.append(found)
        origins += [json.dumps(origin) for origin in block.origins]
        both = np.concatenate([held, found.score])
        first = np.argsort(-both, kind="stable")[:shown]
        worst, held = np.concatenate([worst, block.images])[first], both[first]
    score = np.concatenate([each.score for each in judged])
    order = np.argsort(-score, kind="stable")
    terms = {name: np.concatenate([each.terms[name] for each in judged])[order] for name in judged[0].terms}
    p_value = np.concatenate([each.p_value for each in judged])[order]
    return Ranking(Judged(terms, score[order], p_value), [origins[i] for i in order], worst)


def write_table(path: Path, ranking: Ranking, by: str, limit: Threshold) -> None:
    """A row an image: rank, whether excluded, score, p-value, terms, provenance."""
    judged, others = ranking.judged, [name for name in PROVENANCE if name != "key"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "key", "excluded", by, "p_value", *judged.terms, "pool", *others])
        for i, line in enumerate(ranking.origins):
            origin: dict[str, Any] = json.loads(line)
            numbers = (f"{column[i]:.9g}" for column in (judged.score, judged.p_value, *judged.terms.values()))
            excluded = "yes" if judged.score[i] > limit.value else "no"
            rest = (origin.get(name, "") for name in ("pool", *others))
            writer.writerow([i + 1, origin["key"], excluded, *numbers, *rest])


def write_exclusions(path: Path, ranking: Ranking, junk: int, limit: Threshold) -> None:
    """What `train --exclude` takes."""
    lines = [
        f"# {junk} of {len(ranking.origins)} training images, the worst first; delete the lines of those to keep",
        *(f"# {sentence}" for sentence in limit.sentences().split(". ")),
    ]
    for line, score, p in zip(ranking.origins[:junk], ranking.judged.score, ranking.judged.p_value):
        lines.append(f"{json.loads(line)['key']}  # score {score:.4g}, p {p:.2g}")
    path.write_text("\n".join(lines) + "\n")
