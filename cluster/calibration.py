"""The calibration of a run made once, by one worker of the cluster, before many processes want it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trainer.methods import method_of
from trainer.on_ray.session import on_a_worker
from trainer.run.checkpoint import read_info
from trainer.scoring.criterion import Criterion

if TYPE_CHECKING:
    from trainer.scoring.calibration import Calibration


class Calibrated(NamedTuple):
    """What the threshold means, for a person, or nothing; and the calibration, None where a criterion needs none."""

    meaning: str
    calibration: Calibration | None


def calibrated_once(checkpoint: str, criterion: Criterion, data: str = "") -> Calibrated:
    """Calibrate a checkpoint where nobody has.

    Within a `ray_session`. data: where the run's dataset lies now. UserError as of `Detector.load`.
    """
    criterion.check_fits(method_of(read_info(checkpoint).config))
    return Calibrated("", None) if criterion.is_plain else on_a_worker(_calibrated, checkpoint, criterion, data)


def _calibrated(checkpoint: str, criterion: Criterion, data: str) -> Calibrated:
    from trainer.scoring.detector import Detector

    detector = Detector.load(checkpoint, criterion, data=data)
    return Calibrated(detector.meaning, detector.calibration)
