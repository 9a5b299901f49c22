"""Other people's folders: nothing is left out without a word, and no label missed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_tools.__main__ import main as data_tools
from data_tools.dataset.manifest import read_manifest
from data_tools.errors import run_command
from data_tools.sources.images import Images, find_images, read_image
from data_tools.sources.layout import MAX_KINDS
from data_tools.storage import open_storage
from data_tools.walk import walk
from tests.support.checks import refuses
from tests.support.odd_images import GREY, cell, cells


def test_linked_folder(tmp_path: Path) -> None:
    cells(tmp_path / "store", 6, first=6)
    cells(tmp_path / "in" / "plain")
    (tmp_path / "in" / "linked").symlink_to("../store")
    (tmp_path / "in" / "again").symlink_to("plain")  # what has a path of its own is not read twice
    (tmp_path / "in" / "plain" / "circle").symlink_to("..")
    (tmp_path / "store" / "circle").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path / "in").as_posix() for path in find_images(tmp_path / "in")]
    assert found == [f"linked/c{n:03d}.png" for n in range(6, 12)] + [f"plain/c{n:03d}.png" for n in range(6)]
    assert sorted(name for name, _ in open_storage(str(tmp_path / "in")).tree()) == found
    assert len(list(Images(tmp_path / "in", resolution=8).plan().patches())) == 12


def test_other_endings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells(tmp_path)
    for number in range(6):
        cell(number).save(tmp_path / f"j{number}.jfif", "JPEG")
        (tmp_path / f"h{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "scan.czi").write_bytes(b"ZISRAWFILE")
    assert len(find_images(tmp_path)) == 12
    assert capsys.readouterr().err == (
        f"left out in {tmp_path}: 1 .czi, which is not read; 6 .heic, which is not read\n"
    )
    for path in [*tmp_path.glob("*.png"), *tmp_path.glob("*.jfif")]:
        path.unlink()
    refuses(lambda: find_images(tmp_path), "holds no images", "6 .heic")


def test_closed_folders_and_files_are_named() -> None:
    """Read by a user without rights: this one may be root, who may do everything."""
    with tempfile.TemporaryDirectory() as scratch:  # whose parents are open, unlike those of tmp_path
        Path(scratch).chmod(0o755)
        folder = cells(Path(scratch) / "in")
        (cells(folder / "shut")).chmod(0)
        (folder / "c003.png").chmod(0)
        cells(Path(scratch) / "open")
        code = f"""
import os
from pathlib import Path
from data_tools.errors import UserError
from data_tools.sources.images import Images, find_images
list(Images(Path({scratch!r}, "open"), resolution=8).plan().patches())  # what is imported late is imported now
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
folder = Path({scratch!r}, "in")
print(len(find_images(folder)))
try:
    list(Images(folder, resolution=8).plan().patches())
except UserError as error:
    print(error)
print(len(list(Images(folder, resolution=8, skip_broken=True).plan().patches())))
"""
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
        (folder / "shut").chmod(0o755)
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and lines[0] == "6" and lines[2] == "5", (done.stdout, done.stderr)
    assert lines[1].startswith(f"{folder}/c003.png: Permission denied")
    assert lines[1].endswith("--skip-broken to skip it")
    assert "1 x closed folder (shut)" in done.stderr and "warning: skipped 1 broken image" in done.stderr


def test_pipe_and_dangling_hidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither is ever opened: a pipe would be waited for, for ever."""
    cells(tmp_path)
    os.mkfifo(tmp_path / "live.png")
    (tmp_path / ".#notes.txt").symlink_to("/nowhere/at-all")
    (tmp_path / "gone.png").symlink_to("/nowhere/at-all")
    (tmp_path / "gone.txt").symlink_to("/nowhere/at-all")
    for name in (".DS_Store", "._c000.png", "Thumbs.db", "desktop.ini", "~$c000.png", "__MACOSX/._c000.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0")
    assert len(find_images(tmp_path)) == 6
    assert "2 x pipe, device or dangling link (gone.png and 1 more)" in capsys.readouterr().err
    out = tmp_path.with_name(f"{tmp_path.name}-out")
    assert run_command(data_tools, ["images", str(tmp_path), "--out", str(out), "--resolution", "8"]) == 0
    assert read_manifest(open_storage(str(out))).count("train-unlabelled") == 6
    refuses(lambda: find_images(tmp_path / "live.png"), "live.png", "not a regular file")
    refuses(lambda: read_image(tmp_path / "live.png", 8, 1), "live.png", "not a regular file")
    assert [path.name for path in walk(tmp_path).files] == [f"c{number:03d}.png" for number in range(6)]


