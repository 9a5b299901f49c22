"""Where data, runs and calibrations lie: moved, read-only, refused, planted."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from data_tools.__main__ import main as data_tools
from data_tools.dataset.cache import open_cache
from data_tools.errors import UserError
from data_tools.sources.images import read_image
from data_tools.storage import open_storage
from tests.support.checks import refuses
from tests.support.nobody import as_nobody, needs_root
from tests.support.proxy import FaultProxy
from tests.support.tables import read_csv
from trainer.__main__ import main as trainer
from trainer.run.folder import run_dataset
from trainer.scoring.detector import Detector
from trainer.scoring.kept import keep, own_folder


@pytest.fixture
def moved(run: Path, dataset: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run without calibration whose dataset lies elsewhere, and where."""
    copy, data = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("calibration"))
    shutil.copytree(dataset, data)
    text = (copy / "config.json").read_text()
    assert str(dataset) in text
    (copy / "config.json").write_text(text.replace(str(dataset), str(tmp_path / "gone")))
    return copy, data


@pytest.mark.slow
def test_moved_data(moved: tuple[Path, Path], run: Path, cells: Path, tmp_path: Path) -> None:
    copy, data = moved
    cache = ["--cache", str(run.parent / "cache")]
    commands = {
        "score": ["score", str(copy), str(cells), "--out", str(tmp_path / "s.csv")],
        "audit": ["audit", str(copy), "--contamination", "0.2"],
        "export": ["export", str(copy), "--out", str(tmp_path / "carried"), "--format", "torch"],
    }
    for command in commands.values():
        refuses(lambda command=command: trainer([*command, *cache]), str(tmp_path / "gone"), "--data")
    other = shutil.copytree(data, tmp_path / "other")
    data_tools(["images", str(cells), "--out", str(tmp_path / "mine"), "--resolution", "8"])
    for command in commands.values():
        foreign = [*command, *cache, "--data", str(tmp_path / "mine")]
        refuses(lambda foreign=foreign: trainer(foreign), "--data", "another dataset")
    assert not (copy / "calibration").exists() and not (copy / "audit").exists()
    for name, command in commands.items():
        trainer([*command, *cache, "--data", str(other)])
        if name == "score":
            shutil.rmtree(other)
            trainer([*command, *cache])  # what is calibrated needs no dataset
            shutil.copytree(data, other)
    assert (
        len(read_csv(copy / "audit/audit.csv"))
        == json.loads((data / "manifest.json").read_text())["pools"]["train-normal"]
    )
    assert (tmp_path / "carried/detector.json").exists()
    refuses(lambda: run_dataset(str(copy), "", open_cache(tmp_path / "cache")), "--data")


def _said_of(words: list[str], home: Path) -> str:
    """What scoring says on stderr, with `home` as the home."""
    os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = str(home)
    text = io.StringIO()
    with contextlib.redirect_stderr(text):
        try:
            trainer(words)
        except UserError as error:
            text.write(f"error: {error}")
    return text.getvalue()


@needs_root
def test_read_only_run(run: Path, dataset: Path, cells: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        place = Path(name)
        copy = Path(shutil.copytree(run, place / "run", ignore=shutil.ignore_patterns("calibration")))
        data = Path(shutil.copytree(dataset, place / "data"))
        home, images_here = place / "home", Path(shutil.copytree(cells, place / "cells"))
        home.mkdir()
        os.chown(home, 65534, 65534)
        place.chmod(0o755)
        for path in [copy, data, images_here, *copy.rglob("*"), *data.rglob("*"), *images_here.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        words = ["score", str(copy), str(images_here), "--data", str(data), "--out", str(home / "s.csv")]
        first, second = (  # the second time nothing is read of the dataset
            as_nobody(lambda more=more: _said_of([*words, *more], home))
            for more in ([], ["--data", str(place / "nowhere")])
        )
        kept = home / "stratagan/calibrations"
        assert "Permission denied" in first and f"but in {kept}" in first and "note" not in second, (first, second)
        assert kept.stat().st_mode & 0o777 == 0o700 and len(list(kept.iterdir())) == 1
        expected = Detector.load(str(run), cache=str(run.parent / "cache"))
        row = read_csv(home / "s.csv")[0]
        decoded = Path(row["image"])
        assert float(row["fused"]) == pytest.approx(_score_of(expected, decoded), rel=1e-6)
        assert not (copy / "calibration").exists()


def _score_of(judge: Detector, path: Path) -> float:
    return float(judge.score(read_image(path, judge.resolution, judge.channels)[None]).score[0])


def test_a_calibration_that_others_may_have_planted_is_not_read(tmp_path: Path) -> None:
    made = own_folder(tmp_path, make=True)
    assert made and made.stat().st_mode & 0o777 == 0o700 and own_folder(tmp_path, make=False) == made
    made.chmod(0o777)
    assert own_folder(tmp_path, make=False) is None
    refuses(lambda: own_folder(tmp_path, make=True), "calibrations", "remove it")
    made.rmdir()
    made.symlink_to(tmp_path)
    assert own_folder(tmp_path, make=False) is None
    refuses(lambda: own_folder(tmp_path, make=True), "link")


def test_a_calibration_that_the_store_refuses_is_kept_here(
    url: str, proxy: FaultProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.refuse(1, 403, "AccessDenied")
    keep(b"made", f"{url}/run", "images-1.safetensors", tmp_path, "digest.safetensors")
    assert (tmp_path / "calibrations/digest.safetensors").read_bytes() == b"made"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "AccessDenied" in said and str(tmp_path / "calibrations") in said
    keep(b"made", f"{url}/run", "images-1.safetensors", tmp_path, "digest.safetensors")
    assert open_storage(f"{url}/run/calibration").names() == ["images-1.safetensors"] and not capsys.readouterr().err
