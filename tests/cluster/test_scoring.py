"""Batch scoring: tars, folders and tables in; each image once, whatever is broken or killed on the way."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from cluster import scoring
from cluster.calibration import Calibrated
from cluster.images import Unit, find_units
from cluster.scoring import ScoringConfig, part_name, score_images
from cluster.unit_table import png_of, score_unit
from data_tools.dataset.reader import open_dataset
from data_tools.storage import open_storage, read_bytes, write_bytes
from tests.support.checks import refuses
from trainer.scoring import detector
from trainer.scoring.criterion import Criterion
from trainer.scoring.detector import Detector
from trainer.scoring.heat import strength
from trainer.scoring.loading import Learned, load_detector
from tuning.sweep import averaged

BROKEN = (b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40))
ROOT = Path(__file__).parents[2]


def config_of(run: Path, images: Path | str, out: Path | str) -> ScoringConfig:
    return ScoringConfig(str(run), str(images), str(out), actors=2)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def judge(run: Path, dataset: Path) -> Detector:
    return Detector.load(str(run), cache=str(dataset.parent / "cache"))


@pytest.fixture(scope="module")
def patches(dataset: Path, judge: Detector) -> np.ndarray:
    """Images of the detector's own size, which nothing resizes."""
    images = open_dataset(str(dataset)).images("test-normal")
    return averaged(images, images.shape[1] // judge.inference.resolution)


def table_of(folder: Path, run: Path, criterion: Criterion, heatmaps: bool = False) -> list[dict]:
    storage, loaded = open_storage(str(folder)), Detector.load(str(run), criterion)
    tables = [score_unit(storage, unit, loaded, heatmaps).table for unit in find_units(storage)]
    return pyarrow.concat_tables(tables).to_pylist()


@pytest.mark.parametrize("kind", ["tar", "files", "table", "structs"])
def test_every_source_gives_the_judges_scores_and_names_what_is_broken(
    kind: str, tmp_path: Path, run: Path, judge: Detector, patches: np.ndarray
) -> None:
    contents = {f"p{i}": png(patch) for i, patch in enumerate(patches)} | {f"x{i}": b for i, b in enumerate(BROKEN)}
    if kind == "tar":
        files = {f"{key}.{end}": body for key, png in contents.items() for end, body in (("png", png), ("json", b"{}"))}
        write_tar(tmp_path / "a.tar", files)
    elif kind == "files":
        for key, content in contents.items():
            (tmp_path / f"{key}.png").write_bytes(content)
    else:
        cells = [{"bytes": content, "path": None} if kind == "structs" else content for content in contents.values()]
        table = pyarrow.table({"key": list(contents), "image": cells})
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    rows = table_of(tmp_path, run, Criterion())
    expected = judge.score(patches)
    assert expected.p_value is not None
    found = {row["key"].removesuffix(".png"): row for row in rows}
    assert found.keys() == contents.keys() and len(rows) == len(contents)
    for i in range(len(patches)):
        row = found[f"p{i}"]
        assert row["error"] is None
        for name, column in expected.terms.items():
            assert row[name] == pytest.approx(column[i], rel=1e-5)
        assert row["p_value"] == expected.p_value[i] and row["score"] == pytest.approx(expected.score[i], rel=1e-12)
    for i in range(len(BROKEN)):
        row = found[f"x{i}"]
        assert row["error"].startswith(row["key"]) and "\n" not in row["error"] and row["score"] is None


def test_a_tar_that_ends_too_soon_keeps_what_could_be_read(tmp_path: Path, run: Path, patches: np.ndarray) -> None:
    write_tar(tmp_path / "whole/a.tar", {f"p{i}.png": png(patch) for i, patch in enumerate(patches)})
    (tmp_path / "cut").mkdir()
    content = (tmp_path / "whole/a.tar").read_bytes()
    (tmp_path / "cut/a.tar").write_bytes(content[: 2 * 1024 + 520])  # within the third
    (tmp_path / "cut/b.tar").write_bytes(b"no tar")
    (tmp_path / "cut/c.parquet").write_bytes(b"no table")
    pyarrow.parquet.write_table(pyarrow.table({"label": [1]}), tmp_path / "cut/d.parquet")
    rows = table_of(tmp_path / "cut", run, Criterion())
    assert [row["key"] for row in rows if not row["error"]] == ["p0", "p1"]
    assert [row["key"] for row in rows if row["error"]] == ["a.tar", "b.tar", "c.parquet", "d.parquet"]


def test_verdicts_and_heat_maps(tmp_path: Path, run: Path, judge: Detector, patches: np.ndarray) -> None:
    write_tar(tmp_path / "a.tar", {f"p{i}.png": png(patch) for i, patch in enumerate(patches)})
    limit = judge.threshold("contamination", 0.3)
    rows = table_of(tmp_path, run, Criterion(contamination=0.3), heatmaps=True)
    assert [row["anomalous"] for row in rows] == [row["score"] > limit.value for row in rows]
    maps = np.stack([np.asarray(Image.open(io.BytesIO(row["heatmap"]))) for row in rows])
    np.testing.assert_allclose(maps / 255, strength(judge.heat(patches)), atol=0.51 / 255)


def test_the_papers_score_needs_no_training_images(
    tmp_path: Path, run: Path, judge: Detector, patches: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "a.tar", {f"p{i}.png": png(patch) for i, patch in enumerate(patches)})
    monkeypatch.setattr(detector, "calibration_of", lambda *_: pytest.fail("calibrated"))
    a = judge.inference.values(patches).anomaly(0.3)
    rows = table_of(tmp_path, run, Criterion("a", 0.3, threshold=float(np.median(a))), heatmaps=True)
    np.testing.assert_allclose([row["score"] for row in rows], a, rtol=1e-12)
    assert [row["anomalous"] for row in rows] == (a > np.median(a)).tolist()
    assert rows[0].keys() >= {"L_n", "L_o", "L_r"} and "p_value" not in rows[0]
    maps = np.stack([np.asarray(Image.open(io.BytesIO(row["heatmap"]))) for row in rows])
    np.testing.assert_allclose(maps / 255, judge.inference.heatmap(patches), atol=0.51 / 255)


def test_units_are_the_same_at_every_look(tmp_path: Path) -> None:
    write_tar(tmp_path / "b/a.tar", {"p.png": b""})
    for i in range(5):
        (tmp_path / f"{i}.JPG").write_bytes(b"")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    expected = [Unit("tar", ("b/a.tar",)), Unit("files", tuple(f"{i}.JPG" for i in range(5)))]
    assert find_units(open_storage(str(tmp_path))) == expected
    refuses(lambda: find_units(open_storage(str(tmp_path / "none"))), "none", "no tars")


def rows_of(out: Path) -> list[dict]:
    return pyarrow.parquet.read_table([str(path) for path in sorted(out.glob("part-*.parquet"))]).to_pylist()


@pytest.mark.slow
def test_on_ray_through_s3_and_again(
    url: str, tmp_path: Path, run: Path, patches: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(f"{url}/images")
    for shard in range(3):
        write_tar(tmp_path / f"{shard}.tar", {f"{shard}-{i}.png": png(patch) for i, patch in enumerate(patches)})
        with storage.write(f"{shard}.tar") as file:
            file.write((tmp_path / f"{shard}.tar").read_bytes())
    config = config_of(run, f"{url}/images", f"{url}/scores")
    done = score_images(config)
    assert (done.images, done.errors, done.units, done.units_before) == (3 * len(patches), 0, 3, 0)
    out, names = open_storage(f"{url}/scores"), [unit for unit in find_units(storage)]
    assert out.names() == sorted(["plan.json", *(part_name(i, unit) for i, unit in enumerate(names))])
    again = score_images(config)  # without Ray: nothing is left to do
    assert (again.images, again.units, again.units_before) == (0, 3, 3)
    out.remove(part_name(1, names[1]))
    assert score_images(config).images == len(patches)
    other = dataclasses.replace(config, criterion=Criterion(lam=0.5))
    refuses(lambda: score_images(other), "lambda", "--out")
    too_few = dataclasses.replace(config, criterion=Criterion(false_alarms=1e-6), out=f"{url}/none")
    refuses(lambda: score_images(too_few), "--false-alarms", "too small")  # found by a worker
    assert not open_storage(f"{url}/none").names()

    def other_begins() -> Calibrated:
        write_bytes(open_storage(f"{url}/both"), "plan.json", read_bytes(out, "plan.json").replace(b"0.05", b"0.5"))
        return Calibrated("", Learned((None,)))

    monkeypatch.setattr(scoring, "calibrated_once", lambda *_: other_begins())
    refuses(lambda: score_images(dataclasses.replace(config, out=f"{url}/both")), "lam", "--out")
    assert open_storage(f"{url}/both").names() == ["plan.json"]
    storage.remove("2.tar")
    refuses(lambda: score_images(config), "--images", "has changed")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"criterion": Criterion(lam=1.5)}, ["--lambda", "1.5"]),
        ({"criterion": Criterion("norm")}, ["--by norm", "fused"]),
        ({"criterion": Criterion(threshold=1.0, false_alarms=0.1)}, ["--false-alarms", "--threshold", "exclude"]),
        ({"actors": -1}, ["--actors", "-1"]),
        ({"run": "nowhere"}, ["nowhere"]),
        ({"images": "nowhere"}, ["nowhere", "no tars"]),
    ],
)
def test_wrong_options_leave_nothing_behind(tmp_path: Path, run: Path, change: dict, words: list[str]) -> None:
    write_tar(tmp_path / "images/a.tar", {"p.png": b""})
    config = dataclasses.replace(config_of(run, tmp_path / "images", tmp_path / "out"), **change)
    refuses(lambda: score_images(config), *words)
    assert not list((tmp_path / "out").glob("*"))


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, run: Path) -> None:
    write_tar(tmp_path / "images/a.tar", {"p.png": b""})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("1")
    refuses(lambda: score_images(config_of(run, tmp_path / "images", tmp_path / "out")), "mine.txt")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_a_hundred_thousand_images_and_a_kill_half_way(tmp_path: Path, run: Path, patches: np.ndarray) -> None:
    """One in a hundred is broken. The whole process group is killed when half of the files are there."""
    shards, each, rng = 50, 2000, np.random.default_rng(0)
    for shard in range(shards):
        broken = set(rng.choice(each, each // 100, replace=False).tolist())
        files = {}
        for i in range(each):
            patch = patches[i % len(patches)] ^ rng.integers(0, 8, patches.shape[1:], dtype=np.uint8)
            files[f"{shard:02d}-{i:04d}.png"] = BROKEN[i % 3] if i in broken else png(patch)
        write_tar(tmp_path / f"images/{shard:02d}.tar", files)
    places = ["--run", run, "--images", tmp_path / "images", "--out", tmp_path / "out"]
    words = [sys.executable, "-m", "cluster", "score", *map(str, places)]
    process = subprocess.Popen(words, cwd=ROOT, start_new_session=True)
    while len(list((tmp_path / "out").glob("part-*"))) < shards / 2:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    subprocess.run(words, cwd=ROOT, check=True)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    assert len(after) == shards and len(before) < shards and after.items() >= before.items()
    rows = rows_of(tmp_path / "out")
    assert len(rows) == len({row["key"] for row in rows}) == shards * each
    assert sum(row["error"] is not None for row in rows) == shards * each // 100
    assert all((row["score"] is None) == (row["error"] is not None) for row in rows)


def test_png_of_keeps_the_ends() -> None:
    found = np.asarray(Image.open(io.BytesIO(png_of(np.array([[0.0, 1.0], [0.5, 0.25]])))))
    assert found.tolist() == [[0, 255], [128, 64]]


def table_at(url: str) -> list[dict]:
    storage = open_storage(url)
    parts = [io.BytesIO(read_bytes(storage, name)) for name in sorted(storage.names()) if name.startswith("part-")]
    return [row for part in parts for row in pyarrow.parquet.read_table(part).to_pylist()]


@pytest.mark.slow
def test_several_runs_on_ray(url: str, tmp_path: Path, run: Path, full: Path, patches: np.ndarray) -> None:
    write_tar(tmp_path / "images" / "a.tar", {f"{i}.png": png(patch) for i, patch in enumerate(patches)})
    runs = f"{run},{shutil.copytree(full, tmp_path / 'other')}"
    config = dataclasses.replace(config_of(run, str(tmp_path / "images"), f"{url}/joined"), run=runs)
    assert score_images(config).images == len(patches)
    rows = table_at(f"{url}/joined")
    ours = load_detector(runs, cache=str(full.parent / "cache")).score(patches)
    np.testing.assert_allclose([row["score"] for row in rows], ours.score, rtol=1e-6)
    assert rows[0].keys() >= {"p_value", run.name, "other"}
