"""A sweep on Ray: exactly the training runs of its plan, tables that follow from stored scores alone, recovery."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_tools.__main__ import main as data_tools
from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import training_set
from data_tools.errors import run_command
from data_tools.storage import open_storage
from tests.support.tables import read_csv
from trainer.run.folder import read_excluded
from trainer.scoring.evaluation import test_images as images_to_test
from trainer.scoring.inference import Inference
from tuning.__main__ import main as tuning
from tuning.baselines import baseline_scores
from tuning.config import SweepConfig
from tuning.plan import make_plan, write_plan

ROOT = Path(__file__).resolve().parents[2]
CELLS = ROOT.parent / "shared" / "data" / "cells" / "ldc_baxter"
SMALL = shlex.split(
    "--preset demo --set resolution=8 width=8 fade-images=64 stable-images=64 final-images=96 minibatch.4=16"
    " minibatch.8=16 log-images=32 checkpoint-images=48 fanogan.width=4 fanogan.latent-size=8 fanogan.minibatch=8"
    " fanogan.gan-images=160 fanogan.encoder-images=96 search.steps=10"
)
TABLES = ("table.csv", "choice.csv", "label_free.csv")


def words_of(data: Path | str, out: Path | str, cache: Path, *more: str) -> list[str]:
    return ["sweep", "--data", str(data), "--out", str(out), "--cache", str(cache), *SMALL, *more]


def tables_of(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


def aucs_by_hand(out: Path, data: Path, cache: Path) -> dict[tuple[str, str, str, str, str], float]:
    """Each trial's detector loaded and asked, each lambda scored by itself, and scikit-learn's AUC."""
    dataset, found = open_dataset(str(data), open_cache(str(cache))), {}
    images, labels = images_to_test(dataset)
    lambdas = json.loads((out / "plan.json").read_text())["lambdas"]
    for folder in sorted((out / "trials").iterdir()):
        place = json.loads((folder / "trial.json").read_text())
        inference = Inference.load(folder / "run")
        scores = inference.values(images, inference.quick)
        key = (place["method"], repr(float(place["gamma"])), str(place["seed"]))
        for lam in lambdas:
            a = lam * scores["L_n"] + (1 - lam) * scores["L_o"]
            found[*key, "a", repr(float(lam))] = float(roc_auc_score(labels, a))
        for name in ("L_n", "L_o", "L_r"):
            found[*key, name, ""] = float(roc_auc_score(labels, scores[name]))
    return found


def check_by_hand(out: Path, data: Path, cache: Path) -> int:
    """Compare table.csv with `aucs_by_hand` to 1e-12; returns the number of lambdas."""
    table = {
        (r["method"], r["gamma"], r["seed"], r["score"], r["lambda"]): float(r["auc"])
        for r in read_csv(out / "table.csv")
    }
    by_hand = aucs_by_hand(out, data, cache)
    assert by_hand.keys() <= table.keys()
    assert max(abs(table[key] - value) for key, value in by_hand.items()) < 1e-12
    return len({key[4] for key in by_hand if key[3] == "a"})


@pytest.fixture(scope="module")
def swept(dataset: Path) -> Path:
    """A finished sweep; tests only read it."""
    out = dataset.parent / "swept"
    tuning(words_of(dataset, out, dataset.parent / "cache", "--method", "proposed,fanogan", "--gamma", "0,0.1"))
    return out


@pytest.mark.slow
def test_each_combination_is_trained_once(swept: Path) -> None:
    names = {f"{method}_gamma-{gamma}_seed-0" for method in ("proposed", "fanogan") for gamma in ("0", "0.1")}
    assert {path.name for path in (swept / "trials").iterdir()} == names
    for name in names:
        config = json.loads((swept / "trials" / name / "run" / "config.json").read_text())
        assert f"{config['method']}_gamma-{config['gamma']:g}_seed-{config['seed']}" == name
        assert (swept / "trials" / name / "run" / "finished.json").exists()


@pytest.mark.slow
def test_a_worker_that_reports_often_does_not_wait_for_ray(swept: Path) -> None:
    """Whose controller came every two seconds, for one report: a step here takes some milliseconds."""
    gaps = []
    for path in (swept / "trials").glob("*/run/metrics.jsonl"):
        times = sorted({line["time"] for line in map(json.loads, path.read_text().splitlines())})
        gaps.append(float(np.median(np.diff(times))))
    assert len(gaps) == 4 and max(gaps) < 1.5, gaps


@pytest.mark.slow
def test_a_robust_twin_is_trained_without_what_its_rounds_left_out(dataset: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "sweep", dataset.parent / "cache"
    sizes = ["--set", "ae.width=4", "ae.code-size=8", "ae.images=64", "ae.minibatch=16"]
    tuning([*words_of(dataset, out, cache, *sizes), "--method", "ae", "--rounds", "2", "--drop", "0.05"])
    plain, twin = out / "trials" / "ae_gamma-0_seed-0", out / "trials" / "ae_gamma-0_seed-0_rounds-2_drop-0.05"
    left_out = [json.loads((twin / f"round-{number}" / "left_out.json").read_text()) for number in (1, 2)]
    assert [each["ranked"] for each in left_out] == [168, 160] and (plain / "run" / "finished.json").exists()
    excluded = read_excluded(str(twin / "run"))
    assert sum(map(len, excluded.values())) == sum(len(each["images"]) for each in left_out) == 16
    assert {row["options"] for row in read_csv(out / "table.csv") if row["method"] == "ae"} == {
        "",
        "rounds=2 drop=0.05",
    }


@pytest.mark.slow
def test_every_lambda_is_as_if_scored_by_hand(swept: Path, dataset: Path) -> None:
    assert check_by_hand(swept, dataset, dataset.parent / "cache") >= 101


@pytest.mark.slow
def test_the_plain_baselines_see_the_same_samples(swept: Path, dataset: Path) -> None:
    """Of the training runs at gamma 0.1, averaged down to the networks' resolution."""
    data = open_dataset(str(dataset), open_cache(str(dataset.parent / "cache")))
    images, labels = images_to_test(data)
    known = training_set(data, 0.1, 0)
    train, test = (
        np.rint(each.reshape(len(each), 8, 4, 8, 4, 1).astype(np.float32).mean(axis=(2, 4))).astype(np.uint8)
        for each in (known.at(np.arange(len(known))), images)
    )
    expected = {name: roc_auc_score(labels, column) for name, column in baseline_scores(train, test, 0).items()}
    rows = [row for row in read_csv(swept / "table.csv") if row["method"] == "baseline" and row["gamma"] == "0.1"]
    assert {row["score"] for row in rows} == expected.keys()
    for row in rows:
        assert float(row["auc"]) == pytest.approx(expected[row["score"]], abs=1e-12), row["score"]


