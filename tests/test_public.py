"""What Python users import, and the example of the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import trainer
from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from trainer import Criterion, Detector, Scored, TrainConfig, train
from trainer.presets import PRESETS
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


def test_results_are_a_data_frame_too(scored: Path, dataset: Path) -> None:
    images = open_dataset(str(dataset), open_cache(dataset.parent / "cache")).images("test-anomaly")
    detector = Detector.load(str(scored), Criterion(false_alarms=0.05), cache=str(dataset.parent / "cache"))
    found, names = detector.score(images), [f"image {i}" for i in range(len(images))]
    frame = found.frame(names)
    assert list(frame.columns) == ["score", *detector.columns, "anomalous"] and list(frame.index) == names
    assert np.array_equal(frame["L_n"], found.terms["L_n"]) and frame["anomalous"].dtype == bool
    assert next(iter(Detector.load(str(scored), Criterion("L_n")).score(images).frame())) == "score"


def test_a_detector_says_what_it_is(scored: Path, dataset: Path) -> None:
    detector = Detector.load(str(scored), Criterion(false_alarms=0.05), cache=str(dataset.parent / "cache"))
    assert re.fullmatch(
        r"<Detector: proposed, images of 8x8x1, score fused of \w+( \+ \w+)*, calibrated on \d+ training images,"
        r" anomalous above [\d.e+-]+ \(false alarms 0\.05\)>",
        repr(detector),
    )
    plain = Detector.load(str(scored), Criterion("a"))
    assert repr(plain) == "<Detector: proposed, images of 8x8x1, score a, no threshold>"


def test_the_example_of_the_readme_runs(
    scored: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = read_config(scored)
    monkeypatch.setitem(PRESETS, "cells-small", lambda: config)
    (example,) = re.findall(r"```python\n(from trainer import .*?)```", (ROOT / "trainer/README.md").read_text(), re.S)
    example = example.replace("data/mine", str(dataset)).replace("runs/mine", str(scored))
    images = open_dataset(str(dataset), open_cache(dataset.parent / "cache")).images("test-normal")
    exec(compile(example, "trainer/README.md", "exec"), {"images": images})
    said = capsys.readouterr().out
    assert "is finished" in said and "<Detector: " in said and "false alarms" in said


def test_a_training_in_python(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, _ = read_config(run)
    assert isinstance(config, TrainConfig)
    train(config)
    assert "is finished" in capsys.readouterr().out
