"""Every page in a real browser: whole, no wider than a screen or a phone, dark where the reader's screen is dark."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.browser import measured, needs_browser, screenshot
from tests.support.made_up_sweep import Made, make_sweep
from tests.support.report_page import report
from trainer.__main__ import main as trainer
from trainer.config import TrainConfig
from trainer.report.audit_page import embedded
from tuning.clean import Done, Rounds
from tuning.report.rounds_page import rounds_page

pytestmark = [needs_browser, pytest.mark.slow]


def evaluation(folder: Path, run: Path) -> Path:
    shutil.copytree(run, folder / "run")
    trainer(["evaluate", str(folder / "run"), "--cache", str(run.parent / "cache")])
    return folder / "run/evaluation/index.html"


def audit(folder: Path, run: Path) -> Path:
    words = ["--contamination", "0.1", "--out", str(folder / "audit"), "--cache", str(run.parent / "cache")]
    trainer(["audit", str(run), *words])
    return folder / "audit/index.html"


def sweep(folder: Path, run: Path) -> Path:
    made = make_sweep(folder / "sweep", Made(gammas=(0.0, 0.02), methods=("proposed", "fanogan")))
    report([made], folder / "report", [made])
    return folder / "report/index.html"


def rounds(folder: Path, run: Path) -> Path:
    picture = embedded(np.full((8, 8, 1), 90, np.uint8))
    images = [{"key": f"image {i}", "p": 0.01, "pool": "train-normal", "picture": picture} for i in range(30)]
    page = rounds_page("geom", Rounds("out", TrainConfig(), 1, 0.02), [Done(1, 1500, images)], planted=0)
    (folder / "index.html").write_text(page)
    return folder / "index.html"


@pytest.mark.parametrize("write", [evaluation, audit, sweep, rounds])
def test_a_page_is_whole_on_a_screen_and_on_a_phone_by_day_and_by_night(write, tmp_path: Path, scored: Path) -> None:
    page = write(tmp_path, scored)
    for width in (1200, 390):
        assert measured(page, width) == (width, 0), "nothing sticks out, and every picture is there"
    light, dark = (screenshot(page, tmp_path / f"{dark}.png", dark=dark) for dark in (False, True))
    assert light[5, 5].min() > 240 and dark[5, 5].max() < 60, "the paper"
    for shown in (light, dark):
        assert (np.abs(shown[:, :, 0].astype(int) - int(shown[5, 5, 0])) > 80).mean() > 0.005, (
            "something is written on it"
        )
