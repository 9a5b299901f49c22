"""Which of a run's own training images are junk: all of them ranked, as a table and as a list to train without."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.dataset.cache import Cache
from data_tools.dataset.exclusion import written_key
from data_tools.dataset.training_set import BLOCK, all_images
from data_tools.progress import progress
from data_tools.text import CsvWriter
from trainer.run.folder import read_config, read_excluded, run_dataset, run_images
from trainer.scoring.detector import Detector
from trainer.scoring.ensemble import Ensemble
from trainer.scoring.evaluation import provenance_columns
from trainer.scoring.judge import Scored


@dataclass(frozen=True)
class Ranking:
    """All n training images, the most anomalous first.

    scored: terms, scores, p-values and verdicts; origins: pool, key and provenance of each as a line of JSON; worst:
    the first images themselves, uint8 K x H x W x C; samples: which of the training set each is, int64 n.
    """

    scored: Scored
    origins: list[str]
    worst: np.ndarray
    samples: np.ndarray

    @property
    def excluded(self) -> np.ndarray:
        """Which are above the threshold, bool n."""
        assert self.scored.anomalous is not None
        return self.scored.anomalous


def ranked(run: str, detector: Detector | Ensemble, cache: Cache, shown: int, data: str = "") -> Ranking:
    """One pass over a run's training images; of the images themselves only the `shown` worst so far are held.

    data: where the run's dataset lies now.
    """
    config, _ = read_config(run)
    dataset = run_dataset(run, data, cache)
    count = len(run_images(run, config, dataset))
    parts: list[Scored] = []
    origins: list[str] = []
    worst = dataset.decoded(())
    held = np.zeros(0)  # their scores
    blocks = all_images(dataset, config.gamma, config.seed, config.window, read_excluded(run), config.planted)
    for block in progress(blocks, "auditing", "blocks", -(-count // BLOCK)):
        scored = detector.score(block.images, np.arange(len(origins), len(origins) + len(block.images)))
        parts.append(scored)
        origins += [json.dumps(origin) for origin in block.origins]
        both = np.concatenate([held, scored.score])
        first = np.argsort(-both, kind="stable")[:shown]
        worst, held = np.concatenate([worst, block.images])[first], both[first]
    order = np.argsort(-np.concatenate([each.score for each in parts]), kind="stable")
    return Ranking(_in_order(parts, order), [origins[i] for i in order], worst, order)


def _in_order(parts: list[Scored], order: np.ndarray) -> Scored:
    def joined(columns: Iterable[np.ndarray | None]) -> np.ndarray:
        return np.concatenate([column for column in columns if column is not None])[order]

    terms = {name: joined(each.terms[name] for each in parts) for name in parts[0].terms}
    score, p_value = joined(each.score for each in parts), joined(each.p_value for each in parts)
    return Scored(score, terms, p_value, joined(each.anomalous for each in parts))


def write_table(path: Path, ranking: Ranking, by: str) -> None:
    """A row an image: rank, whether excluded, score, p-value, terms, provenance."""
    scored = ranking.scored
    known = provenance_columns(json.loads(line) for line in ranking.origins)  # one at a time: they may be millions
    others = [name for name in known if name not in ("key", "pool")]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = CsvWriter(file)
        writer.writerow(["rank", "key", "excluded", by, *scored.columns, "pool", *others])
        for i, line in enumerate(ranking.origins):
            origin = json.loads(line)
            numbers = (f"{column[i]:.9g}" for column in (scored.score, *scored.columns.values()))
            rest = (origin.get(name, "") for name in ("pool", *others))
            writer.writerow([i + 1, origin["key"], "yes" if ranking.excluded[i] else "no", *numbers, *rest])


def write_exclusions(path: Path, ranking: Ranking, junk: int, meaning: str) -> None:
    """What `train --exclude` takes."""
    lines = [
        f"# {junk} of {len(ranking.origins)} training images, the worst first; delete the lines of those to keep",
        *(f"# {sentence}" for sentence in meaning.split(". ")),
    ]
    assert ranking.scored.p_value is not None
    for line, score, p in zip(ranking.origins[:junk], ranking.scored.score, ranking.scored.p_value):
        lines.append(f"{written_key(json.loads(line)['key'])}  # score {score:.4g}, p {p:.2g}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
