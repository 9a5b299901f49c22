"""Contamination by some classes of anomalies: which images join, and AUCs of planted and unseen classes apart."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.dataset.cache import open_cache
from data_tools.dataset.contamination import check_gamma, chosen_anomalies
from data_tools.dataset.patch import Patch
from data_tools.dataset.reader import Dataset, open_dataset
from data_tools.dataset.training_set import all_images, training_set
from data_tools.dataset.writer import write_dataset
from tests.support.checks import plan_of, refuses
from tests.support.runs import TINY
from tests.support.tables import read_csv
from trainer.__main__ import main as trainer
from trainer.config import TrainConfig
from trainer.scoring.by_class import auc_by_class, auc_by_planted

R = 8
CLASSES = ("bubble", "dust", "scratch")
RNG = np.random.default_rng(5)
NORMALS, ANOMALIES, TESTED = 40, 30, 12


def patch(pool: str, number: int) -> Patch:
    kind = "cell" if pool.endswith("normal") else CLASSES[number % 3]
    return Patch(RNG.integers(0, 256, (R, R, 1), np.uint8), pool, f"{pool}_{number:02d}", {"class": kind})


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("planted")
    sizes = {"train-normal": NORMALS, "train-anomaly": ANOMALIES, "test-normal": TESTED, "test-anomaly": TESTED}
    patches = [patch(pool, number) for pool, count in sizes.items() for number in range(count)]
    write_dataset(plan_of(patches), str(folder / "data"), R, 1, {"name": "test"}, samples_per_shard=8)
    return open_dataset(str(folder / "data"), open_cache(folder / "cache"))


@settings(deadline=None, max_examples=30)
@given(st.sets(st.sampled_from(CLASSES), min_size=1), st.integers(0, 9), st.sampled_from([0.05, 0.1, 0.2]))
def test_planted_images_are_of_these_classes_in_the_same_order(
    mixed: Dataset, wanted: set[str], seed: int, gamma: float
) -> None:
    classes = np.array([origin["class"] for origin in mixed.provenance("train-anomaly")])
    planted = ", ".join(sorted(wanted))
    chosen = chosen_anomalies(mixed, gamma, seed, planted)
    assert len(chosen) == len(chosen_anomalies(mixed, gamma, seed)) and len(set(chosen)) == len(chosen)
    assert set(classes[chosen]) <= wanted
    whole = chosen_anomalies(mixed, 0.42, seed)  # nearly all of them, in the seed's order
    expected = [each for each in whole if classes[each] in wanted][: len(chosen)]
    assert list(chosen[: len(expected)]) == expected
    if wanted == set(CLASSES):
        assert list(chosen) == list(chosen_anomalies(mixed, gamma, seed))


def test_every_way_to_the_training_images_agrees(mixed: Dataset) -> None:
    data = training_set(mixed, 0.2, 3, planted="dust")
    blocks = list(all_images(mixed, 0.2, 3, planted="dust"))
    images = np.concatenate([block.images for block in blocks])
    origins = [origin for block in blocks for origin in block.origins]
    assert len(data) == len(images) == NORMALS + 10
    assert [origin["class"] for origin in origins[NORMALS:]] == ["dust"] * 10
    samples = data.samples(np.arange(len(data)))
    assert np.array_equal(data.at(np.arange(len(data))), images[samples])


def test_classes_that_are_not_there(mixed: Dataset) -> None:
    refuses(lambda: check_gamma(mixed, 0.1, "rust"), "--planted rust", "bubble, dust, scratch")
    refuses(lambda: check_gamma(mixed, 0.4, "dust"), "--gamma 0.4 needs 26", "has 10 of these classes")


def test_aucs_by_class_count_pairs_with_all_normals() -> None:
    labels = np.array([False] * 4 + [True] * 6)
    classes = ["cell"] * 4 + ["dust"] * 3 + ["scratch"] * 3
    score = np.array([0, 1, 2, 3, 9, 9, 9, 1.5, 1.5, -1])
    origins = [{"class": name} for name in classes]
    config = dataclasses.replace(TrainConfig(), gamma=0.1, planted="scratch")
    rows = auc_by_class(score, labels, origins, config)
    assert [(row.name, row.images, row.note) for row in rows] == [("scratch", 3, "planted"), ("dust", 3, "unseen")]
    assert [row.auc for row in rows] == [pytest.approx(4 / 12), 1]
    parts = auc_by_planted(score, labels, origins, config)
    assert [(row.name, row.images, row.auc) for row in parts] == [
        ("planted", 3, pytest.approx(4 / 12)),
        ("unseen", 3, 1),
    ]
    clean = dataclasses.replace(config, gamma=0.0)
    assert not auc_by_planted(score, labels, origins, clean)
    assert {row.note for row in auc_by_class(score, labels, origins, clean)} == {""}
    assert not auc_by_class(score, labels, [{"class": "x"}] * 10, config)
    assert not auc_by_class(score, labels, [{}] * 10, config)


def test_through_the_front_door(mixed: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, cache = str(tmp_path / "run"), ["--cache", str(tmp_path / "cache")]
    planted = ["--gamma", "0.2", "--planted", "dust,bubble"]
    trainer(["train", "--data", mixed.storage.url, "--out", run, *cache, *TINY, *planted])
    capsys.readouterr()
    trainer(["evaluate", run, *cache])
    said = capsys.readouterr().out
    assert "by class of the anomalies" in said and "unseen" in said and "scratch" in said
    page = (tmp_path / "run/evaluation/index.html").read_text()
    assert "classes that training images hold" in page and "By class of the anomalies" in page
    trainer(["audit", run, *cache, "--contamination", "0.2"])
    kinds = [row["class"] for row in read_csv(tmp_path / "run/audit/audit.csv") if row["pool"] == "train-anomaly"]
    assert len(kinds) == 10 and set(kinds) <= {"dust", "bubble"}
    assert json.loads((tmp_path / "run/config.json").read_text())["planted"] == "dust,bubble"
