"""Baxter experiments: layouts, events, tracks, the four splits, grey levels, and files that are missing or damaged."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_tools.commands.simulate import Simulate
from data_tools.dataset.patch import POOLS, Patch
from data_tools.simulator.videos import Videos
from data_tools.sources.baxter import Baxter
from tests.support.checks import check_any_part_can_be_cut_elsewhere, refuses

REAL = Path(__file__).parents[3] / "shared" / "data" / "cells" / "ldc_baxter"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real cells are not here")
ROOM = 12
"""Pixels between the centres of made-up objects."""


def place(label: int) -> tuple[int, int]:
    """The centre (x, y) of a made-up object: ten a row."""
    return 10 + ROOM * ((label - 1) % 10), 10 + ROOM * ((label - 1) // 10)


def picture(frame: int) -> np.ndarray:
    """A frame whose pixels tell where they are and when."""
    rows, columns = np.indices((60, 140))
    return ((rows + 2 * columns + 10 * frame) % 256).astype(np.uint8)


def write_results(folder: Path, tracks: Sequence[Sequence[int]], frames: int, digits: int = 3) -> None:
    """Write masks and res_track.txt for tracks (label, first, last, parent), each object a square of 5 x 5."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(frames):
        mask = np.zeros((60, 140), np.uint16)
        for label, first, last, _ in tracks:
            x, y = place(label)
            if first <= number <= last:
                mask[y - 2 : y + 3, x - 2 : x + 3] = label
        tifffile.imwrite(folder / f"mask{number:0{digits}d}.tif", mask, compression="lzw")
    text = "".join(" ".join(map(str, row)) + "\r\n" for row in tracks)
    (folder / "res_track.txt").write_text(text, newline="")


def results(experiment: Path, sequence: str = "one", version: str = "_test") -> Path:
    return experiment / "Analysis" / f"CellData{version}" / "RES" / f"{sequence}_RES"


def make(
    experiment: Path,
    cells: Sequence[Sequence[int]] = ((1, 0, 1, 0), (2, 0, 1, 0), (3, 0, 1, 0)),
    debris: Sequence[Sequence[int]] | None = ((1, 0, 1, 0), (2, 0, 1, 0)),
    sequence: str = "one",
    frames: int = 2,
) -> Path:
    (experiment / sequence).mkdir(parents=True)
    for number in range(frames):
        tifffile.imwrite(experiment / sequence / f"im{number:04d}.tif", picture(number), compression="lzw")
    write_results(results(experiment, sequence), cells, frames)
    if debris is not None:
        write_results(results(experiment, sequence) / "false_positives", debris, frames)
    return experiment


def source(experiment: Path, **options) -> Baxter:
    settings: dict[str, Any] = {"resolution": 8, "test_size": 1, "rotations": 0}
    return Baxter(experiment, **(settings | options))


def run(experiment: Path, **options) -> list[Patch]:
    return list(source(experiment, **options).plan().patches())


def seen(patches: Iterable[Patch], *names: str) -> set[tuple]:
    return {tuple(patch.provenance[name] for name in names) for patch in patches}


def test_patches_and_their_provenance(tmp_path: Path) -> None:
    baxter = source(make(tmp_path), rotations=2)
    assert (baxter.resolution, baxter.channels) == (8, 1)
    patches = list(baxter.plan().patches())
    assert {patch.pool for patch in patches} <= set(POOLS)
    assert len({patch.key for patch in patches}) == len(patches)
    upright = [patch for patch in patches if patch.provenance["angle"] == 0]
    kinds = {("cell", label, frame) for label in (1, 2, 3) for frame in (0, 1)}
    kinds |= {("false_positive", label, frame) for label in (1, 2) for frame in (0, 1)}
    # A track is tested on by one frame; the other frame is on neither side.
    assert seen(upright, "class", "object", "frame") < kinds and len(upright) == len(kinds) - 2
    for patch in patches:
        assert re.fullmatch(r"[A-Za-z0-9_-]+", patch.key)
        assert patch.image.shape == (8, 8, 1) and patch.image.dtype == np.uint8
        origin = patch.provenance
        x, y = place(origin["object"])
        assert json.loads(json.dumps(origin)) == origin
        assert {name: origin[name] for name in ("source", "sequence", "event", "x", "y", "padded")} == {
            "source": "baxter",
            "sequence": "one",
            "event": "",
            "x": x,
            "y": y,
            "padded": 0.0,
        }
        assert origin["file"] == f"one/im{origin['frame']:04d}.tif" and origin["track"] == origin["object"]
        assert patch.pool.endswith("-normal" if origin["class"] == "cell" else "-anomaly")
        if origin["angle"] == 0:
            assert np.array_equal(patch.image[:, :, 0], picture(origin["frame"])[y - 3 : y + 5, x - 3 : x + 5])
    turns = Counter((patch.pool.split("-")[0], len(patch.provenance)) for patch in patches)
    assert turns["test", 12] == 2 and turns["train", 12] == 3 * 6