@pytest.mark.slow
def test_the_choice_of_lambda_goes_by_what_needs_no_label(swept: Path) -> None:
    measures, choices = read_csv(swept / "label_free.csv"), read_csv(swept / "choice.csv")
    assert len(choices) == 4
    for choice in choices:
        mine = [r for r in measures if (r["method"], r["gamma"]) == (choice["method"], choice["gamma"])]
        best = max(mine, key=lambda row: float(row["separation"]))
        assert choice["criterion"] == "separation" and choice["chosen_lambda"] == best["lambda"]
        assert choice["auc_chosen"] == best["auc"] and float(choice["auc_best"]) == max(float(r["auc"]) for r in mine)
        paper = next(r for r in mine if r["lambda"] == "0.05")
        assert float(choice["auc_paper"]) == pytest.approx(float(paper["auc"]), abs=1e-12)


@pytest.mark.slow
def test_tensorboard_has_tunes_curves_and_hyperparameters(swept: Path) -> None:
    (folder,) = (swept / "tune").glob("attempt-1/proposed_gamma-0.1_seed-0")
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert any(tag.endswith("auc/L_n") for tag in tags) and any("critic/wasserstein" in tag for tag in tags)
    plugins = {event for path in folder.glob("events*") for event in (b"hparams",) if event in path.read_bytes()}
    assert plugins == {b"hparams"}


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(swept: Path, dataset: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = sorted((swept / "trials").rglob("*"))
    before, tables = {path: path.stat().st_mtime_ns for path in files if path.is_file()}, tables_of(swept)
    tuning(["resume", str(swept)])
    assert "4 finished before" in capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in sorted((swept / "trials").rglob("*")) if path.is_file()} == before
    assert tables_of(swept) == tables


