"""Several runs as one detector: each calibrated by itself, their mean the score, an own image no witness for itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_tools.dataset.reader import open_dataset
from tests.support.checks import refuses
from tests.support.runs import TINY, words_of
from tests.support.tables import read_csv
from trainer.__main__ import main as trainer
from trainer.export.standalone import Detector as Carried
from trainer.run.checkpoint import newest_checkpoint
from trainer.run.folder import read_config, run_images
from trainer.scoring.criterion import Criterion
from trainer.scoring.detector import Detector
from trainer.scoring.ensemble import Ensemble
from trainer.scoring.evaluation import test_images as images_to_test
from trainer.scoring.loading import learned_by, load_detector, rebuilt
from trainer.scoring.p_values import p_values
from trainer.scoring.synthetic import CORRUPTIONS, corrupted

GAMMA = ["--gamma", "0.02"]


@pytest.fixture(scope="module")
def runs(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three seeds, of which two share the same anomalies: none."""
    place, cache = tmp_path_factory.mktemp("seeds"), dataset.parent / "cache"
    for seed, more in (("1", GAMMA), ("2", GAMMA), ("3", [])):
        trainer(words_of(dataset, place / f"seed{seed}", cache, [*TINY, "--seed", seed, *more]))
    return [f"{place}/seed{seed}" for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def joined(runs: list[str], dataset: Path) -> Ensemble:
    found = load_detector(",".join(runs), cache=str(dataset.parent / "cache"))
    assert isinstance(found, Ensemble)
    return found


@pytest.fixture(scope="module")
def alone(runs: list[str], dataset: Path) -> list[Detector]:
    return [Detector.load(run, cache=str(dataset.parent / "cache")) for run in runs]


@pytest.fixture(scope="module")
def queries(dataset: Path) -> np.ndarray:
    return images_to_test(open_dataset(str(dataset)))[0]


def test_the_score_is_the_mean_of_the_runs_own(joined: Ensemble, alone: list[Detector], queries: np.ndarray) -> None:
    found, each = joined.score(queries), [detector.score(queries).score for detector in alone]
    np.testing.assert_allclose(found.score, np.mean(each, axis=0))
    assert list(found.columns) == ["p_value", "seed1", "seed2", "seed3"] == list(joined.columns)
    np.testing.assert_allclose(found.terms["seed2"], each[1])
    assert found.p_value is not None
    np.testing.assert_allclose(found.p_value, p_values(found.score, joined.known))


def test_the_order_of_the_others_does_not_matter(
    joined: Ensemble, runs: list[str], dataset: Path, queries: np.ndarray
) -> None:
    other = load_detector(",".join([runs[0], runs[2], runs[1]]), cache=str(dataset.parent / "cache"))
    np.testing.assert_allclose(other.score(queries).score, joined.score(queries).score)
    np.testing.assert_allclose(other.known, joined.known)


def test_other_scores_than_fused_are_joined_as_logarithms_of_p_values(
    runs: list[str], alone: list[Detector], dataset: Path, queries: np.ndarray
) -> None:
    found = load_detector(",".join(runs), Criterion("L_n"), cache=str(dataset.parent / "cache")).score(queries)
    parts = [-np.log(p_values(d.score(queries).terms["L_n"], d.calibrated.terms["L_n"])) for d in alone]
    np.testing.assert_allclose(found.score, np.mean(parts, axis=0))


def test_a_training_image_is_known_to_those_runs_that_saw_it(
    joined: Ensemble, alone: list[Detector], runs: list[str]
) -> None:
    """Normal images to all; the first run's anomalies to itself, since the second one drew others."""
    config, _ = read_config(runs[0])
    dataset = open_dataset(config.data)
    data = run_images(runs[0], config, dataset)
    normal = dataset.count("train-normal")
    n = len(data)
    assert list(joined.shared.values()) == [n, normal, normal] and n > normal
    places = np.arange(n)
    images, samples = data.at(places), data.samples(places)
    found = joined.score(images, samples)
    parts = [alone[0].score(images, samples).score]
    parts += [d.score(images, np.where(samples < normal, samples, -1)).score for d in alone[1:]]
    np.testing.assert_allclose(found.score, np.mean(parts, axis=0))
    np.testing.assert_allclose(np.sort(found.score), np.sort(joined.known))
    assert found.p_value is not None and found.p_value.min() == pytest.approx(1 / n)


def test_it_travels_without_its_dataset(joined: Ensemble, runs: list[str], queries: np.ndarray) -> None:
    checkpoints = ",".join(newest_checkpoint(run) for run in runs)
    again = rebuilt(checkpoints, joined.criterion, learned_by(joined))
    assert again.columns == joined.columns
    np.testing.assert_array_equal(again.score(queries).score, joined.score(queries).score)


def test_heat_is_the_mean_of_the_runs(joined: Ensemble, alone: list[Detector], queries: np.ndarray) -> None:
    few = queries[:3]
    np.testing.assert_allclose(joined.heat(few), np.mean([d.heat(few) for d in alone], axis=0), rtol=1e-5)
    assert joined.matches(few).dtype == np.uint8 and joined.reconstructs
    scored = joined.score_with_heat(queries)
    assert scored.heat is not None
    np.testing.assert_allclose(scored.heat, joined.heat(queries), rtol=1e-5, atol=1e-6)
    expected = joined.score(queries)
    np.testing.assert_array_equal(scored.score, expected.score)
    np.testing.assert_array_equal(scored.p_value, expected.p_value)


def test_commands_take_several_runs(
    runs: list[str], dataset: Path, queries: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    cache, several = ["--cache", str(dataset.parent / "cache")], ",".join(runs)
    trainer(["evaluate", several, *cache])
    table = capsys.readouterr().out
    assert "3 runs as one detector" in table and all(f"seed{i}" in table for i in (1, 2, 3))
    (tmp_path / "images").mkdir()
    for i in range(4):
        Image.fromarray(queries[i, :, :, 0]).save(tmp_path / "images" / f"{i}.png")
    out, maps = tmp_path / "scores.csv", tmp_path / "maps"
    words = ["--false-alarms", "0.05", "--out", str(out), "--heatmaps", str(maps), *cache]
    trainer(["score", several, str(tmp_path / "images"), *words])
    rows = read_csv(out)
    assert list(rows[0]) == ["image", "fused", "p_value", "seed1", "seed2", "seed3", "anomalous"]
    assert len(list(maps.iterdir())) == 4
    trainer(["audit", several, "--out", str(tmp_path / "audit"), *cache])
    page = (tmp_path / "audit" / "index.html").read_text()
    assert "seed2" in page and (tmp_path / "audit" / "exclude.txt").exists()


def test_runs_that_do_not_belong_together_are_refused(runs: list[str], dataset: Path, tmp_path: Path) -> None:
    cache = str(dataset.parent / "cache")
    refuses(lambda: load_detector(f"{runs[0]},", cache=cache), "names no run", "RUN,RUN")
    refuses(lambda: load_detector(f"{runs[0]},{runs[0]}", cache=cache), "given twice")
    refuses(lambda: trainer(["audit", ",".join(runs), "--cache", cache]), "--out is missing")
    other = Path(shutil.copytree(runs[1], tmp_path / "other"))
    (other / "excluded.json").write_text('{"train-normal-000000.tar": [0]}')
    refuses(lambda: load_detector(f"{runs[0]},{other}", cache=cache), "other")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["fused", "L_n"])
def test_it_is_carried_away(by: str, runs: list[str], dataset: Path, queries: np.ndarray, tmp_path: Path) -> None:
    """Two runs on the same images, since a folder's columns are of one length; scores as ours, heat as their mean."""
    two, cache = ",".join(runs[:2]), ["--cache", str(dataset.parent / "cache")]
    trainer(["export", two, "--out", str(tmp_path / "out"), "--by", by, "--format", "torch", *cache])
    ours = load_detector(two, Criterion(by), cache=cache[1])
    side = ours.resolution
    small = queries.reshape(len(queries), side, 32 // side, side, 32 // side, 1)
    whole = np.rint(small.mean(axis=(2, 4))).astype(np.uint8)
    found = Carried(tmp_path / "out").score(whole)
    np.testing.assert_allclose(found["score"], ours.score(whole).score, rtol=1e-3)
    np.testing.assert_allclose(found["heat"], ours.heat(whole), atol=1e-2)
    assert "run2_L_m" in found


def test_its_made_anomalies_are_scored_by_all(runs: list[str], alone: list[Detector], dataset: Path) -> None:
    cache = str(dataset.parent / "cache")
    found = load_detector(",".join(runs), Criterion(contamination="auto"), cache=cache)
    assert isinstance(found, Ensemble)
    config, _ = read_config(runs[0])
    data = run_images(runs[0], config, open_dataset(str(dataset)))
    images = data.at(np.arange(min(len(data) // 2, 512)))
    assert tuple(found.made) == CORRUPTIONS
    for kind, scores in found.made.items():
        each = [detector.score(corrupted(images, kind, seed=0)).score for detector in alone]
        np.testing.assert_allclose(scores, np.mean(each, axis=0))
    again = rebuilt(",".join(newest_checkpoint(run) for run in runs), found.criterion, learned_by(found))
    np.testing.assert_equal(again.made, found.made)
