"""Plans and states of sweeps and clusters from outside: a lie is one line before it costs."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.checks import refuses
from tests.support.hostile import DEEP, HUGE

DOCUMENTS = [DEEP, HUGE, "", "NaN", "[]", "7", "null", "{}", "\xff"]


@pytest.mark.parametrize("text", [*DOCUMENTS, '{"sweep": {"set": []}, "dataset": 7, "trials": []}'])
def test_plans_and_states_that_are_none(tmp_path: Path, text: str) -> None:
    from filelock import FileLock

    from cluster.local_state import running
    from cluster.scoring import ScoringConfig, _plan
    from tuning.plan import read_plan
    from tuning.sweep_tables import read_sweep

    for name in ("plan.json", "state.json"):
        (tmp_path / name).write_text(text, encoding="latin-1")
    refuses(lambda: read_plan(str(tmp_path)), "plan.json", "damaged")
    refuses(lambda: read_sweep(str(tmp_path)), "plan.json", "damaged")
    refuses(lambda: _plan(ScoringConfig("RUN", "IMAGES", str(tmp_path))), "plan.json", "damaged")
    with FileLock(tmp_path / "lock", is_singleton=False):
        refuses(lambda: running(tmp_path), "state.json", "damaged")


@pytest.mark.parametrize("pid", [-1, 0, 1, 2**40, "7", True, None])
def test_a_state_names_a_process_that_may_be_ended(tmp_path: Path, pid: Any) -> None:
    """`down` signals it: a number of 0 or less means a whole group."""
    from filelock import FileLock

    from cluster.local_state import LocalState, running

    facts = dataclasses.asdict(LocalState("http://h", "h", "", "", {}, os.getpid()))
    with FileLock(tmp_path / "lock", is_singleton=False):
        (tmp_path / "state.json").write_text(json.dumps(facts))
        assert running(tmp_path) == LocalState(**facts)
        (tmp_path / "state.json").write_text(json.dumps(facts | {"pid": pid}))
        refuses(lambda: running(tmp_path), "state.json", "damaged")


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../x", "", "a\nb", 7])
def test_a_trials_name_leads_nowhere_else(tmp_path: Path, name: Any) -> None:
    from tuning.sweep_tables import read_sweep

    trial = {"name": name, "method": "proposed", "gamma": 0, "seed": 0, "options": {}, "config": {}}
    plan = {"sweep": {"name": "x", "data": "d"}, "dataset": {}, "lambdas": [0.5], "trials": [trial]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    refuses(lambda: read_sweep(str(tmp_path)), "plan.json", "damaged")


@pytest.mark.parametrize(
    "place",
    [
        {"options": {"out": "/etc"}},
        {"options": {"width": "8"}, "seed": "../x"},
        {"options": 7},
        {"method": "theirs"},
        [],
    ],
    ids=str,
)
def test_what_an_earlier_sweep_proposed_is_a_trial_of_the_plan(tmp_path: Path, place: Any) -> None:
    from tuning.config import SweepConfig
    from tuning.optuna import known_trials
    from tuning.plan import Plan, read_options

    config = SweepConfig(data="d", out=str(tmp_path), preset="demo", set=("width=8,16",), sampler="optuna")
    plan = Plan(config, None, np.zeros(1), read_options(config)[1], ())  # type: ignore[arg-type]
    good = {"method": "proposed", "gamma": 0.0, "seed": 0, "options": {"width": "8"}}
    folder = tmp_path / "trials/a"
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text(json.dumps(good))
    assert [trial.options for trial in known_trials(plan).trials] == [{"width": "8"}]
    (folder / "trial.json").write_text(json.dumps(good | place if isinstance(place, dict) else place))
    refuses(lambda: known_trials(plan), "trial.json", "damaged")
