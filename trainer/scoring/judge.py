"""What follows from scores: p-values, thresholds, verdicts, heat as shares; of one run or of several as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from data_tools.errors import UserError
from trainer.scoring.criterion import AUTO, Criterion
from trainer.scoring.heat import strength
from trainer.scoring.junk_share import JunkShare, junk_share
from trainer.scoring.thresholds import Kind, Threshold, threshold

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Scored:
    """Of N images: one score, the greater the more anomalous, float64 N; every term by name, float64 N each.

    p_value: the share of training images that score as high; anomalous: verdicts, bool N. None where there is no
    calibration, or no threshold. heat: as of `heat`, where it was asked for.
    """

    score: np.ndarray
    terms: dict[str, np.ndarray]
    p_value: np.ndarray | None = None
    anomalous: np.ndarray | None = None
    heat: np.ndarray | None = None

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """What tables show behind the score."""
        return self.terms if self.p_value is None else {"p_value": self.p_value, **self.terms}

    def frame(self, index: Sequence[object] | None = None) -> pandas.DataFrame:
        """A row per image: score, p_value, terms, anomalous, as far as they are there; index: names of the images."""
        import pandas

        columns = {"score": self.score, **self.columns}
        columns |= {} if self.anomalous is None else {"anomalous": self.anomalous}
        return pandas.DataFrame(columns, index=None if index is None else pandas.Index(index))


class Judge:
    """What follows from a criterion and from the scores of training images, whatever gave these."""

    criterion: Criterion
    known: np.ndarray
    made: Mapping[str, np.ndarray]
    """Scores of synthetic anomalies made from training images, by kind."""

    @property
    def threshold_note(self) -> str:
        """What is called anomalous, in a few words."""
        if self.above is None:
            return "no threshold"
        asked = self.criterion
        shares = {"false alarms": asked.false_alarms, "contamination": asked.contamination}
        said = [f" ({name} {share})" for name, share in shares.items() if share is not None]
        return f"anomalous above {self.above:.4g}{said[0] if said else ''}"

    def heat(self, images: np.ndarray) -> np.ndarray:
        """Where: float32 N x H x W in units of what is usual at each pixel."""
        raise NotImplementedError

    def check_reconstructs(self) -> None:
        """UserError where nothing makes closest matches, and so no heat maps."""
        raise NotImplementedError

    @property
    def calibrates(self) -> bool:
        """Whether heat is in units of what is usual."""
        return True

    def threshold(self, kind: Kind, share: float, judged: int = 1000) -> Threshold:
        """The threshold on this score; see `thresholds.threshold`."""
        return threshold(self.known, kind, share, judged)

    @cached_property
    def limit(self) -> Threshold | None:
        """The threshold that the criterion derives from the training images; None where it asks for none."""
        asked = self.criterion
        if asked.false_alarms is not None:
            return self.threshold("false-alarms", asked.false_alarms)
        if asked.contamination != AUTO:
            return None if asked.contamination is None else self.threshold("contamination", asked.contamination)
        if self.junk.expected is None:
            raise UserError(f"--contamination auto: {self.junk.sentence()[:-1]} - give a number, e.g. 0.02")
        return self.threshold("contamination", self.junk.expected)

    @cached_property
    def junk(self) -> JunkShare:
        """How much of the training images is junk, as far as the score can tell."""
        return junk_share(self.known, self.made)

    @property
    def above(self) -> float | None:
        """The score above which an image is called anomalous; None without a threshold."""
        return self.limit.value if self.limit else self.criterion.threshold

    @property
    def meaning(self) -> str:
        """What the threshold means, for a person; empty where the user chose it, or where there is none."""
        result = [self.junk.sentence()] if self.criterion.contamination == AUTO else []
        return " ".join([*result, self.limit.sentences()]) if self.limit else ""

    def shares(self, heat: np.ndarray) -> np.ndarray:
        """Heat as shares of the fullest colour: 0 is usual there, 1 is as rare as colour shows."""
        return strength(heat)

    def verdicts(self, score: np.ndarray, terms: dict[str, np.ndarray], p_value: np.ndarray | None = None) -> Scored:
        """Scores with what they mean for the criterion."""
        return Scored(score, terms, p_value, None if self.above is None else score > self.above)
