"""What version 0.1.0 wrote is read as it was meant: runs, calibrations, exported folders, sweeps.

The folders in tests/released were made once and are never made again; see the README.md there. Numbers that networks
compute are held to 1e-4 of their size, since processors round differently; what follows from stored numbers alone to
much less.
"""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from data_tools.errors import run_command
from tests.support.tables import read_csv
from trainer.__main__ import main as trainer
from tuning.__main__ import main as tuning

RELEASED = Path(__file__).parent / "released"
METHODS = ("proposed", "fanogan", "search")
TRAINING = shlex.split(
    "--preset demo --resolution 8 --width 4 --stable-images 64 --fade-images 256 --final-images 96 --minibatch.4 16"
    " --minibatch.8 16 --log-images 32 --pictures 1 --keep 1 --precision float32 --fanogan.width 2"
    " --fanogan.latent-size 4 --fanogan.minibatch 8 --fanogan.gan-images 400 --fanogan.encoder-images 96"
    " --search.steps 10"
)
"""The options that all the runs were given."""
LAST = {"proposed": "images-000000416", "fanogan": "images-000000496", "search": "images-000000416"}
STOPPED_AT = {"proposed": 112, "fanogan": 80, "search": 112}
FARTHEST = {"proposed": (2e-3, 1e-4), "search": (2e-3, 1e-4), "fanogan": (2e-2, 5e-4)}
"""How far weights may be from the old ones after these steps, at most and on average.

With two threads instead of one, and with the instructions of older processors, they were 5e-5 apart at most; those of
f-AnoGAN, some of whose biases cancel out of the loss and so follow nothing but rounding, 4e-3 at most and 1e-4 on
average. From where they were stopped they move by 5e-3 on average at the least.
"""
TABLES = ("table.csv", "choice.csv", "label_free.csv")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that version 0.1.0 left, its dataset where the runs' config.json says; tests change copies only."""
    place = tmp_path_factory.mktemp("released")
    for name in ("runs.tar.xz", "sweep.tar.xz"):
        with tarfile.open(RELEASED / name) as file:
            file.extractall(place, filter="data")
    for config in place.glob("*/*/config.json"):
        config.write_text(config.read_text().replace('"DATA"', json.dumps(str(place / "data"))))
    return place


@pytest.fixture
def copy(released: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Of the finished run of the method that the test is for, or of the proposed one."""
    method = getattr(request.node, "callspec", None)
    name = method.params.get("method", "proposed") if method else "proposed"
    return Path(shutil.copytree(released / name / "finished", tmp_path / "run"))


def cache_of(released: Path) -> list[str]:
    return ["--cache", str(released / "cache")]


def train(released: Path, run: Path, method: str) -> None:
    place = ["--data", str(released / "data"), "--out", str(run), *cache_of(released)]
    trainer(["train", "--method", method, *TRAINING, *place])


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(path: Path, key: str) -> dict[str, dict[str, str]]:
    """A table's rows by the last part of a column that names them, in their order."""
    return {Path(row[key]).name: row for row in read_csv(path)}


def check_table(found: Path, expected: Path, key: str, rtol: float, loose: tuple[str, ...] = ()) -> None:
    """Every old column is there with the old text or number; loose ones, made of ranks, to a twentieth."""
    new, old = rows_of(found, key), rows_of(expected, key)
    assert sorted(new) == sorted(old)
    for name in next(iter(old.values())):
        if name == key:
            continue
        pairs = [(new[row][name], old[row][name]) for row in old]
        try:
            a, b = np.array(pairs, np.float64).T
        except ValueError:
            assert all(a == b for a, b in pairs), name
            continue
        size = float(np.median(np.abs(b)))
        np.testing.assert_allclose(a, b, rtol=0.05 if name in loose else rtol, atol=rtol * size, err_msg=name)


def check_order(found: Path, expected: Path, by: str) -> None:
    """The most anomalous first, where the old scores are apart by more than a hundredth."""
    old = rows_of(expected, "image")
    scores = np.array([float(old[name][by]) for name in rows_of(found, "image")])
    assert (np.diff(scores) <= 0.01 * np.abs(scores[1:])).all(), scores


# Finished runs


@pytest.mark.parametrize("method", METHODS)
def test_a_finished_run_says_so_and_stays_as_it_is(
    released: Path, copy: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(copy)
    train(released, copy, method)
    assert "this run is finished" in capsys.readouterr().out
    assert files_of(copy) == before


@pytest.mark.parametrize("method", [METHODS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in METHODS[1:])])
def test_it_evaluates_to_the_same_scores(released: Path, copy: Path, method: str) -> None:
    expected = released / method / "finished" / "evaluation"
    shutil.rmtree(copy / "evaluation")
    trainer(["evaluate", str(copy), *cache_of(released)])
    check_table(copy / "evaluation/scores.csv", expected / "scores.csv", "key", 1e-4)
    new, old = (json.loads((folder / "summary.json").read_text()) for folder in (copy / "evaluation", expected))
    assert new.keys() >= old.keys()
    for name in old.keys() - {"best_lambda"}:  # of equal AUCs another may be the first
        assert new[name] == pytest.approx(old[name], abs=0.02), name  # a pair of 64 may turn over


@pytest.mark.parametrize("method", METHODS)
def test_the_papers_score_of_image_files_is_the_same(released: Path, copy: Path, method: str, tmp_path: Path) -> None:
    trainer(["score", str(copy), str(released / "images"), "--by", "a", "--out", str(tmp_path / "scores.csv")])
    expected = released / method / "scores-a.csv"
    check_table(tmp_path / "scores.csv", expected, "image", 1e-4)
    check_order(tmp_path / "scores.csv", expected, "a")


@pytest.mark.parametrize("method", ["proposed", "fanogan"])
def test_the_old_calibration_judges_and_is_not_made_anew(
    released: Path, copy: Path, method: str, tmp_path: Path
) -> None:
    """Nor could it be, with the dataset gone."""
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"data": str(tmp_path / "nowhere")}))
    calibration, out = files_of(copy / "calibration"), tmp_path / "scores.csv"
    assert list(calibration) == [f"{LAST[method]}.safetensors"]
    trainer(["score", str(copy), str(released / "images"), "--false-alarms", "0.1", "--out", str(out)])
    expected = released / method / "scores.csv"
    check_table(out, expected, "image", 1e-4, ("fused", "p_value"))
    check_order(out, expected, "fused")
    assert files_of(copy / "calibration") == calibration


