"""Options of a sweep that would make two trials one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.support.answering import says
from tuning.config import SweepConfig
from tuning.plan import lambda_values, make_plan


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"gamma": "0,0.0"}, "--gamma '0,0.0'"),
        ({"gamma": "0.01,1e-2"}, "--gamma"),
        ({"seed": "1,01"}, "--seed '1,01'"),
        ({"set": ("learning-rate=0.001,1e-3",)}, "learning-rate=0.001,1e-3 holds a value twice"),
        ({"set": ("width=8,08",)}, "width=8,08 holds a value twice"),
        ({"set": ("compile=true,True",)}, "compile=true,True holds a value twice"),
        ({"set": ("compile=yes,no",)}, "compile=yes is of another kind"),
    ],
)
def test_twice_gamma(changes: dict[str, Any], word: str, dataset: Path, tmp_path: Path) -> None:
    sweep = SweepConfig(data=str(dataset), out=str(tmp_path / "s"), preset="demo", cache=str(tmp_path / "c"))
    says(lambda: make_plan(dataclasses.replace(sweep, **changes)), word, within=30)


def test_trials_have_names_of_their_own(dataset: Path, tmp_path: Path) -> None:
    sweep = SweepConfig(
        data=str(dataset), out=str(tmp_path / "s"), preset="demo", cache=str(tmp_path / "c"),
        gamma="0,0.02,0.0200000001", set=("compile=true,false",),
    )  # fmt: skip
    trials = make_plan(sweep).trials
    assert len({trial.name for trial in trials}) == 6 and {trial.config.compile for trial in trials} == {True, False}
    names = {trial.name.partition("_")[2] for trial in trials}
    assert {"gamma-0_seed-0_compile-true", "gamma-0.02_seed-0_compile-false"} <= names
    assert lambda_values("0.05,0.050,paper").tolist() == [0.05]