def test_order_is_by_sequence_and_frame(tmp_path: Path) -> None:
    make(tmp_path, sequence="b")
    make(tmp_path, sequence="a")
    patches = run(tmp_path, rotations=1)
    assert list(dict.fromkeys(patch.pool for patch in patches)) == [
        pool for pool in POOLS if pool != "train-unlabelled"
    ]
    names = ("sequence", "frame", "object")
    for pool in ("train-normal", "train-anomaly"):
        order = [(*(patch.provenance[name] for name in names), patch.key) for patch in patches if patch.pool == pool]
        assert order == sorted(order) and {row[0] for row in order} == {"a", "b"}


def test_any_part_can_be_cut_by_another_process(tmp_path: Path) -> None:
    make(tmp_path, sequence="b")
    make(tmp_path, sequence="a")
    for number in range(2):  # one sequence of 16 bits, so that its line is needed there too
        tifffile.imwrite(tmp_path / "b" / f"im{number:04d}.tif", picture(number).astype(np.uint16) * 100)
    plan = source(tmp_path, rotations=2).plan()
    check_any_part_can_be_cut_elsewhere(plan)


@pytest.mark.parametrize("ending", [".png", ".PNG", ".tiff", ".TIF", ".jpg", ".JPeG"])
@pytest.mark.parametrize("colour", [False, True])
def test_frames_of_every_kind(tmp_path: Path, ending: str, colour: bool) -> None:
    make(tmp_path)
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "one").mkdir()
    for number in range(2):
        image = Image.fromarray(picture(number) // 4 + 100)
        name = f"x{9 + number:02d}"  # alphabetical order, not the numbers, counts
        with open(tmp_path / "one" / f"{name}{ending}", "wb") as file:
            kind = {"p": "PNG", "t": "TIFF", "j": "JPEG"}[ending[1].lower()]
            (image.convert("RGB") if colour else image).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
        (tmp_path / "one" / f"._{name}{ending}").write_bytes(b"a resource fork")
    (tmp_path / "one" / "notes.txt").write_text("no frame")
    (tmp_path / ".git").mkdir()
    for patch in run(tmp_path, split="object"):
        x, y = place(patch.provenance["object"])
        expected = picture(patch.provenance["frame"])[y - 3 : y + 5, x - 3 : x + 5] // 4 + 100
        apart = np.abs(patch.image[:, :, 0].astype(int) - expected)
        assert apart.max() <= (12 if ending.lower().startswith(".j") else 0)


def test_colour_becomes_grey_by_itu_r_601(tmp_path: Path) -> None:
    make(tmp_path)
    for number, planar in ((0, "contig"), (1, "separate")):
        colour = np.empty((60, 140, 3), np.uint8)
        colour[:] = (200, 100, 50)
        pixels = colour if planar == "contig" else np.moveaxis(colour, 2, 0)
        tifffile.imwrite(tmp_path / "one" / f"im{number:04d}.tif", pixels, photometric="rgb", planarconfig=planar)
    patches = run(tmp_path, split="object")
    assert {patch.provenance["frame"] for patch in patches} == {0, 1}
    assert all((patch.image == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)).all() for patch in patches)


