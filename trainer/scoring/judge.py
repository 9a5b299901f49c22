"""The detector of people who have no labels: terms, one score, p-values, heat maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_tools.dataset.cache import DEFAULT_LIMIT
from data_tools.errors import UserError
from trainer.run.checkpoint import chosen_checkpoint, read_info
from trainer.scoring.calibration import HEAT, Calibration, calibration_of
from trainer.scoring.heat import full_size, heat_maps
from trainer.scoring.inference import PAPER_LAMBDA, AnomalyDetector
from trainer.scoring.p_values import p_values
from trainer.scoring.terms import TERMS, direction_distances, fused
from trainer.scoring.thresholds import Kind, Threshold, threshold

SCORES = ("fused", "a", *TERMS)
"""What an image may be judged by: all terms together, the paper's a(Q), or one term."""


def check_score(by: str, lam: float) -> None:
    """UserError for a score that is none of SCORES, and for a lambda outside [0, 1]."""
    if by not in SCORES:
        raise UserError(f"--by {by} is unknown - give one of {', '.join(SCORES)}")
    if not 0 <= lam <= 1:
        raise UserError(f"--lambda {lam} is outside [0, 1] - give e.g. 0.05")


@dataclass(frozen=True)
class Judged:
    """Of N images: every term (float64 N each), their one score, the greater the more anomalous, and its p-value."""

    terms: dict[str, np.ndarray]
    score: np.ndarray
    p_value: np.ndarray


@dataclass(frozen=True)
class Judge:
    """A detector and what the training images say of it.

    by: one of SCORES; lam: lambda of a. Both may be changed at any time by `dataclasses.replace`: the networks do not
    know of them.
    """

    detector: AnomalyDetector
    calibration: Calibration
    by: str = "fused"
    lam: float = PAPER_LAMBDA

    def __post_init__(self) -> None:
        check_score(self.by, self.lam)

    @staticmethod
    def load(
        run: str,
        best: bool = False,
        cache: str = "",
        cache_limit: str = DEFAULT_LIMIT,
        by: str = "fused",
        lam: float = PAPER_LAMBDA,
    ) -> Judge:
        """Of a run's newest or best checkpoint, or of one checkpoint, by its URL.

        The first time this reads the run's training images, and keeps what they say in RUN/calibration.
        """
        info = read_info(chosen_checkpoint(run, best))
        detector = AnomalyDetector.from_checkpoint(info, with_critic=True)
        return Judge(detector, calibration_of(info, detector, cache, cache_limit), by, lam)

    @cached_property
    def known(self) -> np.ndarray:
        """The calibrating training images' scores, n."""
        return self.score_of(self.calibration.terms, np.full(len(self.calibration.samples), True))

    def score_of(self, terms: Mapping[str, np.ndarray], is_known: np.ndarray | None = None) -> np.ndarray:
        """One score from terms, N; is_known (bool N): those of an image that is in the calibration."""
        if self.by == "fused":
            return fused(terms, self.calibration.terms, is_known)
        if self.by == "a":
            return self.lam * terms["L_n"] + (1 - self.lam) * terms["L_o"]
        return terms[self.by]

    def judged(self, images: np.ndarray, samples: np.ndarray | None = None) -> Judged:
        """images: uint8, N x H x W x C.

        samples: where these are the training set's own images, which (int64 N): an image is no neighbour of its own,
        and does not count among those that score as high as it does. What the calibration knows is not computed again.
        """
        rows = np.full(len(images), -1) if samples is None else self.calibration.rows_of(samples)
        known = rows >= 0
        terms = {name: column[rows] for name, column in self.calibration.terms.items()}
        if not known.all() or not len(rows):
            for name, column in self._computed(images[~known]).items():
                terms[name][~known] = column
        score = self.score_of(terms, known)
        return Judged(terms, score, p_values(score, self.known, known))

    def _computed(self, images: np.ndarray) -> dict[str, np.ndarray]:
        scores = self.detector.score(images, with_A=False)
        assert scores.z_hat is not None
        columns = scores.columns()
        columns["L_k"] = direction_distances(scores.z_hat, self.calibration.directions)
        return {name: columns[name] for name in TERMS}

    def threshold(self, kind: Kind, share: float, judged: int = 1000) -> Threshold:
        """The threshold on this score; see `thresholds.threshold`."""
        return threshold(self.known, kind, share, judged)

    def heat(self, images: np.ndarray) -> np.ndarray:
        """Where: float32 N x H x W in units of what is usual at each pixel; 0 is usual, 3 is rare."""
        maps = self.calibration.heat.applied(heat_maps(self.detector, images, HEAT))
        return full_size(maps.astype(np.float32), images.shape[1])


def asked_threshold(
    judge: Judge, false_alarms: float | None, contamination: float | None, judged: int = 1000
) -> Threshold | None:
    """The threshold of whichever option is given, None where neither is; UserError where both are."""
    if false_alarms is not None and contamination is not None:
        raise UserError("--false-alarms and --contamination exclude one another - give one")
    if false_alarms is not None:
        return judge.threshold("false-alarms", false_alarms, judged)
    return None if contamination is None else judge.threshold("contamination", contamination, judged)
