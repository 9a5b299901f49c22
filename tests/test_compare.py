"""Choosing a method without labels: through the front door, and by what is made up."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import refuses
from tuning.__main__ import main as tuning
from tuning.compare import Measured, agreement, merit, ranked

SETTINGS = (
    "resolution=8",
    "ae.width=4",
    "ae.code-size=8",
    "ae.images=64",
    "ae.minibatch=16",
    "geom.width=1",
    "geom.transforms=turns",
    "geom.views=64",
    "geom.minibatch=16",
    "log-images=32",
    "precision=float32",
)


def words_of(dataset: Path, out: Path, *more: str) -> list[str]:
    sets = ["--set", *SETTINGS]
    where = ["--data", str(dataset), "--out", str(out), "--cache", str(dataset.parent / "cache")]
    return ["compare", *where, "--preset", "demo", "--method", "ae,geom", *sets, *more]


@pytest.fixture(scope="module")
def compared(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "result"
    tuning(words_of(dataset, out))
    return out


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "compare.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_ranks_by_merit(compared: Path) -> None:
    rows = rows_of(compared)
    assert {row["method"] for row in rows} == {"ae", "geom"}
    merits = [float(row["merit"]) for row in rows]
    assert merits == sorted(merits, reverse=True)
    for row in rows:
        assert float(row["merit"]) == pytest.approx(merit(float(row["separation"]), float(row["agreement"])))
        assert 0 <= float(row["auc"]) <= 1 and bool(row["own_task"]) == (row["method"] == "geom")
    assert sum(float(row["first"]) for row in rows) == pytest.approx(1)


def test_the_same_command_goes_on(compared: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = rows_of(compared)
    shutil.rmtree(compared / "geom_seed-1")
    tuning(words_of(dataset, compared))
    said = capsys.readouterr().out
    assert ("geom, seed 1" in said and "ae, seed" not in said and "is perhaps" in said) or "is surely" in said
    after = rows_of(compared)
    keep = [name for name in before[0] if name != "minutes"]
    assert [[row[name] for name in keep] for row in after] == [[row[name] for name in keep] for row in before]


def test_what_cannot_be_is_refused(compared: Path, dataset: Path, tmp_path: Path) -> None:
    refuses(lambda: tuning(words_of(dataset, compared, "--seed", "3,4")), "--seed [3, 4]", "[0, 1]")
    refuses(lambda: tuning(words_of(dataset, tmp_path / "new", "--seed", "0")), "--seed 0", "two")
    refuses(lambda: tuning(words_of(dataset, tmp_path / "new", "--seed", "0,x")), "--seed 0,x")
    refuses(lambda: tuning(words_of(dataset, tmp_path / "new", "--method", "ae,gan")), "--method gan")
    refuses(lambda: tuning(words_of(dataset, tmp_path / "new", "--method", "ae,search")), "--method search", "one pass")
    refuses(lambda: tuning(words_of(dataset, tmp_path / "new", "--method", "ae,ae")), "--method ae,ae")
    assert not (tmp_path / "new").exists()


def made_up(told: float, noise: float, seed: int, hidden: int = 0) -> Measured:
    """A run that tells made anomalies apart so well, whose scores are a common ranking and noise of its own."""
    common, own = np.random.default_rng(hidden).standard_normal(200), np.random.default_rng(seed).standard_normal(200)
    separations = {kind: told + 0.02 * np.cos(i + seed) for i, kind in enumerate("abcd")}
    return Measured(separations, {str(i): float(x) for i, x in enumerate(common + noise * own)}, None, None, 1.0)


def test_a_score_that_tells_and_agrees_is_first() -> None:
    found = {
        "good": [made_up(0.9, 0.1, 1), made_up(0.9, 0.1, 2)],
        "fickle": [made_up(0.9, 9.0, 3), made_up(0.9, 9.0, 4)],
        "blind": [made_up(0.5, 0.1, 5), made_up(0.5, 0.1, 6)],
    }
    rows = ranked(found)
    assert rows[0].method == "good" and rows[0].first > 0.99
    twins = ranked({"one": found["good"], "other": [made_up(0.9, 0.1, 7), made_up(0.9, 0.1, 8)]})
    assert 0.05 < twins[0].first < 0.95  # it says that it is not sure


@given(st.integers(0, 2**31), st.floats(0.1, 5))
@settings(deadline=None, max_examples=20)
def test_agreement_is_of_ranks(seed: int, scale: float) -> None:
    one, other = made_up(0.8, 1.0, seed % 1000), made_up(0.8, 1.0, seed % 1000 + 1)
    stretched = Measured(
        other.separations, {k: float(np.exp(scale * v)) for k, v in other.scores.items()}, None, None, 1
    )
    assert agreement([one, stretched]) == pytest.approx(agreement([one, other]))
    assert agreement([one, one]) == pytest.approx(1)
