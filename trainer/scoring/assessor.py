"""How commands that score judge images: by which score, and above what an image is anomalous."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_tools.dataset.cache import DEFAULT_LIMIT
from trainer.report.overlay import strength
from trainer.run.checkpoint import chosen_checkpoint
from trainer.scoring.criterion import Criterion
from trainer.scoring.inference import AnomalyDetector
from trainer.scoring.judge import Judge, asked_threshold
from trainer.scoring.terms import TERMS

PLAIN = ("L_n", "L_o", "L_r")


@dataclass(frozen=True)
class Assessed:
    """Of N images: scores, the greater the more anomalous; p_value and terms by name; verdicts where a threshold is."""

    score: np.ndarray
    columns: dict[str, np.ndarray]
    anomalous: np.ndarray | None


@dataclass(frozen=True)
class Assessor:
    """A detector that judges by a criterion.

    judge: what the training images say; None where the criterion is plain, whose columns are then L_n, L_o and L_r.
    above: the threshold, None without one; meaning: what it means, for a person; empty where the user chose it.
    """

    criterion: Criterion
    detector: AnomalyDetector
    judge: Judge | None
    above: float | None
    meaning: str

    @staticmethod
    def load(
        run: str, criterion: Criterion, best: bool = False, cache: str = "", cache_limit: str = DEFAULT_LIMIT
    ) -> Assessor:
        """Of a run's newest or best checkpoint, or of one checkpoint, by its URL.

        The first time this may read the run's training images; see `Judge.load`.
        """
        criterion.check()
        if criterion.is_plain:
            detector = AnomalyDetector.load(chosen_checkpoint(run, best))
            return Assessor(criterion, detector, None, criterion.threshold, "")
        judge = Judge.load(run, best, cache, cache_limit, criterion.by, criterion.lam)
        asked = asked_threshold(judge, criterion.false_alarms, criterion.contamination)
        if asked:
            return Assessor(criterion, judge.detector, judge, asked.value, asked.sentences())
        return Assessor(criterion, judge.detector, judge, criterion.threshold, "")

    def assessed(self, images: np.ndarray) -> Assessed:
        """images: uint8, N x H x W x C."""
        if self.judge:
            judged = self.judge.judged(images)
            score, columns = judged.score, {"p_value": judged.p_value, **judged.terms}
        else:
            scores = self.detector.score(images)
            score, columns = scores.anomaly(self.criterion.lam), {name: getattr(scores, name) for name in PLAIN}
        return Assessed(score, columns, None if self.above is None else score > self.above)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of `Assessed.columns`, in their order."""
        return ("p_value", *TERMS) if self.judge else PLAIN

    def heat(self, images: np.ndarray) -> np.ndarray:
        """Where, float N x H x W in [0, 1]: 0 is usual there, 1 is as rare as colour shows.

        A plain criterion's is |w(Q) - w(R)|, of the detector's size.
        """
        return strength(self.judge.heat(images)) if self.judge else self.detector.heatmap(images)
