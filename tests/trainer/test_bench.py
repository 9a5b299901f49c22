"""`trainer bench`: what it says of a training run's steps, and that it is the code that trains."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from data_tools.errors import UserError
from trainer.__main__ import main as trainer
from trainer.training.timing import PARTS

SMALL = shlex.split(
    "bench --preset demo --resolution 8 --width 8 --minibatch.4 16 --minibatch.8 16 --seconds 0.1 --precision float32"
)


def measured(tmp_path: Path, *more: str) -> dict[str, Any]:
    trainer([*SMALL, *more, "--json", str(tmp_path / "figures.json")])
    return json.loads((tmp_path / "figures.json").read_text())


@pytest.mark.slow
def test_every_phase_is_measured_and_compared(tmp_path: Path, dataset: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = measured(tmp_path, "--data", str(dataset), "--cache", str(dataset.parent / "cache"))
    assert [row["phase"] for row in whole["phases"]] == ["4x4 stable", "8x8 fade", "8x8 stable"]
    for row in whole["phases"]:
        assert set(row["shares"]) <= set(PARTS) and abs(sum(row["shares"].values()) - 1) < 1e-9
        assert all(share >= 0 for share in row["shares"].values())
        assert abs(row["images_per_sec"] * row["sec_per_kimg"] - 1000) < 1e-6
        assert row["gflops"] == pytest.approx(row["gflop_per_image"] * row["images_per_sec"], rel=1e-9)
        assert row["memory_mib"] > 100 and row["busy"] is None
    assert whole["machine"]["data"] == "from the cache" and whole["machine"]["peak_gflops"] > 1
    (tmp_path / "before.json").write_text(json.dumps(whole))
    capfd.readouterr()
    less = measured(tmp_path, "--only", "8", "--microbatch", "8", "--against", str(tmp_path / "before.json"))
    said = capfd.readouterr().out
    assert "differs: microbatch: 0 then, 8 now" in said and "Now against then" in said
    assert [row["phase"] for row in less["phases"]] == ["8x8 fade", "8x8 stable"]
    for row, before in zip(less["phases"], whole["phases"][1:]):
        assert row["gflop_per_image"] == pytest.approx(before["gflop_per_image"], rel=0.02), "weights are scaled twice"


@pytest.mark.slow
def test_operations_counted_are_those_of_the_layers(tmp_path: Path) -> None:
    """At 4x4 all products of an image can be written down, multiply and add as two.

    Generator: 1 fake for the critic, 2 forward and 2 x 2 backward; the latents need no gradient. Critic: real and
    fake 2 + 2 x 2, their images need none; penalty 1 forward, 1 backward, each of these differentiated for 2; in the
    generator's loss 1 + 1. The score's slope is constant, so nothing flows back through its layer from the penalty's
    forward pass, and to its input none in the other. Encoder: 1 + 2.
    """
    row = measured(tmp_path, "--only", "4")["phases"][0]
    width, pixels = 8, 16
    dense, conv, rgb = width * width * pixels, 9 * width * width * pixels, width * pixels
    trunk = rgb + 9 * (width + 1) * width * pixels + width * pixels * width
    products = (7 * (dense + conv + rgb) - dense) + (14 * trunk - 2 * rgb + 11 * width) + 3 * trunk
    assert row["gflop_per_image"] * 1e9 == pytest.approx(2 * products, rel=1e-9)


@pytest.mark.slow
def test_two_workers_tell_what_reduction_costs(tmp_path: Path) -> None:
    two = measured(tmp_path, "--only", "4", "--workers", "2", "--cores", "1")
    assert two["machine"]["workers"] == 2 and two["machine"]["threads"] == 1
    assert "reduction" in two["phases"][0]["shares"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--only", "16"], "--only 16: this training run has 4, 8 - give"),
        (["--seconds", "0"], "--seconds 0.0 is not positive"),
        (["--workers", "4", "--cores", "900"], "--workers 4 with 900 core(s) each are more than"),
        (["--microbatch", "6"], "--microbatch 6 is not a multiple of 4"),
        (["--microbatch", "8", "--method", "fanogan"], "does not go with --method fanogan"),
        (["--against", "nothing.json"], "--against nothing.json: no measurement"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_refusals_are_one_line(words: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        measured(tmp_path, *words)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "figures.json").exists()