def pools_of(folder: Path, **options: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    settings: dict[str, Any] = {"resolution": 8, "test_size": 1}
    for patch in Images(folder, **(settings | options)).plan().patches():
        found.setdefault(patch.pool, []).append(patch.provenance["file"])
    return {pool: sorted(files) for pool, files in found.items()}


@pytest.mark.parametrize("normal, anomaly", [("Normal", "Anomaly"), ("good", "defect"), ("OK", "NG"), ("GOOD", "bad")])
def test_capital_names(tmp_path: Path, normal: str, anomaly: str) -> None:
    cells(tmp_path / normal)
    cells(tmp_path / anomaly, first=6)
    pools = pools_of(tmp_path)
    assert {pool: len(files) for pool, files in pools.items()} == {
        "train-normal": 5, "test-normal": 1, "train-anomaly": 5, "test-anomaly": 1,
    }  # fmt: skip
    assert all(file.startswith(normal) for pool in pools if "normal" in pool for file in pools[pool])
    assert all(file.startswith(anomaly) for pool in pools if "anomaly" in pool for file in pools[pool])


def mvtec(folder: Path) -> Path:
    cells(folder / "train" / "good", 5)
    cells(folder / "test" / "good", 3, 10)
    cells(folder / "test" / "scratch", 2, 20)
    cells(folder / "test" / "hole", 2, 30)
    for name, first in (("scratch", 20), ("hole", 30)):
        for number in range(first, first + 2):
            place = folder / "ground_truth" / name / f"c{number:03d}_mask.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((16, 16), 255, np.uint8)).save(place)
    return folder


def test_mvtec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pools = pools_of(mvtec(tmp_path / "bottle"))
    assert pools == {
        "train-normal": [f"train/good/c{n:03d}.png" for n in range(5)],
        "test-normal": [f"test/good/c{n:03d}.png" for n in (10, 11, 12)],
        "test-anomaly": [f"test/hole/c{n:03d}.png" for n in (30, 31)]
        + [f"test/scratch/c{n:03d}.png" for n in (20, 21)],
    }
    assert "left out 4 masks" in capsys.readouterr().err
    patches = list(Images(tmp_path / "bottle", resolution=8).plan().patches())
    assert len({patch.key for patch in patches}) == 12
    classes = Counter(patch.provenance["class"] for patch in patches)
    assert classes == {"normal": 8, "scratch": 2, "hole": 2}
    refuses(Images(tmp_path, resolution=8).plan, "is labelled", f"give {tmp_path / 'bottle'}")
    (tmp_path / "bottle" / "test").rename(tmp_path / "test")
    assert pools_of(tmp_path / "bottle").keys() == {"train-normal"}
    cells(tmp_path / "bottle" / "train" / "odd")
    refuses(Images(tmp_path / "bottle", resolution=8).plan, "train/odd", "normal or anomalous")


def test_folders_of_anomalies_are_their_kinds(tmp_path: Path) -> None:
    cells(tmp_path / "Good" / "monday", 3)
    for number, place in enumerate(("", "dent", "dent/line 2", "scratch [old]")):
        cells(tmp_path / "NG" / place, 2, 10 * number)

    def classes() -> dict[str, str]:
        plan = Images(tmp_path, resolution=8, test_size=1).plan()
        return {patch.provenance["file"]: patch.provenance["class"] for patch in plan.patches()}

    found = classes()
    assert Counter(found.values()) == {"normal": 3, "anomaly": 2, "dent": 4, "scratch [old]": 2}
    assert found["NG/dent/line 2/c020.png"] == "dent" and found["NG/c001.png"] == "anomaly"
    for day in range(MAX_KINDS):
        cells(tmp_path / "NG" / f"day {day}", 1)
    assert {*classes().values()} == {"normal", "anomaly"}, "so many are no kinds"


def test_days_in_train_and_test_are_no_labels(tmp_path: Path) -> None:
    cells(tmp_path / "train" / "monday", 3)
    cells(tmp_path / "test" / "tuesday", 3, 10)
    assert len(pools_of(tmp_path)["train-unlabelled"]) == 6


def test_the_first_of_several_pages_is_taken_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", np.stack([GREY, 255 - GREY, GREY]), photometric="minisblack")
    assert all(np.array_equal(patch.image[:, :, 0], GREY) for patch in Images(tmp_path, resolution=16).plan().patches())
    told = "warning: of a.tif's 3 images the first alone is taken, and so with 1 more that were looked at"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["beside", "suffix", "folder"])
def test_masks_are_no_images_to_learn_from(tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    cells(tmp_path if layout == "suffix" else tmp_path / "images")
    for number in range(6):
        name = {
            "beside": f"images/c{number:03d}_seg.png",
            "suffix": f"c{number:03d}_mask.tif",
            "folder": f"masks/c{number:03d}.png",
        }[layout]
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cell(0).save(tmp_path / name)
    pools = pools_of(tmp_path)
    assert pools.keys() == {"train-unlabelled"} and len(pools["train-unlabelled"]) == 6
    assert not any("mask" in file or "_seg" in file for file in pools["train-unlabelled"])
    assert "left out 6 masks" in capsys.readouterr().err
    if layout == "folder":  # asked for, they are images
        assert len(pools_of(tmp_path / "masks")["train-unlabelled"]) == 6


def test_folders_that_are_called_so_without_images_beside_are_images(tmp_path: Path) -> None:
    cells(tmp_path / "masks", 3)  # of people who wear them
    cells(tmp_path / "faces", 3, 10)
    assert len(pools_of(tmp_path)["train-unlabelled"]) == 6


def test_labelled_anomalies_are_never_trained_on_unasked(tmp_path: Path) -> None:
    cells(tmp_path / "Data" / "Images" / "Normal")
    cells(tmp_path / "Data" / "Images" / "Anomaly", first=6)
    refuses(Images(tmp_path, resolution=8).plan, "Data/Images/Anomaly", "is labelled", f"give {tmp_path}/Data/Images,")
    assert len(pools_of(tmp_path / "Data" / "Images")["train-normal"]) == 5


def test_what_lies_beside_labelled_folders_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells(tmp_path / "good")
    cells(tmp_path / "scratch", 4, 10)
    assert pools_of(tmp_path).keys() == {"train-normal", "test-normal"}
    assert "left out 4 images beside those that folders' names label: 4 in scratch" in capsys.readouterr().err