def test_a_calibration_made_anew_is_as_the_old_one(released: Path, copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "calibration")
    words = ["score", str(copy), str(released / "images"), "--out", str(tmp_path / "scores.csv"), *cache_of(released)]
    trainer(words)
    name = f"calibration/{LAST['proposed']}.safetensors"
    new, old = load_file(copy / name), load_file(released / "proposed/finished" / name)
    unknown = {key for key in new if key not in old and not key.startswith("made.")}
    since = {"terms.L_c", "terms.L_m", "features", "terms.L_i", "intensities", "weights"}
    assert unknown == since  # which it did not know
    for part, expected in old.items():
        atol = 1e-4 * float(np.abs(expected).max())
        np.testing.assert_allclose(new[part], expected, rtol=1e-4, atol=atol, err_msg=part)


def test_the_audit_is_the_same(released: Path, copy: Path) -> None:
    """It follows from the old calibration, so here nothing turns over."""
    expected = released / "proposed/finished/audit"
    shutil.rmtree(copy / "audit")
    trainer(["audit", str(copy), "--contamination", "0.1", *cache_of(released)])
    check_table(copy / "audit/audit.csv", expected / "audit.csv", "key", 1e-7)
    listed = [
        [line.split()[0] for line in path.read_text().splitlines() if not line.startswith("#")]
        for path in (copy / "audit/exclude.txt", expected / "exclude.txt")
    ]
    assert listed[0] == listed[1] and listed[0]


# Exported folders


def scored_by(folder: Path, released: Path, out: Path) -> Path:
    """What the folder's own score.py makes of the six images."""
    words = [sys.executable, str(folder / "score.py"), str(released / "images.npy"), "--out", str(out)]
    subprocess.run(words, cwd=out.parent, check=True, capture_output=True)
    return out


def test_an_exported_folder_scores_as_it_did(released: Path, tmp_path: Path) -> None:
    found = scored_by(released / "carried", released, tmp_path / "scores.csv")
    check_table(found, released / "carried-scores.csv", "image", 1e-4, ("score", "p_value"))


