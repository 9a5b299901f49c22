"""The calibration of a run made once, by one worker of the cluster, before many processes want it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trainer.on_ray.session import on_a_worker
from trainer.scoring.criterion import Criterion

if TYPE_CHECKING:
    from trainer.scoring.loading import Learned


class Calibrated(NamedTuple):
    """What the threshold means, for a person, or nothing; and what the training images said."""

    meaning: str
    learned: Learned


def calibrated_once(checkpoints: str, criterion: Criterion, data: str = "") -> Calibrated:
    """Calibrate checkpoints, separated by commas, where nobody has.

    Within a `ray_session`. data: where the runs' dataset lies now. UserError as of `Detector.load`.
    """
    from trainer.scoring.loading import Learned, check_fits, runs_in

    check_fits(checkpoints, criterion)
    if criterion.is_plain and len(runs_in(checkpoints)) == 1:
        return Calibrated("", Learned((None,)))
    return on_a_worker(_calibrated, checkpoints, criterion, data)


def _calibrated(checkpoints: str, criterion: Criterion, data: str) -> Calibrated:
    from trainer.scoring.loading import learned_by, load_detector

    detector = load_detector(checkpoints, criterion, data=data)
    return Calibrated(detector.meaning, learned_by(detector))