def test_sixteen_bits_become_eight_by_one_line(tmp_path: Path) -> None:
    make(tmp_path, debris=None)
    # Values from 30,000 to 34,000, the second frame brighter, and one hot pixel.
    ramp = np.linspace(30_000, 33_000, 60 * 140).reshape(60, 140).astype(np.uint16)
    for number in range(2):
        frame = ramp + np.uint16(1000 * number)
        frame[0, 0] = 65_535
        tifffile.imwrite(tmp_path / "one" / f"im{number:04d}.tif", frame)
    patches = run(tmp_path, split="object")
    values = {(patch.provenance["frame"], patch.provenance["object"]): patch.image for patch in patches}
    for (frame, label), image in values.items():
        x, y = place(label)
        expected = (ramp[y - 3 : y + 5, x - 3 : x + 5] + 1000.0 * frame - 30_000) / 4000 * 255
        assert np.abs(image[:, :, 0] - expected).max() < 2
    assert {frame for frame, _ in values} == {0, 1}


def test_four_digit_frame_numbers(tmp_path: Path) -> None:
    make(tmp_path, sequence="one")
    for path in list(results(tmp_path).rglob("mask*.tif")):
        path.rename(path.with_name(f"mask0{path.stem.removeprefix('mask')}.tif"))
    assert seen(run(tmp_path, split="object"), "frame") == {(0,), (1,)}


def test_events_tracks_and_dummies(tmp_path: Path) -> None:
    cells = [
        (1, 0, 1, 0),  # divides
        (2, 2, 5, 1),
        (3, 2, 3, 1),  # goes on as 4 after a gap
        (4, 5, 5, 3),  # dies
        (5, 0, 2, 0),  # dies
        (6, 0, 5, 0),  # nothing
        (7, 0, 3, 0),  # a dummy
        (8, 4, 5, 7),
        (9, 0, 3, 0),  # a single child and a flag of death: it goes on
        (10, 4, 5, 9),
        (12, 0, 3, 0),  # two children, but one of them a dummy: it goes on as well
        (13, 4, 5, 12),
        (14, 4, 5, 12),
    ]
    make(tmp_path, cells, [(1, 0, 5, 0)], frames=6)
    folder = results(tmp_path)
    table = (folder / "res_track.txt").read_text().replace(" ", "\t")
    (folder / "res_track.txt").write_text(table + "\n  \n11 0 0 0\n")  # never seen in a mask
    (folder / "deaths.txt").write_text("".join(f"{label} {int(label in (4, 5, 9))}\r\n" for label in range(1, 12)))
    (folder / "dummy_tracks.txt").write_text("7\r\n14\r\n")
    patches = [
        patch for seed in range(8) for patch in run(tmp_path, split="object", seed=seed) if "-normal" in patch.pool
    ]
    assert {row for row in seen(patches, "object", "frame", "event") if row[2]} == {
        (1, 1, "mitosis"),
        (4, 5, "apoptosis"),
        (5, 2, "apoptosis"),
    }
    tracks = {1: 1, 2: 2, 3: 3, 4: 3, 5: 5, 6: 6, 8: 7, 9: 9, 10: 9, 12: 12, 13: 12}
    assert seen(patches, "object", "track") == set(tracks.items())
    assert (3, 4) not in seen(patches, "object", "frame"), "the gap"


def groups_of(patches: list[Patch], split: str, side: str) -> set[tuple]:
    names = {
        "object": ("sequence", "frame", "class", "object"),
        "track": ("sequence", "class", "track"),
        "frame": ("sequence", "frame"),
        "sequence": ("sequence",),
    }
    return seen([patch for patch in patches if patch.pool.startswith(side)], *names[split])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("baxter") / "simulated"
    Simulate(out, Videos(sequences=4, frames=14, size=160, cells=10, debris=4, seed=4))()
    return out


