"""Choosing a method without labels: through the front door, and by what is made up."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.dataset.cache import open_cache
from data_tools.dataset.exclusion import find_excluded, read_keys
from data_tools.dataset.reader import open_dataset
from tests.support.checks import refuses
from tests.support.runs import SMALL_AE, placed
from tests.support.tables import read_csv
from trainer.run.folder import read_excluded
from trainer.scoring.detector import Detector
from trainer.scoring.p_values import p_values
from trainer.scoring.synthetic_whole import synthetic_of
from tuning.__main__ import main as tuning
from tuning.compare import Measured, agreement, joined, merit, ranked
from tuning.held_out import HELD_OUT, held_out_images, held_out_rows

SETTINGS = (*SMALL_AE, "geom.width=1", "geom.transforms=turns", "geom.views=64", "geom.minibatch=16")


def words_of(dataset: Path, out: Path, *more: str) -> list[str]:
    sets = ["--set", *SETTINGS]
    return ["compare", *placed(dataset, out), "--preset", "demo", "--method", "ae,geom", *sets, *more]


@pytest.fixture(scope="module")
def compared(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "result"
    tuning(words_of(dataset, out))
    return out


def rows_of(out: Path) -> list[dict[str, str]]:
    return read_csv(out / "compare.csv")


def test_the_table_ranks_by_merit(compared: Path) -> None:
    rows = rows_of(compared)
    assert {row["method"] for row in rows} == {"ae", "geom"}
    merits = [float(row["merit"]) for row in rows]
    assert merits == sorted(merits, reverse=True)
    for row in rows:
        known = float(row["known"]) if row["known"] else None
        assert float(row["merit"]) == pytest.approx(merit(float(row["separation"]), float(row["agreement"]), known))
        assert 0 <= float(row["auc"]) <= 1 and bool(row["known"]) == (row["method"] == "geom")
    assert sum(float(row["first"]) for row in rows) == pytest.approx(1)


def test_no_training_sees_what_is_held_out(compared: Path, dataset: Path) -> None:
    opened = open_dataset(str(dataset), open_cache(dataset.parent / "cache"))
    keys = [opened.provenance("train-normal")[row]["key"] for row in held_out_rows(opened)]
    assert set(keys) == read_keys(str(compared / HELD_OUT)) and len(keys) == opened.count("train-normal") // 10
    for run in compared.glob("*_seed-*/run"):
        left_out = read_excluded(str(run))
        assert sum(map(len, left_out.values())) == len(keys)
        assert left_out == find_excluded(opened, keys)
    measured = [json.loads(path.read_text()) for path in compared.glob("*/trained.json")]
    assert len(measured) == 4 and {len(each["scores"]) for each in measured} == {len(keys)}


def test_methods_are_ranked_by_what_training_made(compared: Path, dataset: Path) -> None:
    """Without L_i, which is the same for all."""
    run = compared / "ae_seed-0"
    detector = Detector.load(str(run / "run"), cache=str(dataset.parent / "cache"))
    opened = open_dataset(str(dataset), open_cache(dataset.parent / "cache"))
    scored = detector.score(held_out_images(opened))
    untrained = -np.log(p_values(scored.terms["L_i"], detector.known_terms["L_i"]))
    expected = scored.score - detector.calibrated.weights["L_i"] * untrained
    np.testing.assert_allclose(json.loads((run / "trained.json").read_text())["scores"], expected, rtol=1e-9)


def test_made_images_are_other_images_of_the_same_kind() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    made = dict(synthetic_of(images))
    assert {"cut-paste", "blurred", "enlarged", "stitched", "turned"} <= set(made)
    for kind, each in made.items():
        assert each.shape == images.shape and each.dtype == np.uint8
        assert all((one != other).any() for one, other in zip(each, images)), kind
    assert made["blurred"].std() < images.std() and np.array_equal(made["turned"], np.rot90(images, 1, (1, 2)))
    assert np.array_equal(made["stitched"][1], np.concatenate([images[1, :8], images[0, 8:]]))
    assert np.array_equal(made["shuffled"][0, :8, :8], images[0, 8:, 8:])
    assert not dict(synthetic_of(images[:, :4, :4]))  # too small for any


def test_the_best_and_those_near_it_are_joined() -> None:
    found = {
        "best": [made_up(0.9, 0.1, 1), made_up(0.9, 0.1, 2)],
        "near": [made_up(0.8, 0.1, 3), made_up(0.8, 0.1, 4)],
        "far": [made_up(0.6, 0.1, 5), made_up(0.6, 0.1, 6)],
        "wrong": [made_up(0.2, 0.1, 7), made_up(0.2, 0.1, 8)],
    }
    assert joined(ranked(found)) == ["best", "near"]
    assert joined(ranked({name: found[name] for name in ("wrong", "far")})) == ["far"]
    alone = joined(ranked({"a": found["wrong"], "b": [made_up(0.1, 0.1, 9), made_up(0.1, 0.1, 1)]}))
    assert len(alone) == 1


def test_a_classifier_that_does_not_know_its_task_is_not_joined() -> None:
    """As turns and flips of what has no orientation; whatever its score says of synthetic anomalies."""
    told = [made_up(0.9, 0.1, 1), made_up(0.9, 0.1, 2)]
    guesses, half, knows = ([dataclasses.replace(run, known=known) for run in told] for known in (-0.01, 0.6, 0.99))
    found = {"other": [made_up(0.7, 0.1, 3), made_up(0.7, 0.1, 4)], "classifier": guesses}
    assert joined(ranked(found)) == ["other"]
    assert joined(ranked(found | {"classifier": half})) == ["classifier", "other"]
    assert ranked(found | {"classifier": knows})[0].merit == pytest.approx(0.99 * ranked({"all": told})[0].merit)


def test_the_same_command_goes_on(compared: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = rows_of(compared)
    shutil.rmtree(compared / "geom_seed-1")
    tuning(words_of(dataset, compared))
    said = capsys.readouterr().out
    assert ("geom, seed 1" in said and "ae, seed" not in said and "is perhaps" in said) or "is surely" in said
    assert "so use " in said and " as one detector, with an AUC of " in said
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
    """A run that tells synthetic anomalies apart so well, whose scores are a common ranking and noise of its own."""
    common, own = np.random.default_rng(hidden).standard_normal(200), np.random.default_rng(seed).standard_normal(200)
    separations = {kind: told + 0.02 * np.cos(i + seed) for i, kind in enumerate("abcd")}
    return Measured(separations, (common + noise * own).tolist(), None, None, 1.0)


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
    stretched = Measured(other.separations, np.exp(scale * np.array(other.scores)).tolist(), None, None, 1)
    assert agreement([one, stretched]) == pytest.approx(agreement([one, other]))
    assert agreement([one, one]) == pytest.approx(1)
