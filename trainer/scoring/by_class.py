"""AUCs by the class of the anomalies: those of classes that were among the training images apart from unseen ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from data_tools.dataset.contamination import class_of, planted_classes
from trainer.config import TrainConfig

PLANTED, UNSEEN = "planted", "unseen"


@dataclass(frozen=True)
class Kind:
    """Some anomalies against all normal images. note: what they are to the training."""

    name: str
    images: int
    auc: float
    note: str = ""


def auc_by_class(
    score: np.ndarray, labels: np.ndarray, provenance: Sequence[Mapping[str, Any]], config: TrainConfig
) -> list[Kind]:
    """A row a class of anomalies, the hardest first; empty where all are of one class.

    score: N, greater = more anomalous; labels: N, True = anomalous.
    """
    classes, planted = _classes(provenance), _planted(config)
    names = sorted({*classes[labels]})
    notes = {name: (PLANTED if name in planted else UNSEEN) if planted else "" for name in names}
    rows = [_kind(name, classes == name, score, labels, notes[name]) for name in names]
    return sorted(rows, key=lambda row: row.auc) if len(rows) > 1 else []


def auc_by_planted(
    score: np.ndarray, labels: np.ndarray, provenance: Sequence[Mapping[str, Any]], config: TrainConfig
) -> list[Kind]:
    """A row for the classes that --planted named, and one for all others; empty where the run names none."""
    if not (planted := _planted(config)):
        return []
    among = np.isin(_classes(provenance), planted)
    parts = {PLANTED: (among, "classes that training images hold"), UNSEEN: (~among, "classes that they do not hold")}
    return [_kind(name, part, score, labels, note) for name, (part, note) in parts.items() if (part & labels).any()]


def _planted(config: TrainConfig) -> list[str]:
    return list(planted_classes(config.planted)) if config.gamma else []


def _classes(provenance: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.array([class_of(origin) for origin in provenance], dtype=object)


def _kind(name: str, chosen: np.ndarray, score: np.ndarray, labels: np.ndarray, note: str) -> Kind:
    chosen = chosen & labels
    both = chosen | ~labels
    return Kind(name, int(chosen.sum()), float(roc_auc_score(labels[both], score[both])), note)
