"""A run on images that nobody has labelled: its best checkpoint is found by synthetic anomalies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.__main__ import main as data_tools
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import training_set
from tests.support.runs import cut_back, lines, words_of
from trainer.__main__ import main as trainer
from trainer.config import TrainConfig
from trainer.run.checkpoint import chosen_checkpoint, newest_checkpoint
from trainer.run.saving import PROBES
from trainer.scoring.inference import Inference
from trainer.scoring.synthetic import CORRUPTIONS, corrupted, separation
from trainer.training import first_worker


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 300 images of gentle slopes."""
    place = tmp_path_factory.mktemp("unlabelled")
    draw, (y, x) = np.random.default_rng(0), np.mgrid[:16, :16] / 16
    (place / "images").mkdir()
    for i in range(300):
        slope = 90 + 60 * (draw.uniform(-1, 1) * y + draw.uniform(-1, 1) * x) + draw.normal(0, 3, y.shape)
        Image.fromarray(slope.clip(0, 255).astype(np.uint8)).save(place / "images" / f"{i:03d}.png")
    data_tools(["images", str(place / "images"), "--out", str(place / "data"), "--resolution", "16"])
    trainer(words_of(place / "data", place / "run", place / "cache"))
    return place / "run"


def test_the_best_checkpoint_is_the_one_that_tells_made_anomalies_best(unlabelled: Path) -> None:
    found = {
        f"images-{line['images_seen']:09d}": line["validation/separation"]
        for line in lines(unlabelled)
        if "validation/separation" in line
    }
    best = max(found, key=lambda name: found[name])
    assert json.loads((unlabelled / "best.json").read_text()) == {"checkpoint": best, "separation": found[best]}
    assert chosen_checkpoint(str(unlabelled), best=True).endswith(best)
    assert not any("validation/L_n" in line for line in lines(unlabelled)), "there is nothing to validate on"


def test_the_measure_is_what_public_functions_give(unlabelled: Path) -> None:
    inference = Inference.load(unlabelled)
    config = inference.config
    images = training_set(open_dataset(config.data), 0.0, config.seed).at(np.arange(PROBES))
    usual = inference.values(images, inference.quick)
    by_term = []
    for term in inference.quick:
        made = [inference.values(corrupted(images, kind, 0), inference.quick)[term.name] for kind in CORRUPTIONS]
        by_term.append(np.median([separation(usual[term.name], scores) for scores in made]))
    seen = int(newest_checkpoint(unlabelled)[-9:])
    (said,) = [
        line["validation/separation"]
        for line in lines(unlabelled)
        if line["images_seen"] == seen and "validation/separation" in line
    ]
    assert said == pytest.approx(max(by_term), abs=1e-6)


def test_best_is_taken_by_score_and_audit(unlabelled: Path, tmp_path: Path) -> None:
    images = unlabelled.parent / "images"
    cache = ["--cache", str(unlabelled.parent / "cache")]
    trainer(["score", str(unlabelled), str(images / "000.png"), "--best", "--out", str(tmp_path / "s.csv"), *cache])
    trainer(["audit", str(unlabelled), "--best", "--out", str(tmp_path / "audit"), *cache])
    assert (tmp_path / "s.csv").exists() and (tmp_path / "audit" / "audit.csv").exists()


def test_an_auc_that_cannot_be_had_is_no_reason_to_validate_again_and_again(
    unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is settled by whatever was recorded of it."""
    run = cut_back(unlabelled, 192, tmp_path / "run")
    words = words_of(unlabelled.parent / "data", run, unlabelled.parent / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first_worker.FirstWorker, "log", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                trainer([*words, "--best-by", "a_paper"])
    seen = [line["images_seen"] for line in lines(run) if "validation/separation" in line]
    assert len(seen) == len(set(seen))


def test_a_sweep_prunes_by_an_auc_whatever_the_best_is_by() -> None:
    assert [TrainConfig(best_by=by).pruned_by for by in ("auto", "separation", "L_n")] == ["a_paper", "a_paper", "L_n"]
