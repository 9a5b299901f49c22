"""A sweep's early stopping and Optuna, on Ray: minutes, so run by `make test-slow`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.tables import read_csv
from tests.tuning.test_sweep import words_of
from tuning.__main__ import main as tuning

pytestmark = pytest.mark.slow
LONGER = (
    "fade-images=1600",
    "stable-images=1600",
    "final-images=1600",
    "log-images=160",
    "checkpoint-images=800",
    "best-by=a_best",
)


def options(words: list[str], *more: str) -> list[str]:
    """The command with more values of --set, in place of those of the same names."""
    names = {word.partition("=")[0] for word in more}
    at = words.index("--set") + 1
    return [*words[:at], *more, *(word for word in words[at:] if word.partition("=")[0] not in names)]


def test_trainings_that_fall_behind_at_the_end_of_a_phase_are_stopped_and_stay_so(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    words = options(
        words_of(dataset, out, dataset.parent / "cache", "--asha", "--concurrent", "1"),
        *LONGER,
        "learning-rate=0.004,0.0001,0.00001,0.000001,0.0000001",
    )
    tuning(words)
    stopped = {path.parent.name for path in out.glob("trials/*/stopped.json")}
    finished = {path.parent.name for path in out.glob("trials/*/result.json")}
    assert stopped and finished and not stopped & finished and len(stopped | finished) == 5
    for name in stopped:
        facts = json.loads((out / "trials" / name / "stopped.json").read_text())
        run = out / "trials" / name / "run"
        assert 1 <= facts["phase"] <= 3 and not (run / "finished.json").exists()
        ends = {1: 1600, 2: 3200, 3: 4800}
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        aucs = {line["images_seen"]: line["validation/a_best"] for line in lines if "validation/a_best" in line}
        assert facts["auc"] == aucs[ends[facts["phase"]]], "judged by the end of that phase and by nothing later"
    assert {row["options"] for row in read_csv(out / "table.csv") if row["method"] == "proposed"} == {
        f"learning_rate={name.rpartition('learning-rate-')[2]}" for name in finished
    }
    capfd.readouterr()
    tuning(["resume", str(out)])
    assert "5 finished before" in capfd.readouterr().out


def test_optuna_goes_on_from_what_is_there(dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sweep"
    words = words_of(
        dataset, out, dataset.parent / "cache", "--sampler", "optuna", "--samples", "3", "--concurrent", "1"
    )
    words = options(words, "learning-rate=0.0005..0.01:log", "distance-weight=1,2")
    tuning(words)
    trials = {path.name for path in (out / "trials").iterdir()}
    plan = json.loads((out / "plan.json").read_text())
    assert len(trials) == 3 and {trial["name"] for trial in plan["trials"]} == trials
    for trial in plan["trials"]:
        assert 0.0005 <= float(trial["options"]["learning_rate"]) <= 0.01
        assert trial["options"]["distance_weight"] in ("1", "2")
    table = (out / "table.csv").read_bytes()
    again = sorted(trials)[1]
    for path in (out / "trials" / again).glob("*.*"):
        if path.name != "trial.json":
            path.unlink()  # as if it had not been scored yet
    capfd.readouterr()
    tuning(["resume", str(out)])
    assert "2 finished before" in capfd.readouterr().out
    assert {path.name for path in (out / "trials").iterdir()} == trials and (out / "table.csv").read_bytes() == table