@pytest.mark.slow
def test_what_an_interruption_leaves_is_gone_on_with_to_the_same_bytes(
    swept: Path, dataset: Path, tmp_path: Path
) -> None:
    """One trial has a run that stopped half way, another its training but no tables, a third nothing at all."""
    out = tmp_path / "again"
    shutil.copytree(swept, out, ignore=shutil.ignore_patterns("tune"))
    names = sorted(path.name for path in (out / "trials").iterdir())
    half, untold, gone = (out / "trials" / name for name in (names[0], names[2], names[3]))
    for name in ("result.json", "scores.csv"):
        (untold / name).unlink()
    shutil.rmtree(gone)
    (half / "result.json").unlink()
    (half / "run" / "finished.json").unlink()
    newest = sorted((half / "run" / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest)
    for name in TABLES:
        (out / name).unlink()
    tuning(words_of(dataset, out, dataset.parent / "cache", "--method", "proposed,fanogan", "--gamma", "0,0.1"))
    assert tables_of(out) == tables_of(swept)


@pytest.mark.slow
def test_unlabelled_images_get_label_free_figures_alone(run: Path, tmp_path: Path) -> None:
    data_tools(f"images {run / 'pictures'} --out {tmp_path / 'data'} --resolution 8 --channels 1".split())
    out = tmp_path / "sweep"
    assert run_command(tuning, words_of(tmp_path / "data", out, tmp_path / "cache", "--seed", "0,1")) == 0
    assert not (out / "table.csv").exists() and not (out / "baselines").exists()
    scores = read_csv(out / "trials/proposed_gamma-0_seed-0/scores.csv")
    assert len({row["key"] for row in scores}) == len(scores) == len(list((run / "pictures").iterdir()))
    assert all(row["label"] == "" and np.isfinite(float(row["fused"])) for row in scores)
    (choice,) = read_csv(out / "choice.csv")
    assert (
        0 <= float(choice["chosen_lambda"]) <= 1 and choice["criterion"] == "separation" and choice["auc_chosen"] == ""
    )
    measures = read_csv(out / "label_free.csv")
    assert len(measures) >= 101 and all(0 <= float(row["separation"]) <= 1 and row["auc"] == "" for row in measures)
    assert all(-1 <= float(row["agreement_seeds"]) <= 1 for row in measures)


@pytest.mark.slow
def test_a_cluster_that_is_too_small_is_named_at_once(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20})
    try:
        monkeypatch.setenv("RAY_ADDRESS", str(cluster.address))
        begun = time.monotonic()
        words = words_of(dataset, tmp_path / "sweep", dataset.parent / "cache", "--workers", "2")
        assert run_command(tuning, words) == 2 and time.monotonic() - begun < 60
    finally:
        cluster.shutdown()
    error = capfd.readouterr().err
    assert "--workers 2" in error and "2 CPUs" in error and "has 1" in error and len(error.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_trial_that_fails_for_good_is_named_and_the_others_go_on(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, cache = tmp_path / "sweep", dataset.parent / "cache"
    write_plan(
        make_plan(
            SweepConfig(
                data=str(dataset), out=str(out), preset="demo", seed="0,1", cache=str(cache), set=tuple(SMALL[3:])
            )
        )
    )
    blocked = out / "trials" / "proposed_gamma-0_seed-1"
    (blocked / "run").mkdir(parents=True)
    (blocked / "run" / "diary.txt").write_text("mine")
    words = words_of(dataset, out, cache, "--seed", "0,1")
    assert run_command(tuning, words) == 2
    error = capfd.readouterr().err
    assert "1 of 2 trials failed" in error and "proposed_gamma-0_seed-1" in error and "diary" not in error
    assert (out / "trials" / "proposed_gamma-0_seed-0" / "result.json").exists()
    assert (blocked / "run" / "diary.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_sweep_in_s3_is_the_one_in_a_folder(swept: Path, dataset: Path, url: str) -> None:
    words = words_of(dataset, f"{url}/sweep", dataset.parent / "cache", "--method", "proposed", "--gamma", "0.1")
    tuning(words)
    names = {name for name, _ in open_storage(f"{url}/sweep").tree()}
    place = "proposed_gamma-0.1_seed-0"
    assert {f"trials/{place}/scores.csv", "table.csv", f"trials/{place}/run/finished.json"} <= names
    assert any(name.startswith(f"tune/attempt-1/{place}/events") for name in names)
    with open_storage(f"{url}/sweep/trials/{place}").open("scores.csv") as file:
        assert file.read() == (swept / "trials" / place / "scores.csv").read_bytes()


KILLS = 5


@pytest.mark.slow
def test_a_driver_killed_at_random_moments_ends_in_the_undisturbed_tables(dataset: Path, tmp_path: Path) -> None:
    more = ("--method", "proposed,fanogan", "--gamma", "0,0.1", "--seed", "0,1", "--workers", "1")
    out, cache = tmp_path / "sweep", dataset.parent / "cache"
    begun = time.monotonic()
    assert _driver(words_of(dataset, out, cache, *more)).wait() == 0
    took, undisturbed = time.monotonic() - begun, tables_of(out)
    shutil.rmtree(out)
    draws = np.random.default_rng()
    print(f"undisturbed: {took:.0f} s")
    for _ in range(KILLS):
        after = float(draws.uniform(10, 1.2 * took / KILLS))  # so that the last one finds work, too
        driver = _driver(words_of(dataset, out, cache, *more))
        try:
            driver.wait(after)
        except subprocess.TimeoutExpired:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        there = len(list(out.glob("trials/*/result.json")))
        print(f"killed after {after:.0f} s, {there} of 8 trials finished")
    assert _driver(["resume", str(out)]).wait() == 0
    assert tables_of(out) == undisturbed


def _driver(words: list[str]) -> subprocess.Popen[Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", "tuning", *words], env=environment, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_three_gammas_and_two_seeds_on_real_cells_are_six_trainings(tmp_path: Path) -> None:
    if not CELLS.exists():
        pytest.skip("the real cells are not at hand")
    data_tools(f"baxter {CELLS} --split frame --out {tmp_path / 'data'}".split())
    out = tmp_path / "sweep"
    tuning(words_of(tmp_path / "data", out, tmp_path / "cache", "--gamma", "0,0.01,0.02", "--seed", "0,1"))
    assert len(list(out.glob("trials/*/run/finished.json"))) == 6
    assert check_by_hand(out, tmp_path / "data", tmp_path / "cache") >= 101
