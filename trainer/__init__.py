"""One training run: networks, growth, losses, the loop, the detector and its evaluation.

from trainer import Detector, preset, train

train(preset("cells-small", data="data/mine", out="runs/mine"))
scored = Detector.load("runs/mine").score(images)  # uint8, N x H x W x C
scored.score, scored.p_value, scored.terms["L_n"]
scored.frame()  # the same as a pandas.DataFrame
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.commands.train import train
    from trainer.config import TrainConfig
    from trainer.presets import preset
    from trainer.scoring.criterion import Criterion
    from trainer.scoring.detector import Detector
    from trainer.scoring.judge import Scored

__all__ = ["Criterion", "Detector", "Scored", "TrainConfig", "preset", "train"]

_PLACES = {
    "Criterion": "trainer.scoring.criterion",
    "Detector": "trainer.scoring.detector",
    "Scored": "trainer.scoring.judge",
    "TrainConfig": "trainer.config",
    "preset": "trainer.presets",
    "train": "trainer.commands.train",
}


def __getattr__(name: str) -> Any:
    """What is asked for is imported then: the command line should not wait for torch."""
    if name not in _PLACES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