@pytest.mark.parametrize("split", ["object", "track", "frame", "sequence"])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_group_is_on_both_sides_and_sizes_are_exact(
    simulated: Path, split: str, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    patches = run(simulated, split=split, seed=seed, test_size=30, rotations=1)
    pools = Counter(patch.pool for patch in patches)
    assert pools["test-normal"] == pools["test-anomaly"] == 30
    assert not groups_of(patches, split, "train") & groups_of(patches, split, "test")
    assert {patch.provenance["angle"] for patch in patches if patch.pool.startswith("test")} == {0}
    names = ("sequence", "frame", "class", "object", "angle")
    assert len(seen(patches, *names)) == len(patches)
    assert len({patch.key for patch in patches}) == len(patches)
    # What is on neither side is said; each object to train on comes twice.
    masks = [tifffile.imread(path) for path in results(simulated, "x").parent.parent.parent.rglob("mask*.tif")]
    every = sum(len(np.unique(mask)) - 1 for mask in masks)
    used = 60 + (pools["train-normal"] + pools["train-anomaly"]) // 2
    said = capsys.readouterr().err
    assert (f"left out {every - used} of {every} objects" in said) if used < every else not said
    assert (used == every) == (split == "object")


@pytest.mark.slow
@pytest.mark.parametrize("split", ["track", "frame"])
def test_a_seed_decides_everything(simulated: Path, split: str) -> None:
    def sides(seed: int) -> list[tuple[str, str, bytes]]:
        patches = run(simulated, split=split, seed=seed, test_size=20, rotations=1)
        return [(patch.pool, patch.key, patch.image.tobytes()) for patch in patches]

    assert sides(3) == sides(3)
    assert sides(3) != sides(4)


def test_angles_depend_on_seed_and_object_alone(simulated: Path) -> None:
    def angles(**options) -> dict[tuple, list[float]]:
        found: dict[tuple, list[float]] = {}
        for patch in run(simulated, **options):
            origin = patch.provenance
            if patch.pool.startswith("train"):
                name = tuple(origin[key] for key in ("sequence", "frame", "class", "object"))
                found.setdefault(name, []).append(origin["angle"])
        return found

    some, others = angles(split="track", rotations=2), angles(split="frame", rotations=3, test_size=20)
    both = some.keys() & others.keys()
    assert len(both) > 100
    assert all(some[name] == others[name][:3] for name in both)
    turned = [angle for name in both for angle in others[name][1:]]
    assert len(set(turned)) > 0.95 * len(turned) and min(turned) < 20 and max(turned) > 340
    reseeded = angles(split="track", rotations=2, seed=1)
    assert not any(some[name][1:] == reseeded[name][1:] for name in some.keys() & reseeded.keys())


def test_simulated_cells_are_what_the_masks_say(simulated: Path) -> None:
    patches = run(simulated, split="object", resolution=64)
    for patch in patches[::29]:
        origin = patch.provenance
        folder = results(simulated, origin["sequence"], "_simulated")
        folder = folder / "false_positives" if origin["class"] == "false_positive" else folder
        mask = tifffile.imread(folder / f"mask{origin['frame']:03d}.tif") == origin["object"]
        rows, columns = np.nonzero(mask)
        assert origin["y"] == pytest.approx(rows.mean(), abs=0.01)
        assert origin["x"] == pytest.approx(columns.mean(), abs=0.01)
        frame = tifffile.imread(simulated / origin["file"])
        value = frame[round(origin["y"]), round(origin["x"])]
        assert value in patch.image[30:34, 30:34]


def test_cells_alone(tmp_path: Path) -> None:
    patches = run(make(tmp_path, debris=None), rotations=1)
    assert Counter(patch.pool for patch in patches) == {"test-normal": 1, "train-normal": 8}


def test_several_versions(tmp_path: Path) -> None:
    make(tmp_path)
    second = results(tmp_path, version="")
    shutil.copytree(results(tmp_path), second)
    (tmp_path / "Analysis" / "CellData_saved").mkdir()
    refuses(lambda: run(tmp_path), "CellData, CellData_test", "--version")
    write_results(second, [(label, 0, 1, 0) for label in (4, 5, 6)], 2)
    for version in ("_test", "test", "CellData_test"):
        assert (4,) not in seen(run(tmp_path, version=version), "object")
    assert (4,) in seen(run(tmp_path, version="CellData", split="object"), "object")
    refuses(lambda: run(tmp_path, version="other"), "--version", "'other'", "CellData_test")
    refuses(lambda: run(tmp_path, version="saved"), "CellData_saved", "export")


def test_wrong_options(tmp_path: Path) -> None:
    make(tmp_path)
    refuses(source(tmp_path, resolution=48).plan, "--resolution is 48", "32 or 64")
    refuses(source(tmp_path, rotations=-1).plan, "--rotations")
    refuses(source(tmp_path, test_size=0).plan, "--test-size")
    refuses(source(tmp_path, seed=-1).plan, "--seed")
    refuses(source(tmp_path, test_size=99, split="object").plan, "6 cells and 4 false positives", "at most 4")
    refuses(source(tmp_path, test_size=5, split="track").plan, "5 tracks", "at most 4")
    refuses(source(tmp_path, test_size=4, split="frame").plan, "2 frames", "at most 2 or another --split")
    refuses(source(tmp_path, split="sequence").plan, "1 sequence ", "give another --split")
    assert run(tmp_path, test_size=4, split="object") and run(tmp_path, test_size=2, split="frame")
    shutil.rmtree(results(tmp_path) / "false_positives")
    write_results(results(tmp_path), [(1, 0, 0, 0)], 2)
    refuses(source(tmp_path, split="object").plan, "1 cell in 1 object", "add more data")


def replace_with(path: str, content: bytes | str | np.ndarray) -> Callable[[Path], object]:
    def damage(experiment: Path) -> None:
        target = experiment / path
        if isinstance(content, np.ndarray):
            tifffile.imwrite(target, content)
        else:
            target.write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def cut_short(path: str, share: float) -> Callable[[Path], object]:
    def damage(experiment: Path) -> None:
        whole = (experiment / path).read_bytes()
        (experiment / path).write_bytes(whole[: int(len(whole) * share)])

    return damage


RES = "Analysis/CellData_test/RES/one_RES"
CASES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no folder": (shutil.rmtree, ["no such folder"]),
    "no analysis": (lambda path: shutil.rmtree(path / "Analysis"), ["Analysis", "no CellData"]),
    "only mat": (
        lambda path: (
            shutil.rmtree(path / "Analysis/CellData_test/RES"),
            (path / "Analysis/CellData_test/one.mat").write_bytes(b"MATLAB"),
        ),
        ["CellData_test", "only .mat files", "export"],
    ),
    "no sequences": (lambda path: shutil.rmtree(path / "one"), ["no folder of frames"]),
    "sequence without results": (lambda path: (path / "two").mkdir(), ["two_RES", "sequence two", "move its folder"]),
    "no frames": (lambda path: [frame.unlink() for frame in (path / "one").iterdir()], ["one", "holds no frames"]),
    "mask without frame": (lambda path: (path / "one/im0001.tif").unlink(), ["mask001.tif", "no frame of one"]),
    "frame without mask": (lambda path: (path / RES / "mask001.tif").unlink(), ["no mask001.tif", "2 frames"]),
    "masks of one number": (
        lambda path: shutil.copy(path / RES / "mask001.tif", path / RES / "mask0001.tif"),
        ["mask001.tif", "mask0001.tif", "same number"],
    ),
    "no cells": (
        lambda path: [tifffile.imwrite(path / RES / f"mask00{k}.tif", np.zeros((60, 140), np.uint16)) for k in (0, 1)],
        ["no mask holds a cell"],
    ),
    "mask cut short": (cut_short(f"{RES}/mask001.tif", 0.7), ["mask001.tif", "cannot be read"]),
    "mask empty": (replace_with(f"{RES}/mask001.tif", b""), ["mask001.tif", "cannot be read"]),
    "mask of floats": (replace_with(f"{RES}/mask001.tif", np.ones((60, 140), np.float32)), ["mask001.tif", "float32"]),
    "mask negative": (replace_with(f"{RES}/mask001.tif", -np.ones((60, 140), np.int16)), ["mask001.tif", "negative"]),
    "mask in colour": (replace_with(f"{RES}/mask001.tif", np.ones((60, 140, 3), np.uint8)), ["mask001.tif", "colour"]),
    "mask of great labels": (
        replace_with(f"{RES}/mask001.tif", np.full((60, 140), 70_000, np.uint32)),
        ["mask001.tif", "70000"],
    ),
    "mask of another size": (
        replace_with(f"{RES}/mask001.tif", np.ones((60, 141), np.uint16)),
        ["mask001.tif", "im0001.tif", "141 x 60", "140 x 60"],
    ),
    "mask of two pages": (replace_with(f"{RES}/mask001.tif", np.ones((2, 60, 140), np.uint16)), ["mask001.tif", "2"]),
    "label without track": (
        replace_with(f"{RES}/res_track.txt", "1 0 1 0\r\n3 0 1 0\r\n"),
        ["mask000.tif", "label 2", "res_track.txt"],
    ),
    "debris without table": (
        lambda path: (path / RES / "false_positives/res_track.txt").unlink(),
        ["false_positives", "res_track.txt", "missing"],
    ),
    "track of three numbers": (replace_with(f"{RES}/res_track.txt", "1 0 1 0\n2 0 1\n"), ["res_track.txt", "line 2"]),
    "track of words": (
        replace_with(f"{RES}/res_track.txt", "L B E P\n1 0 1 0"),
        ["res_track.txt", "line 1", "L B E P"],
    ),
    "track runs backwards": (
        replace_with(f"{RES}/res_track.txt", "1 3 1 0"),
        ["res_track.txt", "line 1", "is not a track"],
    ),
    "track twice": (replace_with(f"{RES}/res_track.txt", "1 0 1 0\n1 0 1 0"), ["res_track.txt", "line 2", "again"]),
    "no such parent": (replace_with(f"{RES}/res_track.txt", "1 0 1 9"), ["res_track.txt", "track 1", "parent 9"]),
    "parents in a ring": (replace_with(f"{RES}/res_track.txt", "1 0 1 2\n2 0 1 1"), ["res_track.txt", "ancestor"]),
    "deaths of words": (replace_with(f"{RES}/deaths.txt", "1 yes"), ["deaths.txt", "line 1"]),
    "dummy of words": (replace_with(f"{RES}/dummy_tracks.txt", "x"), ["dummy_tracks.txt", "line 1"]),
    "frame cut short": (cut_short("one/im0001.tif", 0.7), ["im0001.tif", "cannot be read"]),
    "frame empty": (replace_with("one/im0001.tif", b""), ["im0001.tif", "cannot be read"]),
    "frame of floats": (replace_with("one/im0001.tif", np.ones((60, 140), np.float32)), ["im0001.tif", "float32"]),
    "frame of two pages": (
        replace_with("one/im0001.tif", np.ones((2, 60, 140), np.uint8)),
        ["im0001.tif", "stack of 2"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_read(tmp_path: Path, case: str) -> None:
    experiment = make(tmp_path / "experiment")
    assert run(experiment, split="object")
    damage, words = CASES[case]
    damage(experiment)
    refuses(lambda: run(experiment, split="object"), *words)
    if not case.startswith("frame ") or "without" in case:
        refuses(source(experiment, split="object").plan, *words)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_broken_png(tmp_path: Path, share: float) -> None:
    make(tmp_path)
    (tmp_path / "one" / "im0001.tif").unlink()
    path = tmp_path / "one" / "im0001.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 140), dtype=np.uint8)).save(path)
    assert run(tmp_path, split="object")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refuses(lambda: run(tmp_path, split="object"), "im0001.png", "cannot be read")


@needs_real
def test_real_cells() -> None:
    patches = list(Baxter(REAL, split="object", rotations=0).plan().patches())
    pools = Counter(patch.pool for patch in patches)
    assert pools == {
        "train-normal": 2951 - 256,
        "test-normal": 256,
        "train-anomaly": 813 - 256,
        "test-anomaly": 256,
    }
    assert seen(patches, "event") == {("",)}
    # Bright-field cells differ from the background where the crop is centred.
    whole = [patch.image[:, :, 0].astype(float) for patch in patches if patch.provenance["padded"] == 0]
    spread = np.mean([np.abs(image - np.median(image)) for image in whole], axis=0)
    assert spread[26:38, 26:38].mean() > 3 * spread[:8].mean()


@needs_real
def test_real_cells_split_by_frame() -> None:
    patches = list(Baxter(REAL, split="frame", rotations=0).plan().patches())
    assert not groups_of(patches, "frame", "train") & groups_of(patches, "frame", "test")
    pools = Counter(patch.pool for patch in patches)
    assert pools["test-normal"] == pools["test-anomaly"] == 256
    assert pools["train-normal"] > 2000 and pools["train-anomaly"] > 400
