"""Other people's images, scored and audited: what one costs, and what is there after any end."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import images
from cluster.__main__ import main as cluster
from cluster.images import find_units, items
from data_tools.__main__ import main as data_tools
from data_tools.dataset.cache import open_cache
from data_tools.errors import UserError
from data_tools.sources.images import read_image
from data_tools.storage import open_storage, read_bytes
from tests.support.checks import refuses
from tests.support.proxy import FaultProxy
from tests.support.tars import numbered, places_of, png, tar_of
from trainer.__main__ import main as trainer
from trainer.commands.score import map_name
from trainer.report.audit_page import write_page
from trainer.run.folder import run_dataset
from trainer.scoring import audit, detector
from trainer.scoring.criterion import Criterion
from trainer.scoring.detector import Detector
from trainer.scoring.judge import Scored
from trainer.scoring.kept import keep, own_folder
from trainer.scoring.ranked_list import RankedList


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def score(scored: Path, folder: Path, *options: str) -> list[dict[str, str]]:
    out = folder.parent / "s.csv"
    trainer(["score", str(scored), str(folder), "--out", str(out), "--cache", str(scored.parent / "cache"), *options])
    return rows_of(out)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    folder = tmp_path / "cells"
    folder.mkdir()
    for i in range(6):
        (folder / f"c{i}.png").write_bytes(png(i))
    return folder


def test_one_empty_file(scored: Path, cells: Path) -> None:
    plain = score(scored, cells)
    assert "error" not in plain[0] and [float(row["fused"]) for row in plain] == sorted(
        (float(row["fused"]) for row in plain), reverse=True
    )
    (cells / "c3a.png").write_bytes(b"")
    (cells / "=1+1.png").write_bytes(b"x\n")
    refuses(lambda: score(scored, cells), "=1+1.png", "--skip-broken")
    rows = score(scored, cells, "--skip-broken")
    assert [row | {"error": ""} for row in plain] == rows[:6]
    assert [(Path(row["image"]).name, row["fused"], bool(row["error"])) for row in rows[6:]] == [
        ("=1+1.png", "", True),
        ("c3a.png", "", True),
    ]
    assert all("0x" not in row["error"] for row in rows)  # no address in memory
    assert sorted(path.name for path in cells.parent.iterdir()) == ["cells", "s.csv"]


def test_none_can_be_read(scored: Path, cells: Path) -> None:
    for path in cells.iterdir():
        path.write_bytes(b"")
    refuses(lambda: score(scored, cells, "--skip-broken"), "none of 6 images")
    assert len(rows_of(cells.parent / "s.csv")) == 6


def test_latin1_score(scored: Path, cells: Path) -> None:
    (Path(os.fsdecode(os.fsencode(cells) + b"/gr\xf6\xdfe.png"))).write_bytes(png(9))
    rows = score(scored, cells, "--heatmaps", str(cells.parent / "maps"))
    assert sorted(Path(row["image"]).name for row in rows)[-1] == "gr\\xf6\\xdfe.png"
    assert "000006-gr\\xf6\\xdfe.png" in os.listdir(cells.parent / "maps")


def test_long_name(scored: Path, cells: Path) -> None:
    for i in range(3):
        (cells / ("x" * 245 + f"{i:02d}.png")).write_bytes(png(i))
    assert len(score(scored, cells, "--heatmaps", str(cells.parent / "maps"))) == 9
    assert len(list((cells.parent / "maps").iterdir())) == 9


@settings(deadline=None)
@given(st.integers(0, 10**9), st.text(min_size=1, max_size=250))
def test_a_heat_maps_name_fits(number: int, stem: str) -> None:
    assert len(map_name(number, stem).encode()) <= 255


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_what_was_scored_is_there_after_any_end(
    scored: Path,
    cells: Path,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("trainer.commands.score.BATCH", 2)
    expected = {row["image"]: row for row in score(scored, cells)}
    (cells.parent / "s.csv").unlink()
    original, calls = detector.Detector.score, []

    def fails(*words: Any) -> Scored:
        calls.append(1)
        if len(calls) == 3:
            raise error
        return original(*words)

    monkeypatch.setattr(detector.Detector, "score", fails)
    with pytest.raises(error):
        score(scored, cells)
    rows = rows_of(cells.parent / "s.partial.csv")
    assert len(rows) == 4 and all(row == expected[row["image"]] for row in rows)
    assert "4 images were scored until then" in capsys.readouterr().err
    assert sorted(path.name for path in cells.parent.iterdir()) == ["cells", "s.partial.csv"]


def test_two_do_not_write_one_list(scored: Path, cells: Path) -> None:
    judge = Detector.load(str(scored), cache=str(scored.parent / "cache"))
    first = RankedList(cells.parent / "s.csv", ["image", "fused", *judge.columns], False)
    refuses(lambda: score(scored, cells), "--out", "another process")
    first.add(["a"], judge.score(np.zeros((1, 8, 8, 1), np.uint8)))
    first.finish()
    assert [row["image"] for row in rows_of(cells.parent / "s.csv")] == ["a"]
    assert len(score(scored, cells)) == 6


# ---- where data and runs lie ----


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
        len(rows_of(copy / "audit/audit.csv"))
        == json.loads((data / "manifest.json").read_text())["pools"]["train-normal"]
    )
    assert (tmp_path / "carried/detector.json").exists()
    refuses(lambda: run_dataset(str(copy), "", open_cache(tmp_path / "cache")), "--data")


def _scores_as_nobody(words: list[str], home: Path, said: Any) -> None:
    """In a process of its own, which may not write where root may."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = str(home)
    text = io.StringIO()
    with contextlib.redirect_stderr(text):
        try:
            trainer(words)
        except UserError as error:
            text.write(f"error: {error}")
    said.put(text.getvalue())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
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
        said = []
        for more in ([], ["--data", str(place / "nowhere")]):  # the second time nothing is read of the dataset
            queue = multiprocessing.get_context("fork").Queue()
            process = multiprocessing.get_context("fork").Process(
                target=_scores_as_nobody, args=([*words, *more], home, queue)
            )
            process.start()
            said.append(queue.get(timeout=120))
            process.join()
        kept = home / "stratagan/calibrations"
        assert "Permission denied" in said[0] and f"but in {kept}" in said[0] and "note" not in said[1], said
        assert kept.stat().st_mode & 0o777 == 0o700 and len(list(kept.iterdir())) == 1
        expected = Detector.load(str(run), cache=str(run.parent / "cache"))
        first = rows_of(home / "s.csv")[0]
        decoded = images.Path(first["image"])
        assert float(first["fused"]) == pytest.approx(_score_of(expected, decoded), rel=1e-6)
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


