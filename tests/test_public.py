"""What Python users import, and the example of the README."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import trainer
from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from trainer import Criterion, Detector, Scored, TrainConfig, train
from trainer.run.folder import read_config

ROOT = Path(__file__).resolve().parents[1]


def test_importing_trainer_costs_nothing_until_something_is_asked_for() -> None:
    heavy = "('torch', 'numpy', 'ray', 'tyro')"
    script = f"import sys, trainer; assert not [name for name in {heavy} if name in sys.modules]; trainer.Detector"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    with pytest.raises(AttributeError, match="'trainer' has no attribute 'Judge'"):
        _ = trainer.Judge
    assert all(hasattr(trainer, name) for name in trainer.__all__)


def test_a_detector_in_python(scored: Path, dataset: Path) -> None:
    images = open_dataset(str(dataset), open_cache(dataset.parent / "cache")).images("test-anomaly")
    detector = Detector.load(str(scored), Criterion(false_alarms=0.05), cache=str(dataset.parent / "cache"))
    found = detector.score(images)
    assert isinstance(found, Scored) and found.p_value is not None and found.anomalous is not None
    assert found.score.shape == found.p_value.shape == found.anomalous.shape == found.terms["L_n"].shape == (12,)
    assert np.array_equal(found.anomalous, found.score > detector.above) and "false alarms" in detector.meaning
    assert detector.heat(images).shape == images.shape[:3]


def test_a_training_in_python(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, _ = read_config(run)
    assert isinstance(config, TrainConfig)
    train(config)
    assert "is finished" in capsys.readouterr().out
