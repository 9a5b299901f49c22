"""AUCs by counting pairs, what lambda does to them, and the score table of a dataset."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_tools.dataset.cache import open_cache
from data_tools.dataset.patch import Patch
from data_tools.dataset.reader import Dataset, open_dataset
from data_tools.dataset.writer import write_dataset
from data_tools.errors import UserError
from tests.support.checks import plan_of
from tests.support.tables import read_csv
from trainer.networks.progressive import Networks
from trainer.presets import demo
from trainer.report.page import Row, answer
from trainer.scoring import evaluation
from trainer.scoring.evaluation import ScoreTable, auc, lambda_curve, summary
from trainer.scoring.inference import Inference, Values
from trainer.scoring.join import lambda_grid

R = 8
RNG = np.random.default_rng(3)


def pair_count(labels: np.ndarray, score: np.ndarray) -> float:
    """The share of (anomaly, normal) pairs in the right order, ties half."""
    pairs = list(itertools.product(score[labels].tolist(), score[~labels].tolist()))
    return sum(1.0 if a > n else 0.5 if a == n else 0.0 for a, n in pairs) / len(pairs)


def values(*columns: np.ndarray) -> Values:
    return Values(dict(zip(("L_n", "L_o", "L_r"), columns)), {}, None)


def made_up(seed: int, count: int = 30) -> tuple[Values, np.ndarray]:
    """Scores on the scales that the method has: L_n of order 1e-3, L_o of order -0.5, ties among them."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) < rng.integers(1, count))
    l_n = np.round(1e-3 + 2e-4 * (rng.normal(size=count) + rng.normal() * labels), 5)
    l_o = np.round(-0.5 + 0.03 * (rng.normal(size=count) + rng.normal() * labels), 3)
    return values(l_n, l_o, rng.normal(size=count)), labels


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=30), st.floats(1e-6, 1e6))
def test_auc_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[bool, int]], scale: float) -> None:
    labels = np.array([label for label, _ in rows])
    score = np.array([value * scale for _, value in rows])
    assume(labels.any() and not labels.all())
    assert auc(labels, score) == pytest.approx(pair_count(labels, score), abs=1e-12)
    assert auc(labels, -score) == pytest.approx(1 - auc(labels, score), abs=1e-12)


def test_the_lambda_grid_is_sorted_and_dense_near_one() -> None:
    grid = lambda_grid()
    assert grid[0] == 0 and grid[-1] == 1 and 0.05 in grid
    assert (np.diff(grid) > 0).all()
    for low, high in ((0.0, 0.5), (0.5, 0.99), (0.99, 0.999), (0.999, 0.9999), (0.9999, 0.99999)):
        assert ((grid > low) & (grid < high)).sum() >= 15, (low, high)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_summary_agrees_with_pair_counts(seed: int) -> None:
    scores, labels = made_up(seed)
    s = summary(scores, labels)
    for name, column in (("L_n", scores["L_n"]), ("L_o", scores["L_o"]), ("L_r", scores["L_r"])):
        assert s[name] == pytest.approx(pair_count(labels, column), abs=1e-12)
    assert s["a_paper"] == pytest.approx(pair_count(labels, 0.05 * scores["L_n"] + 0.95 * scores["L_o"]), abs=1e-12)
    assert s["a_best"] >= max(s["L_n"], s["L_o"], s["a_paper"])
    lam = s["best_lambda"]
    assert 0 <= lam <= 1
    assert s["a_best"] == pytest.approx(pair_count(labels, lam * scores["L_n"] + (1 - lam) * scores["L_o"]), abs=1e-12)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_ends_of_the_lambda_curve_are_the_two_parts_alone(seed: int) -> None:
    scores, labels = made_up(seed)
    grid, aucs = lambda_curve(scores, labels)
    assert grid.tolist() == lambda_grid().tolist() and aucs.shape == grid.shape
    assert aucs[0] == auc(labels, scores["L_o"]) and aucs[-1] == auc(labels, scores["L_n"])
    assert aucs.max() == summary(scores, labels)["a_best"]


def test_a_mixture_that_beats_both_parts_is_found_near_one() -> None:
    """Each part alone ranks by noise that the other cancels; the parts' scales differ by a hundred."""
    labels = np.arange(200) >= 100
    nuisance = RNG.normal(size=200)
    scores = values(3e-4 * (nuisance + labels), 0.03 * (labels - nuisance), nuisance)
    s = summary(scores, labels)
    assert s["a_best"] == 1 and s["best_lambda"] > 0.95 and max(s["L_n"], s["L_o"], s["a_paper"]) < 0.95


def patch(pool: str, number: int, channels: int = 1) -> Patch:
    origin = {"source": 'say "a, b"', "frame": number, "class": "größer", "angle": 12.5, "left out": 1, "label": 7}
    return Patch(RNG.integers(0, 256, (R, R, channels), dtype=np.uint8), pool, f"{pool}_{number:02d}", origin)