# ---- audit ----


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
    rows = rows_of(tmp_path / "audit.csv")
    assert [row["file"] for row in rows] == ["gr\\xf6\\xdfe.png", "a\nb\r.png", "'=1+1\\ud800<script>.png"]
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "gr\\xf6\\xdfe.png" in page and "<script>.png" not in page
    assert "k0" in (tmp_path / "exclude.txt").read_text(encoding="utf-8")


# ---- the whole of cluster score ----


@pytest.mark.slow
def test_tars_that_end_early_count_and_are_the_exit_status(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(tar_of(numbered(6)))
    content[places_of(bytes(content))[4] + 148] ^= 0x55
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "bad.tar").write_bytes(content)
    (folder / "good.tar").write_bytes(tar_of([*numbered(3), ("00.mask.png", png(1))]))
    (Path(os.fsdecode(os.fsencode(folder) + b"/gr\xf6\xdfe.png"))).write_bytes(png(9))  # latin1_many
    (folder / "x.heic").write_bytes(b"")
    words = ["score", "--run", str(scored), "--images", str(folder), "--out", str(tmp_path / "out"), "--actors", "1"]
    with pytest.raises(SystemExit) as first:
        cluster(words)
    said = capsys.readouterr()
    assert first.value.code == 1
    assert "scored 9 images, 1 of them with errors, 1 files ended early" in said.out
    assert "1 masks, 1 images of formats" in said.err and "1 .heic" in said.err
    parts = sorted((tmp_path / "out").glob("part-*.parquet"))
    rows = pyarrow.parquet.read_table([str(part) for part in parts]).to_pylist()
    assert [row["key"] for row in rows] == ["00", "01", "02", "03", "bad.tar", "00", "01", "02", "gr\\xf6\\xdfe.png"]
    with pytest.raises(SystemExit) as again:  # nothing is left to do, and the tar is no better
        cluster(words)
    assert again.value.code == 1 and "3 of 3 files were there already" in capsys.readouterr().out


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


def test_a_list_that_goes_to_a_store_is_there_after_any_end(
    url: str, scored: Path, cells: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (cells / "c9.png").write_bytes(b"")
    monkeypatch.setattr("trainer.commands.score.BATCH", 3)
    words = ["score", str(scored), str(cells), "--cache", str(scored.parent / "cache"), "--out", f"{url}/s.csv"]
    refuses(lambda: trainer(words), "c9.png", "--skip-broken")
    storage = open_storage(url)
    assert storage.names() == ["s.partial.csv"] and f"{url}/s.partial.csv" in capsys.readouterr().err
    assert len(read_bytes(storage, "s.partial.csv").splitlines()) == 7
    trainer([*words, "--skip-broken"])
    assert len(read_bytes(storage, "s.csv").splitlines()) == 8


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_unreadable_file(cells: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        place = Path(shutil.copytree(cells, Path(name) / "cells"))
        for path in (Path(name), place):
            path.chmod(0o755)
        for path in place.iterdir():
            path.chmod(0 if path.name == "c3.png" else 0o644)
        (place / "closed.tar").write_bytes(tar_of(numbered(1)))
        (place / "closed.tar").chmod(0)
        queue = multiprocessing.get_context("fork").Queue()
        process = multiprocessing.get_context("fork").Process(target=_items_as_nobody, args=(place, queue))
        process.start()
        found = queue.get(timeout=60)
        process.join()
        assert [(key, bool(error)) for key, error in found] == [
            ("closed.tar", True),
            *((f"c{i}.png", i == 3) for i in range(6)),
        ]
        assert "Permission denied" in found[0][1] and "Permission denied" in found[4][1]


def _items_as_nobody(folder: Path, found: Any) -> None:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    storage = open_storage(str(folder))
    found.put([(item.key, item.error) for unit in find_units(storage) for item in items(storage, unit)])
