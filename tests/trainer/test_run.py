"""From shards to scores: the run folder, resuming, two Ray workers, the score table and the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_tools.dataset.reader import open_dataset
from data_tools.sources.images import read_image
from tests.support.runs import TINY, lines, said
from tests.support.tables import read_csv
from trainer.__main__ import main as trainer
from trainer.run.checkpoint import newest_checkpoint
from trainer.scoring.inference import Inference


def weights(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(newest_checkpoint(run)).glob("*.safetensors")}


def test_a_run_folder_explains_itself(run: Path) -> None:
    assert {path.name for path in run.iterdir() if path.is_file()} == {
        *("config.json", "log.txt", "metrics.jsonl", "best.json", "finished.json")
    }
    config = json.loads((run / "config.json").read_text())
    assert config["width"] == 8 and config["preset"] == "demo" and len(config["dataset_digest"]) == 64
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [
        f"images-{seen:09d}" for seen in (64, 128, 224)
    ]
    seen = [line["images_seen"] for line in lines(run) if "critic/loss" in line]
    assert seen == [32, 64, 96, 128, 160, 192, 224]
    validated = [line["images_seen"] for line in lines(run) if "validation/L_n" in line]
    assert validated == [64, 128, 224], "in the order of their checkpoints, each perhaps after later lines"
    assert "8x8 stable" in (run / "log.txt").read_text().splitlines()[-1]
    pictures = {path.name for path in (run / "pictures").iterdir()}
    assert {f"000000224-{name}.png" for name in ("real", "generated", "reconstructed")} <= pictures


def test_tensorboard_shows_every_part(run: Path) -> None:
    events = EventAccumulator(str(run / "events"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    critic = {f"critic/{name}" for name in ("wasserstein", "penalty", "drift", "score_real", "score_fake")}
    others = {"generator/adversarial", "encoder/distance", "encoder/z_hat_norm", "growth/resolution", "growth/alpha"}
    assert critic | others | {"speed/images_per_sec", "speed/sec_per_kimg", "validation/L_n"} <= scalars
    assert {"real", "generated", "reconstructed"} <= set(events.Tags()["images"])
    alpha = {event.step: event.value for event in events.Scalars("growth/alpha")}
    assert (alpha[64], alpha[96], alpha[128]) == (1, 0.5, 1)


def test_a_finished_run_says_so_and_stays_as_it_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = weights(run)
    config = json.loads((run / "config.json").read_text())
    trainer(["train", "--data", config["data"], "--out", str(run), "--cache", config["cache"], *TINY])
    assert "this run is finished" in capsys.readouterr().out and weights(run) == before


def test_a_run_that_was_cut_off_ends_bit_identical(run: Path, dataset: Path, tmp_path: Path) -> None:
    """What a kill in the second phase leaves: the checkpoint of the first, and lines of metrics beyond it."""
    cut = tmp_path / "run"
    shutil.copytree(run, cut)
    for seen in (128, 224):
        shutil.rmtree(cut / "checkpoints" / f"images-{seen:09d}")
    kept = [json.dumps(line) for line in lines(run) if line["images_seen"] <= 96]
    (cut / "metrics.jsonl").write_text("\n".join([*kept, '{"images_seen": 112, "crit']))
    trainer(["train", "--data", str(dataset), "--out", str(cut), "--cache", str(run.parent / "cache"), *TINY])
    assert weights(cut) == weights(run)
    assert said(cut) == said(run)


def test_two_ray_workers_see_what_one_process_sees(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(dataset, tmp_path / "shards")
    monkeypatch.chdir(tmp_path)  # paths as a person types them
    trainer(["train", "--data", "shards", "--out", "run", "--cache", "cache", *TINY, "--workers", "2"])
    out = tmp_path / "run"
    later = {"evaluation", "calibration"}  # what tests that share the run may have made of it by now
    assert {path.name for path in out.iterdir()} == {path.name for path in run.iterdir()} - later
    one, two = lines(run), lines(out)
    assert sorted(line["images_seen"] for line in one) == sorted(line["images_seen"] for line in two)
    for name in ("critic/wasserstein", "critic/penalty", "generator/loss", "encoder/distance"):
        assert two[0][name] == pytest.approx(one[0][name], rel=1e-3, abs=1e-4), name
    assert "2 worker(s)" in (out / "log.txt").read_text()


@pytest.fixture(scope="module")
def evaluated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(run, copy)
    trainer(["evaluate", str(copy), "--cache", str(run.parent / "cache")])
    return copy


def test_the_score_table_holds_every_test_image_and_gives_the_aucs(evaluated: Path, dataset: Path) -> None:
    rows = read_csv(evaluated / "evaluation" / "scores.csv")
    labels = [row["label"] == "anomaly" for row in rows]
    assert len(rows) == 24 and sum(labels) == 12
    summary = json.loads((evaluated / "evaluation" / "summary.json").read_text())
    for name in ("L_n", "L_o", "L_r"):
        assert summary[name] == pytest.approx(roc_auc_score(labels, [float(row[name]) for row in rows]))
    a = [summary["best_lambda"] * float(r["L_n"]) + (1 - summary["best_lambda"]) * float(r["L_o"]) for r in rows]
    assert summary["a_best"] == pytest.approx(roc_auc_score(labels, a))
    origin = open_dataset(str(dataset)).provenance("test-anomaly")[0]
    row = next(row for row in rows if row["key"] == origin["key"])
    assert [row[name] for name in ("sequence", "frame", "object", "class")] == [
        str(origin[name]) for name in ("sequence", "frame", "object", "class")
    ]


def test_the_report_shows_only_pictures_that_are_there(evaluated: Path) -> None:
    folder = evaluated / "evaluation"
    page = (folder / "index.html").read_text()
    sources = [part.split('"')[0] for part in page.split('src="')[1:]]
    assert {"roc.png", "histograms.png", "lambda.png", "matches-normal.png", "generated.png"} <= set(sources)
    for source in sources:
        assert min(Image.open(folder / source).size) > 50
    assert "12 anomalous, 12 normal images" in page and "a, lambda 0.05" in page


def test_images_are_scored_worst_first_with_heat_maps(run: Path, videos: Path, tmp_path: Path) -> None:
    frames = sorted((videos / "seq_00").iterdir())
    out, maps = tmp_path / "scores.csv", tmp_path / "maps"
    words = ["score", str(run), str(videos / "seq_00"), str(frames[0]), "--out", str(out), "--heatmaps", str(maps)]
    trainer([*words, "--by", "a", "--lam", "0.9", "--threshold", "-1000"])
    rows = read_csv(out)
    a = [float(row["a"]) for row in rows]
    assert a == sorted(a, reverse=True) and {row["anomalous"] for row in rows} == {"yes"}
    assert sorted(row["image"] for row in rows) == sorted(map(str, [*frames, frames[0]]))
    detector = Inference.load(run)
    images = np.stack([read_image(Path(row["image"]), detector.resolution, detector.channels) for row in rows])
    assert a == pytest.approx(detector.values(images, detector.quick).anomaly(0.9).tolist(), rel=1e-6)
    pictures = sorted(maps.iterdir())
    assert len(pictures) == len(rows) and Image.open(pictures[0]).size == (3 * 8 * 4, 8 * 4)