def dataset_of(folder: Path, patches: list[Patch], channels: int = 1) -> Dataset:
    write_dataset(plan_of(patches), str(folder / "data"), R, channels, {"name": "test"}, samples_per_shard=4)
    return open_dataset(str(folder / "data"), open_cache(folder / "cache"))


def detector(channels: int = 1, resolution: int = R) -> Inference:
    networks = Networks.build(16, channels, 8, 1).by_name()
    return Inference.of(dataclasses.replace(demo(), width=8), networks, resolution, channels, None, "cpu")


@pytest.fixture
def patches() -> list[Patch]:
    """Of every pool; the test pools mixed as a source may give them."""
    numbers = {"train-normal": 5, "train-anomaly": 3, "test-normal": 7, "test-anomaly": 6}
    every = [patch(pool, i) for pool, count in numbers.items() for i in range(count)]
    return [every[i] for i in RNG.permutation(len(every))]


def test_every_test_image_is_a_row_with_its_own_scores_label_and_origin(tmp_path: Path, patches: list[Patch]) -> None:
    d = detector()
    table = evaluation.score_table(d, dataset_of(tmp_path, patches))
    table.write_csv(tmp_path / "scores.csv")
    rows = read_csv(tmp_path / "scores.csv")
    expected = {p.key: p for p in patches if p.pool.startswith("test")}
    assert len(rows) == len(expected) == len(table.labels) == 13
    assert {row["key"] for row in rows} == expected.keys()
    for row in rows:
        p = expected[row["key"]]
        assert row["label"] == {"test-normal": "normal", "test-anomaly": "anomaly"}[p.pool]
        scores = d.values(p.image[None], d.quick)
        for name, value in {
            **scores.terms,
            "a_0.05": scores.anomaly(),
        }.items():
            assert float(row[name]) == pytest.approx(value[0], rel=1e-5), name
        assert float(row["minus_std"]) == pytest.approx(-p.image.astype(float).std(), rel=1e-8)
        assert float(row["minus_max"]) == -int(p.image.max())
        assert (row["source"], row["class"], float(row["angle"])) == ('say "a, b"', "größer", 12.5)
        assert row["left out"] == "1" and row["source_label"] == "7"  # whatever a source says of an image
        assert int(row["frame"]) == p.provenance["frame"] and row["track"] == ""


def test_the_table_keeps_every_bit_of_a_float32_score(tmp_path: Path) -> None:
    columns = RNG.normal(scale=1e-3, size=(3, 50)).astype(np.float32)
    table = ScoreTable(
        values(*columns.astype(np.float64)), np.arange(50) > 20, {}, [{"key": str(i)} for i in range(50)]
    )
    table.write_csv(tmp_path / "scores.csv")
    rows = read_csv(tmp_path / "scores.csv")
    for name, column in zip(("L_n", "L_o", "L_r"), columns, strict=True):
        assert np.array_equal(np.array([row[name] for row in rows]).astype(np.float32), column)
    assert [row["label"] == "anomaly" for row in rows] == table.labels.tolist()


def test_labels_of_both_kinds_are_needed_for_an_auc(tmp_path: Path, patches: list[Patch]) -> None:
    assert evaluation.has_labels(dataset_of(tmp_path / "all", patches))
    for pool in ("test-normal", "test-anomaly"):
        assert not evaluation.has_labels(dataset_of(tmp_path / pool, [p for p in patches if p.pool != pool]))


def test_a_dataset_that_does_not_fit_the_detector_is_refused(tmp_path: Path, patches: list[Patch]) -> None:
    dataset = dataset_of(tmp_path, patches)
    for fitting in (detector(), detector(resolution=4)):
        evaluation.check_fits(fitting, dataset, "the URL")
    for other, size in ((detector(channels=3), "8x8x3"), (detector(resolution=16), "16x16x1")):
        with pytest.raises(UserError, match=rf"--data the URL: images of 8x8x1 .* {size} - ") as caught:
            evaluation.check_fits(other, dataset, "the URL")
        assert "\n" not in str(caught.value)


def test_a_page_compares_with_the_best_number_that_needs_no_training() -> None:
    labels = np.array([False, True])
    rows = [
        Row("fused", 0.8, "joined"),
        Row("L_n", 0.95, "residual"),
        Row("L_i", 0.7, "distance of brightness", False),
        Row("minus_std", 0.6, "deviation", False),
    ]
    assert [row.note for row in rows[1:3]] == ["residual", "distance of brightness: no training"]
    assert "The best number that needs no training, the distance of brightness, does so in 70.0%." in answer(
        rows, labels
    )
    beaten = [Row("fused", 0.65, "joined"), *rows[1:]]
    assert answer(beaten, labels).endswith("the distance of brightness, 70.0%. Do not rely on this detector.")
