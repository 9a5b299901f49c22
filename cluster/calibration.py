"""The calibration of a run made once, by one worker of the cluster, before many processes want it."""

from __future__ import annotations

from trainer.methods import method_of
from trainer.on_ray.session import on_a_worker
from trainer.run.checkpoint import read_info
from trainer.scoring.criterion import Criterion


def calibrated_once(checkpoint: str, criterion: Criterion, data: str = "") -> str:
    """Calibrate a checkpoint where nobody has; returns what the threshold means, for a person, or nothing.

    Within a `ray_session`. data: where the run's dataset lies now. UserError as of `Detector.load`.
    """
    criterion.check_fits(method_of(read_info(checkpoint).config))
    return "" if criterion.is_plain else on_a_worker(_meaning, checkpoint, criterion, data)


def _meaning(checkpoint: str, criterion: Criterion, data: str) -> str:
    from trainer.scoring.detector import Detector

    return Detector.load(checkpoint, criterion, data=data).meaning
