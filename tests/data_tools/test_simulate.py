"""The simulator: its layout, the truth of its labels, and what a seed promises."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
import tifffile
from sklearn.metrics import roc_auc_score

from data_tools.commands.simulate import Simulate
from data_tools.errors import UserError
from data_tools.simulator.videos import Videos

SMALL = Videos(sequences=2, frames=20, size=192, cells=14, debris=5, seed=3)


def simulate(out: Path, like: Videos, processes: int = 0, **changes: int) -> Path:
    Simulate(out, dataclasses.replace(like, **changes), processes)()
    return out


def results(experiment: Path) -> list[Path]:
    return sorted((experiment / "Analysis" / "CellData_simulated" / "RES").iterdir())


def read_rows(path: Path) -> list[list[int]]:
    data = path.read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n")
    return [[int(word) for word in line.split()] for line in data.decode().splitlines()]


def read_masks(folder: Path) -> list[np.ndarray]:
    return [tifffile.imread(path) for path in sorted(folder.glob("mask*.tif"))]


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def crops(experiment: Path) -> Iterator[tuple[bool, np.ndarray]]:
    """(is debris, 64 x 64 crop centred on it) for every object that lies far enough from the border."""
    for result in results(experiment):
        frames = sorted((experiment / result.name.removesuffix("_RES")).iterdir())
        for folder, debris in ((result, False), (result / "false_positives", True)):
            for path, mask in zip(frames, read_masks(folder), strict=True):
                frame = tifffile.imread(path)
                for label in np.unique(mask[mask > 0]):
                    row, column = (int(place.mean()) for place in np.nonzero(mask == label))
                    crop = frame[max(row - 32, 0) : row + 32, max(column - 32, 0) : column + 32]
                    if crop.shape == (64, 64):
                        yield debris, crop


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("simulate") / "small", SMALL)


def test_layout(experiment: Path) -> None:
    assert sorted(path.name for path in experiment.iterdir()) == ["Analysis", "seq_00", "seq_01"]
    assert [path.name for path in results(experiment)] == ["seq_00_RES", "seq_01_RES"]
    masks = [f"mask{time:03d}.tif" for time in range(20)]
    texts = ["deaths.txt", "res_track.txt"]
    for sequence, result in zip(["seq_00", "seq_01"], results(experiment), strict=True):
        frames = sorted((experiment / sequence).iterdir())
        assert [path.name for path in frames] == [f"frame_{time:03d}.tif" for time in range(20)]
        assert sorted(path.name for path in result.iterdir()) == sorted([*texts, *masks, "false_positives"])
        assert sorted(path.name for path in (result / "false_positives").iterdir()) == sorted(texts + masks)
        for path, kind in ((frames[0], np.uint8), (result / masks[0], np.uint16)):
            with tifffile.TiffFile(path) as tif:
                assert tif.pages.first.compression == tifffile.COMPRESSION.LZW
                assert (tif.asarray().dtype, tif.asarray().shape) == (kind, (192, 192))
    assert [path.name for path in experiment.parent.iterdir()] == ["small"], "no scratch folder stays"


def check_tracks(folder: Path) -> None:
    """Rows and masks say the same: a label is in every frame from B to E, and in no other."""
    masks = read_masks(folder)
    rows = read_rows(folder / "res_track.txt")
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    for time, mask in enumerate(masks):
        expected = {label for label, first, last, _ in rows if first <= time <= last}
        assert set(np.unique(mask[mask > 0]).tolist()) == expected
    ends = {label: last for label, _, last, _ in rows}
    for _, first, last, parent in rows:
        assert 0 <= first <= last < len(masks)
        assert parent == 0 or ends[parent] == first - 1
    assert [row[0] for row in read_rows(folder / "deaths.txt")] == [row[0] for row in rows]


def test_tracks_agree_with_masks(experiment: Path) -> None:
    for result in results(experiment):
        check_tracks(result)
        check_tracks(result / "false_positives")


@pytest.mark.parametrize("seed", [3, 4])
def test_tracks_agree_with_masks_in_a_crowd(tmp_path: Path, seed: int) -> None:
    crowd = Videos(sequences=1, frames=24, size=128, cells=20, debris=7, seed=seed)
    (result,) = results(simulate(tmp_path / "crowd", crowd))
    check_tracks(result)
    check_tracks(result / "false_positives")


def test_divisions_have_two_children_beside_the_mother(experiment: Path) -> None:
    divisions = 0
    for result in results(experiment):
        masks = read_masks(result)
        rows = read_rows(result / "res_track.txt")
        died = {label for label, dead in read_rows(result / "deaths.txt") if dead}
        for mother, _, last, _ in rows:
            children = [row for row in rows if row[3] == mother]
            if not children:
                continue
            divisions += 1
            assert len(children) == 2 and mother not in died
            middle = np.argwhere(masks[last] == mother).mean(axis=0)
            for label, first, _, _ in children:
                assert np.linalg.norm(np.argwhere(masks[first] == label).mean(axis=0) - middle) < 25
    assert divisions >= 2


def test_deaths_are_flagged_and_nothing_else_ends_early(experiment: Path) -> None:
    deaths = 0
    for result in results(experiment):
        rows = read_rows(result / "res_track.txt")
        died = {label for label, dead in read_rows(result / "deaths.txt") if dead}
        deaths += len(died)
        parents = {row[3] for row in rows}
        for label, _, last, _ in rows:
            assert last == SMALL.frames - 1 or (label in died) != (label in parents)
    assert deaths >= 1


def test_debris_lies_in_false_positives(experiment: Path) -> None:
    for result in results(experiment):
        rows = read_rows(result / "false_positives" / "res_track.txt")
        assert sum(first == 0 for _, first, _, _ in rows) == SMALL.debris
        assert not any(dead for _, dead in read_rows(result / "false_positives" / "deaths.txt"))
        assert all(parent == 0 for *_, parent in rows)


def test_objects_show_and_the_light_is_uneven(experiment: Path) -> None:
    frame = tifffile.imread(experiment / "seq_00" / "frame_000.tif").astype(float)
    result = results(experiment)[0]
    objects = (tifffile.imread(result / "mask000.tif") > 0) | (
        tifffile.imread(result / "false_positives" / "mask000.tif") > 0
    )
    empty = ~(objects[:, 1:] | objects[:, :-1])
    assert frame[objects].std() > 3 * np.diff(frame)[empty].std(), "objects stand out of the camera's noise"
    corners = [
        np.median(frame[rows, columns])
        for rows in (slice(48), slice(-48, None))
        for columns in (slice(48), slice(-48, None))
    ]
    assert np.ptp(corners) > 1


def test_one_number_does_not_tell_debris_from_cells(tmp_path: Path) -> None:
    options = Videos(sequences=8, frames=1, size=288, cells=14, debris=14, seed=0)
    is_debris, images = zip(*crops(simulate(tmp_path / "many", options)), strict=True)
    assert min(sum(is_debris), len(is_debris) - sum(is_debris)) > 50
    for statistic in (np.std, np.max, np.mean):
        assert 0.2 < roc_auc_score(is_debris, [statistic(image) for image in images]) < 0.85, statistic.__name__


def test_same_seed_same_bytes_and_more_sequences_keep_the_first(tmp_path: Path, experiment: Path) -> None:
    first = read_files(simulate(tmp_path / "one", SMALL, sequences=1))
    full = read_files(experiment)
    assert first == {name: data for name, data in full.items() if "seq_00" in name}


def test_same_bytes_and_lines_from_any_number_of_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, lines = [], []
    for processes in (1, 2):
        made.append(read_files(simulate(tmp_path / str(processes), SMALL, sequences=5, frames=3, processes=processes)))
        lines.append(capsys.readouterr().out)
        assert not multiprocessing.active_children()
    assert made[0] == made[1] and lines[0] == lines[1]
    assert [line.split(":")[0] for line in lines[0].splitlines()] == [f"seq_{i:02d} ({i + 1}/5)" for i in range(5)]


def wait_for(folder: Path, pattern: str) -> None:
    end = monotonic() + 60
    while not any(folder.glob(pattern)):
        assert monotonic() < end, f"no {pattern}"
        sleep(0.02)


@pytest.mark.parametrize("when", [".out-*", ".out-*/out/seq_*"])  # while the processes start; while they write
def test_interrupt_ends_all_processes_with_one_line(tmp_path: Path, when: str) -> None:
    words = ["simulate", str(tmp_path / "out"), "--sequences", "9", "--frames", "9999", "--processes", "2"]
    command = [sys.executable, "-m", "data_tools", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_for(tmp_path, when)
        sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        # stderr ends once every process that shares it has ended
        assert process.communicate(timeout=20)[1] == "interrupted\n"
    assert process.returncode == 130
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("which", [0, 1])
def test_killed_process_is_an_error_that_names_the_option(tmp_path: Path, which: int) -> None:
    def kill() -> None:
        wait_for(tmp_path, ".out-*/out/seq_*")
        multiprocessing.active_children()[which].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(UserError, match="killed - choose fewer --processes"):
        simulate(tmp_path / "out", SMALL, frames=9999, processes=2)
    killer.join()
    assert not any(tmp_path.iterdir())


def test_another_seed_or_sequence_differs(tmp_path: Path, experiment: Path) -> None:
    other = simulate(tmp_path / "other", SMALL, sequences=1, frames=1, seed=2) / "seq_00" / "frame_000.tif"
    frames = [other, experiment / "seq_00" / "frame_000.tif", experiment / "seq_01" / "frame_000.tif"]
    assert len({path.read_bytes() for path in frames}) == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("sequences", 0),
        ("frames", 0),
        ("size", 127),
        ("size", 5000),
        ("cells", 0),
        ("cells", 1000),
        ("debris", -1),
        ("debris", 1000),
        ("seed", -1),
        ("processes", -1),
    ],
)
def test_bad_option_is_named_and_nothing_is_written(tmp_path: Path, option: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"--{option} {value}\b.* - choose") as caught:
        simulate(tmp_path / "out", SMALL, **{option: value})
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_full_folder_and_file_are_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    for out in (tmp_path / "full", tmp_path / "full" / "mine.txt"):
        with pytest.raises(UserError, match=rf"{out.name}: .* - choose another"):
            simulate(out, SMALL)
    assert read_files(tmp_path) == {"full/mine.txt": b"keep"}


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    simulate(tmp_path / "empty", SMALL, sequences=1, frames=1, debris=0)
    assert (tmp_path / "empty" / "seq_00" / "frame_000.tif").is_file()


@pytest.mark.parametrize("processes", [1, 2])
def test_failure_midway_leaves_nothing(tmp_path: Path, processes: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # the first frame does not fit
    try:
        with pytest.raises(OSError):
            simulate(tmp_path / "out", SMALL, sequences=2, frames=1, processes=processes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not any(tmp_path.iterdir())


def test_one_line_a_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(tmp_path / "out", SMALL, frames=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["seq_00 (1/2)", "seq_01 (2/2)"]