@pytest.mark.slow
def test_the_old_run_exports_to_the_same_scores(released: Path, copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "carried"
    trainer(["export", str(copy), "--out", str(out), "--false-alarms", "0.1", *cache_of(released)])
    found = scored_by(out, released, tmp_path / "scores.csv")
    check_table(found, released / "carried-scores.csv", "image", 1e-4, ("score", "p_value"))
    new, old = (json.loads((folder / "detector.json").read_text()) for folder in (out, released / "carried"))
    assert new.keys() >= old.keys()
    for name in ("format", "resolution", "channels", "by", "lambda", "threshold"):
        assert new[name] == old[name], name
    assert list(new["terms"]) == list(old["terms"])  # what is said of them may be said better
    with np.load(out / "calibration.npz") as a, np.load(released / "carried/calibration.npz") as b:
        assert all(np.allclose(a[name], b[name], rtol=1e-12) for name in b.files)


# Unfinished runs


@pytest.mark.parametrize("method", [METHODS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in METHODS[1:])])
def test_a_stopped_run_goes_on_to_the_weights_it_would_have_had(released: Path, method: str, tmp_path: Path) -> None:
    """It was stopped in a fade, or in the first of f-AnoGAN's phases; by FARTHEST at most."""
    run = Path(shutil.copytree(released / method / "stopped", tmp_path / "run"))
    train(released, run, method)
    assert f"from {STOPPED_AT[method]} images" in (run / "log.txt").read_text()
    assert (run / "finished.json").exists()
    new, old = (folder / "checkpoints" / LAST[method] for folder in (run, released / method / "finished"))
    networks = sorted(path.name for path in old.glob("*.safetensors"))
    assert networks == sorted(path.name for path in new.glob("*.safetensors"))
    gaps = []
    for network in networks:
        found, expected = load_file(new / network), load_file(old / network)
        assert found.keys() == expected.keys()
        gaps += [np.abs(found[name].astype(np.float64) - expected[name]).ravel() for name in expected]
    every, (most, mean) = np.concatenate(gaps), FARTHEST[method]
    assert every.max() < most and every.mean() < mean, (every.max(), every.mean())


def test_its_metrics_go_on_with_the_same_images(released: Path, tmp_path: Path) -> None:
    """The fingerprints depend on every image and latent vector shown, and on no rounding."""
    run = Path(shutil.copytree(released / "proposed/stopped", tmp_path / "run"))
    train(released, run, "proposed")
    new, old = (
        {line["images_seen"]: line["fingerprint"] for line in lines if "fingerprint" in line}
        for lines in (
            [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
            for folder in (run, released / "proposed/finished")
        )
    )
    after = [seen for seen in old if seen > STOPPED_AT["proposed"] + 32]  # the first line speaks of fewer steps
    assert len(after) > 5 and all(new[seen] == old[seen] for seen in after)


def test_another_configuration_is_refused_as_before(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(released / "proposed/stopped", tmp_path / "run"))
    place = ["--data", str(released / "data"), "--out", str(run), *cache_of(released)]
    assert run_command(trainer, ["train", *TRAINING, *place, "--seed", "7"]) == 2
    assert "differs in --seed" in capsys.readouterr().err


# Sweeps


@pytest.mark.slow
def test_a_sweeps_report_has_the_same_tables(released: Path, tmp_path: Path) -> None:
    sweep, out = released / "sweep", tmp_path / "report"
    tuning(["report", str(sweep), "--out", str(out), "--without-pixels", str(sweep), *cache_of(released)])
    new, old = (
        {path.name: path.read_bytes() for path in folder.glob("*.csv")} for folder in (out, released / "report")
    )
    glance = list(csv.DictReader(old.pop("glance.csv").decode().splitlines()))  # the table of methods took its place
    trials = list(csv.DictReader(new.pop("trials.csv").decode().splitlines()))
    assert new.keys() == old.keys() and len(old) > 3
    for name, content in old.items():
        if not name.endswith("table-2.csv"):  # which sets more published figures beside ours since
            assert new[name] == content, name
            continue
        tables = [list(csv.DictReader(text.decode().splitlines())) for text in (new[name], content)]
        ours = [[{key: row[key] for key in row if not key.startswith("published")} for row in rows] for rows in tables]
        assert ours[0] == ours[1] and len(ours[0]) > 10
    compared = 0
    for row in glance:
        for column, value in row.items():
            method, _, score = column.replace("a, λ 0.05", "a").partition(": ")
            place = (method, float(row["gamma"]), score)
            aucs = [float(t["auc"]) for t in trials if (t["method"], float(t["gamma"]), t["score"]) == place]
            if aucs and value:
                assert np.mean(aucs) == pytest.approx(float(value), abs=1e-12), column
                compared += 1
    assert compared >= 4


@pytest.mark.slow
def test_a_finished_sweep_resumed_has_the_same_tables(released: Path, tmp_path: Path) -> None:
    sweep = Path(shutil.copytree(released / "sweep", tmp_path / "sweep"))
    plan = json.loads((sweep / "plan.json").read_text())
    plan["sweep"] |= {"data": str(released / "data"), "cache": str(released / "cache")}
    (sweep / "plan.json").write_text(json.dumps(plan))
    before = {name: (sweep / name).read_bytes() for name in TABLES}
    for name in TABLES:
        (sweep / name).unlink()
    tuning(["resume", str(sweep)])
    assert {name: (sweep / name).read_bytes() for name in TABLES} == before
