"""Evaluation: the score table and the AUCs that follow from it; lambda is arithmetic on the table."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from data_tools.dataset.reader import Dataset
from data_tools.errors import UserError
from data_tools.text import CsvWriter
from trainer.scoring.comparison import compared
from trainer.scoring.detector import Detector
from trainer.scoring.inference import Inference, Values
from trainer.scoring.join import FUSED, PAPER_LAMBDA, has_a, lambda_grid
from trainer.scoring.terms.base import Compared, Term

PROVENANCE = ("key", "source", "sequence", "frame", "object", "track", "angle", "event", "class")
"""Where an image comes from, as far as our sources say it; what another source says comes behind."""


def provenance_columns(origins: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of all that is known of these images' origins, in the order of tables."""
    return tuple(dict.fromkeys(itertools.chain(PROVENANCE, itertools.chain.from_iterable(origins))))


def heading(name: str) -> str:
    """What a table calls something known of an image's origin: a source's own label is not ours."""
    return "source_label" if name == "label" else name


@dataclass(frozen=True)
class ScoreTable:
    """Scores of the test pools with labels (True = anomalous) and provenance, one row an image.

    scores: `fused`, where the training images were at hand, and the method's terms. plain: what one number of the
    image does; a detector should beat these.
    """

    scores: Values
    labels: np.ndarray
    plain: dict[str, np.ndarray]
    provenance: list[dict[str, Any]]

    def write_csv(self, path: Path) -> None:
        """One row an image: label, every term, a at the paper's lambda, the plain statistics, provenance."""
        a = {f"a_{PAPER_LAMBDA}": self.scores.anomaly()} if has_a(self.scores.terms) else {}
        columns = self.scores.terms | a | self.plain
        known = provenance_columns(self.provenance)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = CsvWriter(file)
            writer.writerow(["label", *columns, *map(heading, known)])
            for i, origin in enumerate(self.provenance):
                label = "anomaly" if self.labels[i] else "normal"
                numbers = (repr(float(column[i])) for column in columns.values())  # digits enough to be read back
                writer.writerow([label, *numbers, *(origin.get(k, "") for k in known)])


def test_images(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """All test images (uint8 N x H x W x C) and their labels (True = anomalous)."""
    normal, anomaly = dataset.images("test-normal"), dataset.images("test-anomaly")
    return np.concatenate([normal, anomaly]), np.arange(len(normal) + len(anomaly)) >= len(normal)


def has_labels(dataset: Dataset) -> bool:
    """Whether the dataset can give an AUC: it has test images of both kinds."""
    return dataset.count("test-normal") > 0 and dataset.count("test-anomaly") > 0


def check_fits(inference: Inference, dataset: Dataset, url: str) -> None:
    """UserError when the detector cannot score this dataset's images."""
    if dataset.channels != inference.channels or dataset.resolution < inference.resolution:
        raise UserError(
            f"--data {url}: images of {dataset.resolution}x{dataset.resolution}x{dataset.channels} for a detector of "
            f"{inference.resolution}x{inference.resolution}x{inference.channels} - give the dataset it was trained on"
        )


def score_table(
    inference: Inference, dataset: Dataset, terms: Sequence[Term] | None = None, detector: Detector | None = None
) -> ScoreTable:
    """Score the dataset's test pools by some terms (default: all that need no training images).

    detector: with these networks and a calibration, by which all terms and `fused` are there.
    """
    images, labels = test_images(dataset)
    flat = images.reshape(len(images), -1)
    plain = {"minus_std": -flat.std(axis=1, dtype=np.float64), "minus_max": -flat.max(axis=1).astype(np.float64)}
    provenance = dataset.provenance("test-normal") + dataset.provenance("test-anomaly")
    if detector and detector.calibration:
        values = inference.values(images)
        by = {term.name for term in detector.joined}
        there = [term for term in inference.terms if term.name in by or not isinstance(term, Compared)]
        known = compared(there, values, detector.calibration.kept)
        scores = Values({FUSED: detector.score_of(known), **known}, {}, values.z_hat)
        return ScoreTable(scores, labels, plain, provenance)
    wanted = [term for term in inference.terms if not isinstance(term, Compared)] if terms is None else terms
    return ScoreTable(inference.values(images, wanted), labels, plain, provenance)


def auc(labels: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve; labels True = anomalous, greater score = more anomalous."""
    return float(roc_auc_score(labels, score))


def lambda_curve(scores: Values, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The grid and the AUC of a at each of its values."""
    grid = lambda_grid()
    return grid, np.array([auc(labels, scores.anomaly(lam)) for lam in grid])


def summary(scores: Values, labels: np.ndarray) -> dict[str, float]:
    """AUC of each term; of a, where there is one, at lambda 0.05 and at the best lambda.

    The best lambda is chosen on these very labels: an upper bound for a, not a result one could have had beforehand.
    """
    result = {name: auc(labels, column) for name, column in scores.terms.items()}
    if has_a(scores.terms):
        grid, aucs = lambda_curve(scores, labels)
        best = int(aucs.argmax())
        result |= {
            "a_paper": auc(labels, scores.anomaly()),
            "a_best": float(aucs[best]),
            "best_lambda": float(grid[best]),
        }
    return result
