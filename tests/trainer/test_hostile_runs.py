"""Checkpoints, calibrations and exported folders from outside: a lie is one line before it costs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from tests.support.checks import refuses
from tests.support.hostile import DEEP
from tests.trainer.test_checkpoint import CONFIG, build, edit, save, snapshot_of
from trainer.config import TrainConfig
from trainer.methods import METHODS
from trainer.run.checkpoint import write_checkpoint
from trainer.run.folder import read_excluded
from trainer.scoring import calibration
from trainer.scoring.inference import Inference


@pytest.mark.parametrize(
    "changes",
    [
        *({"width": value} for value in (10**9, 2**80, -4, 0, 4.0, "8", None, True)),
        *({"resolution": value} for value in (10**9, 2**20, 7, "8")),
        *({"method": value} for value in ("proposed2", "", 7, None, "__class__")),
        *({"gamma": value} for value in ("0", None, [0])),
        *({"seed": value} for value in (2**63, 1.5, "1")),
        *({"minibatch": value} for value in ([], {"a": 1}, 7)),
        *({"search": value} for value in ({"restarts": 10**9}, {"steps": 2**80}, {"further": 1}, [])),
        {"further": 1},
        {"method": "search", "search": {"restarts": 10**9}},
        {"method": "fanogan", "fanogan": {"width": 10**9}},
    ],
    ids=str,
)
def test_a_checkpoint_of_a_run_that_cannot_be(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = save(tmp_path)
    edit(folder, config=CONFIG.to_json() | changes)
    if changes.get("search") == {"restarts": 10**9} and "method" not in changes:
        return  # of a method that this is not
    refuses(lambda: Inference.load(str(folder), "cpu"), f"{folder}/checkpoint.json")


def test_an_unknown_method_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path)
    edit(folder, config=CONFIG.to_json() | {"method": "theirs"})
    refuses(lambda: Inference.load(str(folder), "cpu"), "--method theirs is unknown", " or ".join(METHODS))


@pytest.mark.parametrize(
    "facts",
    [
        *({"images_seen": value} for value in (-1, 2**80, 1.5, True)),
        *({"resolution": value} for value in (0, 16, 10**9, True)),
        *({"channels": value} for value in (0, 4, 10**9)),
        *({"alpha": value} for value in (-1, 2, "0.5", True, [])),
        *({"sha256": {name: "0" * 64}} for name in ("../x.safetensors", "/x.safetensors", "x", "a.b.safetensors", "")),
        {"sha256": {"ema.safetensors": 7}},
        {"versions": 7},
    ],
    ids=str,
)
def test_a_checkpoint_of_other_facts(tmp_path: Path, facts: dict[str, Any]) -> None:
    folder = save(tmp_path)
    edit(folder, **facts)
    refuses(lambda: Inference.load(str(folder), "cpu"), f"{folder}/checkpoint.json", "damaged")


def test_networks_take_no_more_room_than_a_file_holds(tmp_path: Path) -> None:
    """The widest networks that are allowed take terabytes; the file has kilobytes."""
    folder = save(tmp_path)
    edit(folder, config=dataclasses.replace(CONFIG, width=2**16).to_json())
    refuses(lambda: Inference.load(str(folder), "cpu"), "ema.safetensors", "does not fit its configuration")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_do_not_score(tmp_path: Path, value: float) -> None:
    networks = build()
    with torch.no_grad():
        next(iter(networks.encoder.parameters())).view(-1)[3] = value
    write_checkpoint(str(tmp_path), snapshot_of(networks))
    refuses(lambda: Inference.load(str(tmp_path), "cpu"), "encoder.safetensors", "NaN or infinite weights")


@pytest.mark.parametrize(
    "rows", [{"x": [-1]}, {"x": [1, 1]}, {"x": [2, 1]}, {"x": [2**80]}, {"x": ["1"]}, {"x": [True]}]
)
def test_rows_left_out_are_rows(tmp_path: Path, rows: Any) -> None:
    (tmp_path / "excluded.json").write_text(json.dumps(rows))
    refuses(lambda: read_excluded(str(tmp_path)), "excluded.json", "damaged")


# Calibrations


class _Inference:
    """What a calibration is read for."""

    joined: tuple[Any, ...] = ()
    reconstructs, resolution = True, 4


def _calibration(**changes: Any) -> bytes:
    whole = {
        "samples": np.array([5, 0, 3]),
        "heat.middle": np.zeros((4, 4), np.float32),
        "heat.spread": np.ones((4, 4), np.float32),
    }
    tensors = {name: value for name, value in (whole | changes).items() if value is not None}
    return safetensors.numpy.save(tensors, {"checkpoint": "d", "heat": calibration.HEAT})


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": np.array([-1, 0, 3])},
        {"samples": np.array([3, 0, 3])},
        {"samples": np.zeros(0, np.int64)},
        {"samples": np.array([0.0, 1.0])},
        {"samples": np.zeros((3, 1), np.int64)},
        {"samples": None},
        {"heat.middle": np.full((4, 4), np.nan, np.float32)},
        {"heat.middle": np.zeros((4, 5), np.float32)},
        {"heat.middle": np.zeros(4, np.float32)},
        {"heat.spread": np.zeros((4, 4), np.float32)},
        {"heat.spread": np.full((4, 4), np.inf, np.float32)},
        {"heat.spread": np.ones((4, 4), np.int32)},
        {"heat.spread": None},
    ],
    ids=str,
)
def test_a_calibration_of_hostile_numbers(changes: dict[str, Any]) -> None:
    inference: Any = _Inference()
    assert len(calibration._read(_calibration(), "RUN/c.safetensors", "d", inference).samples) == 3
    content = _calibration(**changes)
    refuses(lambda: calibration._read(content, "RUN/c.safetensors", "d", inference), "RUN/c.safetensors", "delete c.")


# Exported folders


def folder_of(place: Path, **changes: Any) -> Path:
    place.mkdir()
    facts = {"format": "torch", "resolution": 4, "channels": 1, "by": "fused", "weights": {}, "threshold": 1.0}
    facts |= {"terms": {"A": "x"}, "heat": False, "meaning": "", **changes}
    (place / "detector.json").write_text(json.dumps(facts))
    np.savez(place / "calibration.npz", score=np.arange(3.0), A=np.arange(3.0))
    shape = {"images": {0: torch.export.Dim("images", min=1)}}
    program = torch.export.export(_Model(), (torch.zeros(2, 4, 4, 1),), dynamic_shapes=shape)
    torch.export.save(program, place / "model.pt2")
    return place


class _Model(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (images.mean((1, 2, 3)),)


def is_refused(action: Callable[[], object], *words: str) -> None:
    with pytest.raises(ValueError) as caught:
        action()
    assert "\n" not in str(caught.value) and " - " in str(caught.value), caught.value
    assert all(word in str(caught.value) for word in words), caught.value


def test_an_exported_folder_that_is_none(tmp_path: Path) -> None:
    from trainer.export.standalone import Detector

    images = np.zeros((3, 4, 4, 1), np.uint8)
    good = folder_of(tmp_path / "good")
    assert len(Detector(good).score(images)["score"]) == 3
    sha256 = hashlib.sha256((good / "model.pt2").read_bytes()).hexdigest()
    assert len(Detector(folder_of(tmp_path / "sha", sha256=sha256)).score(images)["score"]) == 3
    for number, facts in enumerate(
        ({"resolution": 10**9}, {"channels": "1"}, {"threshold": float("nan")}, {"terms": 7}, {"by": "a"}, {"heat": 1})
    ):
        place = folder_of(tmp_path / f"facts-{number}", **facts)
        is_refused(lambda place=place: Detector(place), "detector.json", "damaged")
    is_refused(lambda: Detector(folder_of(tmp_path / "mixed", sha256="0" * 64)), "model.pt2", "another model")
    for number, facts in enumerate(({"heat": True}, {"resolution": 8}, {"channels": 3})):
        detector = Detector(folder_of(tmp_path / f"other-{number}", **facts))
        side, channels = detector.facts["resolution"], detector.facts["channels"]
        blank = np.zeros((3, side, side, channels), np.uint8)
        is_refused(lambda detector=detector, blank=blank: detector.score(blank), "is not the one of detector.json")
    for name, content in (("calibration.npz", b"PK"), ("model.pt2", b"junk"), ("detector.json", DEEP.encode())):
        place = folder_of(tmp_path / f"junk-{name}")
        (place / name).write_bytes(content)
        is_refused(lambda place=place: Detector(place), name, "damaged")
        (place / name).unlink()
        is_refused(lambda place=place: Detector(place), name, "missing")
    for number, columns in enumerate(
        (
            {"A": np.arange(2.0)},
            {"A": np.array([0, np.nan, 1])},
            {"A": np.zeros((3, 1))},
            {"A": np.array(["a"] * 3)},
            {},
        )
    ):
        place = folder_of(tmp_path / f"npz-{number}")
        np.savez(place / "calibration.npz", score=np.arange(3.0), **columns)  # type: ignore[arg-type]
        is_refused(lambda place=place: Detector(place), "calibration.npz", "damaged")


def test_configurations_come_back_as_they_were() -> None:
    config = dataclasses.replace(TrainConfig(), gamma=0.5, seed=2**62, workers="1:4")
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
