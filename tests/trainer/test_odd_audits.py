"""Audits of other people's images, and what lies where they go."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.support.checks import refuses
from tests.support.tables import read_csv
from trainer.__main__ import main as trainer
from trainer.report.audit_page import write_page
from trainer.scoring import audit
from trainer.scoring.criterion import Criterion
from trainer.scoring.detector import Detector


def test_tilde_audit_and_what_lies_at_out(scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    cache = ["--cache", str(scored.parent / "cache"), "--contamination", "0.05"]
    (tmp_path / "mine.txt").write_text("precious")
    refuses(lambda: trainer(["audit", str(scored), "--out=~/", *cache]), "mine.txt", "--out")  # the home itself
    trainer(["audit", str(scored), "--out=~/audit", *cache])
    assert sorted(os.listdir(tmp_path)) == ["audit", "mine.txt"]
    before = (tmp_path / "audit/audit.csv").read_bytes()
    refuses(lambda: trainer(["audit", str(scored), "--out=~/mine.txt", *cache]), "mine.txt", "--out")
    monkeypatch.setattr("trainer.report.audit_page.write_page", lambda *_: pytest.fail("no page"))
    with pytest.raises(pytest.fail.Exception):
        trainer(["audit", str(scored), "--out=~/audit", *cache])
    assert sorted(os.listdir(tmp_path / "audit")) == ["audit.csv", "exclude.txt", "index.html"]
    assert (tmp_path / "audit/audit.csv").read_bytes() == before


def test_latin1_audit(scored: Path, tmp_path: Path) -> None:
    """Provenance of any text goes into table, list and page."""
    judge = Detector.load(str(scored), Criterion(contamination=0.2), cache=str(scored.parent / "cache"))
    worst = np.zeros((3, 8, 8, 1), np.uint8)
    files = ["gr\udcf6\udcdfe.png", "a\nb\r.png", "=1+1\ud800<script>.png"]
    origins = [f'{{"key": "k{i}", "pool": "train-normal", "file": {json.dumps(file)}}}' for i, file in enumerate(files)]
    ranking = audit.Ranking(judge.score(worst), origins, worst, np.arange(3))
    audit.write_table(tmp_path / "audit.csv", ranking, "fused")
    audit.write_exclusions(tmp_path / "exclude.txt", ranking, 3, judge.meaning)
    write_page(tmp_path / "index.html", ranking, judge)
    rows = read_csv(tmp_path / "audit.csv")
    assert [row["file"] for row in rows] == ["gr\\xf6\\xdfe.png", "a\nb\r.png", "'=1+1\\ud800<script>.png"]
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "gr\\xf6\\xdfe.png" in page and "<script>.png" not in page
    assert "k0" in (tmp_path / "exclude.txt").read_text(encoding="utf-8")
