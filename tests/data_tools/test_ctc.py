"""Cell Tracking Challenge data sets: which masks are read, tracks, sparse masks, files that are missing or damaged."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from data_tools.dataset.patch import Patch
from data_tools.sources.ctc import Ctc
from tests.support.checks import check_any_part_can_be_cut_elsewhere, refuses

CELLS = Path(__file__).parents[3] / "shared" / "data" / "cells"
needs_real = pytest.mark.skipif(not CELLS.is_dir(), reason="the real cells are not here")
SIZE = (40, 60)
PLACES = {"GT": "_GT/SEG/man_seg", "ST": "_ST/SEG/man_seg", "RES": "_RES/mask", "ERR_SEG": "_ERR_SEG/mask"}


def add_masks(
    dataset: Path, kind: str, frames: Iterable[int], labels: Iterable[int], sequence: str = "01", digits: int = 3
) -> None:
    """Write masks in which label n is a square of 3 x 3 around (x, y) = (5 n, 20)."""
    mask = np.zeros(SIZE, np.uint16)
    for label in labels:
        mask[19:22, 5 * label - 1 : 5 * label + 2] = label
    start = dataset / f"{sequence}{PLACES[kind]}"
    start.parent.mkdir(parents=True, exist_ok=True)
    for number in frames:
        tifffile.imwrite(f"{start}{number:0{digits}d}.tif", mask, compression="lzw")


def make(dataset: Path, sequence: str = "01", frames: Iterable[int] = range(4), digits: int = 3) -> Path:
    """Write frames of noise, numbered as told."""
    (dataset / sequence).mkdir(parents=True)
    for number in frames:
        noise = np.random.default_rng(number).integers(0, 256, SIZE, dtype=np.uint8)
        tifffile.imwrite(dataset / sequence / f"t{number:0{digits}d}.tif", noise)
    return dataset


def source(dataset: Path, **options) -> Ctc:
    settings: dict[str, Any] = {"resolution": 8, "test_size": 1, "rotations": 0, "split": "object"}
    return Ctc(dataset, **(settings | options))


def run(dataset: Path, **options) -> list[Patch]:
    return list(source(dataset, **options).plan().patches())


def seen(patches: Iterable[Patch], *names: str) -> set[tuple]:
    return {tuple(patch.provenance[name] for name in names) for patch in patches}


def test_patches_and_their_provenance(tmp_path: Path) -> None:
    # A data set need not begin with frame 0, and has four digits where it is long.
    add_masks(make(tmp_path, frames=range(998, 1002), digits=4), "GT", range(998, 1002), [2, 3], digits=4)
    ctc = source(tmp_path, rotations=2, test_size=3)
    assert (ctc.resolution, ctc.channels) == (8, 1)
    patches = list(ctc.plan().patches())
    assert Counter(patch.pool for patch in patches) == {"test-normal": 3, "train-normal": 5 * 3}
    assert len({patch.key for patch in patches}) == len(patches)
    assert seen(patches, "frame", "object") == {(frame, label) for frame in range(998, 1002) for label in (2, 3)}
    for patch in patches:
        assert re.fullmatch(r"[A-Za-z0-9_-]+", patch.key)
        origin = patch.provenance
        assert json.loads(json.dumps(origin)) == origin
        left = {name: value for name, value in origin.items() if name not in ("frame", "object", "angle", "x", "file")}
        assert left == {"source": "ctc", "sequence": "01", "class": "cell", "event": "", "y": 20.0, "padded": 0.0}
        assert origin["x"] == 5 * origin["object"] and origin["file"] == f"01/t{origin['frame']:04d}.tif"
        if origin["angle"] == 0:
            frame = tifffile.imread(tmp_path / origin["file"])
            x = 5 * origin["object"]
            assert np.array_equal(patch.image[:, :, 0], frame[20 - 3 : 20 + 5, x - 3 : x + 5])


def test_any_part_can_be_cut_by_another_process(tmp_path: Path) -> None:
    add_masks(make(tmp_path), "GT", range(4), [2, 3])
    plan = source(tmp_path, rotations=2, test_size=3).plan()
    check_any_part_can_be_cut_elsewhere(plan)


def which(dataset: Path, **options) -> set[int]:
    return {label for (label,) in seen(run(dataset, **options), "object")}


def test_auto_takes_the_first_kind_with_a_mask_for_every_frame(tmp_path: Path) -> None:
    make(tmp_path)
    add_masks(tmp_path, "ERR_SEG", range(4), [5])
    assert which(tmp_path) == {5}
    add_masks(tmp_path, "RES", range(4), [4])
    (tmp_path / "01_RES" / "res_track.txt").write_text("4 0 3 0\n")
    assert which(tmp_path) == {4}
    add_masks(tmp_path, "GT", [1, 3], [2])
    assert which(tmp_path) == {4}
    add_masks(tmp_path, "ST", range(4), [3])
    assert which(tmp_path) == {3}
    add_masks(tmp_path, "GT", range(4), [2])
    assert which(tmp_path) == {2}
    for kind, label in (("GT", 2), ("ST", 3), ("RES", 4), ("ERR_SEG", 5)):
        assert which(tmp_path, masks=kind) == {label}


def test_auto_takes_most_masks_where_none_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path)
    make(tmp_path, "02")
    add_masks(tmp_path, "GT", [0, 2], [2])
    add_masks(tmp_path, "ST", [0, 1], [3])
    patches = run(tmp_path)
    assert seen(patches, "sequence", "frame", "object") == {("01", 0, 2), ("01", 2, 2)}
    assert "no masks of GT for 02" in capsys.readouterr().err
    add_masks(tmp_path, "ST", [2], [3])
    assert seen(run(tmp_path), "frame", "object") == {(0, 3), (1, 3), (2, 3)}


def test_tracks_of_results(tmp_path: Path) -> None:
    make(tmp_path)
    add_masks(tmp_path, "RES", range(4), [1, 2, 3, 4])
    # 2 goes on as 3; CTC tables end in LF and have spaces.
    (tmp_path / "01_RES" / "res_track.txt").write_text("1 0 3 0\n2 0 3 0\n3 0 3 2\n4 0 3 0\n")
    (tmp_path / "01_RES" / "deaths.txt").write_text("1 1\n")  # no part of the challenge's format
    patches = run(tmp_path)
    assert seen(patches, "object", "track", "event") == {(1, 1, ""), (2, 2, ""), (3, 2, ""), (4, 4, "")}
    for seed in range(6):
        patches = run(tmp_path, split="track", test_size=4, seed=seed)
        train, test = (
            seen([patch for patch in patches if patch.pool == pool], "track")
            for pool in ("train-normal", "test-normal")
        )
        assert train and test and not train & test
        assert Counter(patch.pool for patch in patches)["test-normal"] == 4


def test_frame_and_sequence_splits(tmp_path: Path) -> None:
    for sequence in ("01", "02", "100"):
        make(tmp_path, sequence)
        add_masks(tmp_path, "ST", range(4), [1, 2, 3, 4, 5], sequence)
    (tmp_path / "notes").mkdir()
    for split, names in (("frame", ("sequence", "frame")), ("sequence", ("sequence",))):
        patches = run(tmp_path, split=split, test_size=7)
        train, test = (
            seen([patch for patch in patches if patch.pool == pool], *names) for pool in ("train-normal", "test-normal")
        )
        assert train and test and not train & test
        assert Counter(patch.pool for patch in patches)["test-normal"] == 7
    keys = [[patch.key for patch in run(tmp_path, split="frame", test_size=7, seed=seed)] for seed in (1, 1, 2)]
    assert keys[0] == keys[1]
    keyed = [
        [(patch.pool, patch.key) for patch in run(tmp_path, split="frame", test_size=7, seed=seed)] for seed in (1, 2)
    ]
    assert keyed[0] != keyed[1]


def test_wrong_options_and_layouts(tmp_path: Path) -> None:
    refuses(source(tmp_path / "none").plan, "none", "no such folder")
    refuses(source(tmp_path).plan, "no sequence 01")
    make(tmp_path)
    refuses(source(tmp_path).plan, "01_GT/SEG", "01_RES", "no masks")
    refuses(source(tmp_path, masks="ST").plan, "no masks in 01_ST/SEG", "--masks")
    add_masks(tmp_path, "GT", range(4), [])
    refuses(source(tmp_path).plan, "masks of GT hold no cell", "--masks")
    add_masks(tmp_path, "GT", range(4), [1, 2])
    refuses(source(tmp_path, split="track").plan, "--split is track", "GT", "--masks RES")
    refuses(source(tmp_path, test_size=8).plan, "--test-size is 8", "8 cells in 8 objects", "at most 7")
    refuses(source(tmp_path, test_size=7, split="frame").plan, "4 frames", "at most 6 or another --split")
    refuses(source(tmp_path, split="sequence").plan, "1 sequence ", "another --split")
    refuses(source(tmp_path, resolution=12).plan, "--resolution")
    refuses(source(tmp_path, rotations=-1).plan, "--rotations")
    refuses(source(tmp_path, test_size=0).plan, "--test-size")
    refuses(source(tmp_path, seed=-1).plan, "--seed")
    (tmp_path / "02").mkdir()
    refuses(source(tmp_path).plan, "02", "holds no t000.tif")


def test_wrong_files(tmp_path: Path) -> None:
    make(tmp_path)
    add_masks(tmp_path, "RES", range(4), [1, 2])
    refuses(source(tmp_path).plan, "01_RES", "res_track.txt", "missing")
    table = tmp_path / "01_RES" / "res_track.txt"
    table.write_text("1 0 3 0\n")
    refuses(source(tmp_path).plan, "mask000.tif", "label 2", "res_track.txt")
    table.write_text("1 0 3 0\n2 0 3 0\n")
    assert len(run(tmp_path)) == 8
    add_masks(tmp_path, "RES", [7], [1])
    refuses(source(tmp_path).plan, "mask007.tif", "no frame of 01 has number 7")
    (tmp_path / "01_RES" / "mask007.tif").unlink()
    tifffile.imwrite(tmp_path / "01" / "t002.tif", np.zeros((40, 61), np.uint8))
    refuses(source(tmp_path).plan, "mask002.tif", "t002.tif", "61 x 40")
    tifffile.imwrite(tmp_path / "01" / "t002.tif", np.zeros((5, *SIZE), np.uint16))
    refuses(source(tmp_path).plan, "t002.tif", "stack of 5")
    tifffile.imwrite(tmp_path / "01" / "t002.tif", np.zeros(SIZE, np.int32))
    refuses(lambda: run(tmp_path), "t002.tif", "int32")
    (tmp_path / "01" / "t002.tif").write_bytes(b"II*\0")
    refuses(source(tmp_path).plan, "t002.tif", "cannot be read")
    (tmp_path / "01_RES" / "mask003.tif").write_bytes((tmp_path / "01" / "t000.tif").read_bytes()[:900])
    (tmp_path / "01" / "t002.tif").unlink()
    (tmp_path / "01_RES" / "mask002.tif").unlink()
    refuses(source(tmp_path).plan, "mask003.tif", "cannot be read")


@needs_real
def test_real_nuclei() -> None:
    patches = list(Ctc(CELLS / "dsb2018_seg", split="object", rotations=0).plan().patches())
    assert Counter(patch.pool for patch in patches) == {"train-normal": 8950 - 256, "test-normal": 256}
    assert seen(patches, "sequence") == {("01",), ("02",), ("03",)}
    assert max(patch.provenance["padded"] for patch in patches) > 0.5
    # Fluorescent nuclei are brighter than what is around them.
    mean = np.mean([patch.image[:, :, 0] for patch in patches], axis=0)
    assert mean[28:36, 28:36].mean() > 1.5 * mean[:8].mean()


@needs_real
def test_real_time_lapse_of_sixteen_bits() -> None:
    patches = list(Ctc(CELLS / "hela_ctc" / "Fluo-N2DL-HeLa", rotations=0, test_size=100).plan().patches())
    objects = [
        len(np.unique(tifffile.imread(path))) - 1
        for path in (CELLS / "hela_ctc" / "Fluo-N2DL-HeLa" / "02_ERR_SEG").glob("*.tif")
    ]
    assert sum(objects) == 1621
    pools = Counter(patch.pool for patch in patches)
    assert pools["test-normal"] == 100 and 1621 - 250 < pools["train-normal"] < 1621
    values = np.concatenate([patch.image.ravel() for patch in patches])
    assert values.min() == 0 and values.max() == 255 and 10 < values.mean() < 120
