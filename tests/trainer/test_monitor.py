"""What a run writes while it trains: means, metrics.jsonl across restarts, TensorBoard events, grids of images."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_tools.storage import open_storage, read_bytes
from trainer.config import TrainConfig
from trainer.report.figures import save_picture, tile
from trainer.run.monitor import PAGES, Monitor
from trainer.training.group import Group
from trainer.training.means import RunningMeans

PHASES = TrainConfig(resolution=16, fade_images=6000, stable_images=6000, final_images=8000).schedule()
RNG = np.random.default_rng(5)


def write(run: Path, images_seen: int, at: list[int], note: float = 0.0) -> None:
    """Open the logs as a run that starts at `images_seen` does, and record metrics at some counts."""
    monitor = Monitor(str(run), PHASES, images_seen, print)
    for count in at:
        monitor.metrics(count, {"critic/loss": count / 1000, "note": note})
    monitor.close()


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def events(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run / "events"), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_means_are_numpys(steps: int) -> None:
    means = RunningMeans()
    for _ in range(2):  # the second round must not remember the first
        rows = RNG.normal(size=(steps, 3)).astype(np.float32)
        for row in rows:
            means.add({name: torch.tensor(value) for name, value in zip("cab", row, strict=True)})
        read = means.read(Group())
        assert list(read) == ["c", "a", "b"]
        np.testing.assert_allclose(list(read.values()), rows.astype(np.float64).mean(axis=0), rtol=1e-5, atol=1e-7)
        assert means.read(Group()) == {}


def test_what_was_added_may_change_afterwards() -> None:
    """Losses live in buffers that later steps write into."""
    means, value = RunningMeans(), torch.tensor(1.0)
    means.add({"x": value})
    value.fill_(100.0)
    means.add({"x": torch.tensor(3.0)})
    assert means.read(Group()) == {"x": 2.0}


def test_every_line_is_json_and_complete_as_soon_as_it_is_written(tmp_path: Path) -> None:
    monitor = Monitor(str(tmp_path), PHASES, 0, print)
    for count in (1000, 2000):
        monitor.metrics(count, {"critic/loss": 0.1 + count, "validation/L_n": 0.5})
        line = lines(tmp_path)[-1]
        assert abs(line.pop("time") - time.time()) < 60
        assert line == {"images_seen": count, "critic/loss": 0.1 + count, "validation/L_n": 0.5}
    monitor.close()
    assert len(lines(tmp_path)) == 2


@pytest.mark.parametrize("cut", [1, 2, 14, 17, 30, -2, -1])
def test_a_resumed_run_drops_later_and_half_written_lines(tmp_path: Path, cut: int) -> None:
    write(tmp_path, 0, [1000, 2000, 3000, 4000])
    file = tmp_path / "metrics.jsonl"
    whole = file.read_text()
    last = whole.splitlines()[-1]
    file.write_text(whole.removesuffix(last + "\n") + last[:cut])  # the process died while it wrote
    kept = whole.splitlines()[:2]
    write(tmp_path, 2000, [2500, 3000], note=1.0)
    assert file.read_text().splitlines()[:2] == kept
    assert [(line["images_seen"], line["note"]) for line in lines(tmp_path)] == [
        (1000, 0),
        (2000, 0),
        (2500, 1),
        (3000, 1),
    ]
    assert not any("partial" in path.name for path in tmp_path.iterdir())


def test_a_last_line_without_its_end_is_kept_whole_when_it_is_whole(tmp_path: Path) -> None:
    write(tmp_path, 0, [1000, 2000])
    file = tmp_path / "metrics.jsonl"
    file.write_text(file.read_text().removesuffix("\n"))
    write(tmp_path, 2000, [3000])
    assert [line["images_seen"] for line in lines(tmp_path)] == [1000, 2000, 3000]


def test_tensorboard_reads_the_scalars_and_images_that_were_written(tmp_path: Path) -> None:
    images = RNG.uniform(-1, 1, (10, 8, 8, 3)).astype(np.float32)
    monitor = Monitor(str(tmp_path), PHASES, 0, print)
    monitor.metrics(1000, {"critic/loss": 1.25, "validation/L_n": 0.5})
    monitor.metrics(2000, {"critic/loss": -3.5})
    monitor.pictures(2000, {"real": images, "generated": images[:4, :, :, :1]})
    monitor.close()
    read = events(tmp_path)
    assert sorted(read.Tags()["scalars"]) == ["critic/loss", "validation/L_n"]
    assert [(e.step, e.value) for e in read.Scalars("critic/loss")] == [(1000, 1.25), (2000, -3.5)]
    assert [(e.step, e.value) for e in read.Scalars("validation/L_n")] == [(1000, 0.5)]
    assert sorted(read.Tags()["images"]) == ["generated", "real"]
    (event,) = read.Images("real")
    shown = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    assert event.step == 2000 and np.array_equal(shown, tile(images, 8))


@pytest.mark.parametrize("resumed_at", [2000, 0])
def test_tensorboard_holds_each_step_once_after_any_number_of_restarts(tmp_path: Path, resumed_at: int) -> None:
    """Also when the run died before its first checkpoint and starts from nothing; within a second, and with no end."""
    write(tmp_path, 0, [1000, 2000, 3000, 4000])
    for _ in range(2):
        write(tmp_path, resumed_at, [2500, 3000], note=2.0)
    write(tmp_path, resumed_at, [2500], note=1.0)
    expected = [(count, 0.0) for count in (1000, 2000) if count <= resumed_at] + [(2500, 1.0)]
    assert [(e.step, e.value) for e in events(tmp_path).Scalars("note")] == expected
    assert [(line["images_seen"], line["note"]) for line in lines(tmp_path)] == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_come_back_into_tensorboard_on_resume_without_later_ones(tmp_path: Path, channels: int) -> None:
    images = {count: RNG.uniform(-1, 1, (3, 4, 4, channels)).astype(np.float32) for count in (1000, 2000, 3000)}
    monitor = Monitor(str(tmp_path), PHASES, 0, print)
    for count in images:
        monitor.pictures(count, {"real": images[count]})
    monitor.close()
    write(tmp_path, 2000, [2500])
    read = events(tmp_path).Images("real")
    assert [event.step for event in read] == [1000, 2000]
    for event in read:
        shown = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        assert np.array_equal(shown, np.broadcast_to(tile(images[event.step], 8), shown.shape))
    assert len(list((tmp_path / "pictures").iterdir())) == 2


def test_validations_may_come_late_and_stay_with_their_checkpoint(tmp_path: Path) -> None:
    monitor = Monitor(str(tmp_path), PHASES, 0, print)
    for count, values in ((1000, {"x": 1.0}), (2000, {"x": 2.0}), (1000, {"validation/L_n": 0.75})):
        monitor.metrics(count, values)
    monitor.close()
    resumed = Monitor(str(tmp_path), PHASES, 1000, print)
    assert resumed.validations("L_n") == {"images-000001000": 0.75} and resumed.validations("L_o") == {}
    resumed.close()
    assert [line["images_seen"] for line in lines(tmp_path)] == [1000, 1000]


def test_a_run_in_s3_gets_what_is_sent_and_brings_it_back(url: str, tmp_path: Path) -> None:
    storage = open_storage(url)
    images = RNG.uniform(-1, 1, (3, 4, 4, 1)).astype(np.float32)

    def brought() -> list[tuple[float, float]]:
        for name in [name for name, _ in storage.tree()]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(read_bytes(storage, name))
        return [(line["images_seen"], line["note"]) for line in lines(tmp_path)]

    monitor = Monitor(url, PHASES, 0, print)
    monitor.say("first")
    for count in (1000, 2000, 3000):
        monitor.metrics(count, {"note": 0.0})
        monitor.pictures(count, {"real": images})
    assert storage.tree() == []
    monitor.send()
    assert brought() == [(1000, 0), (2000, 0), (3000, 0)]
    monitor.metrics(4000, {"note": 0.0})  # killed before it is sent
    folder = monitor.folder
    monitor.close()
    assert not folder.exists(), "nothing is left on this machine"

    resumed = Monitor(url, PHASES, 2000, print)
    resumed.say("second")
    resumed.metrics(2500, {"note": 1.0})
    resumed.send()
    resumed.send()  # again, nothing more to do
    resumed.close()
    assert brought() == [(1000, 0), (2000, 0), (2500, 1)]
    assert (tmp_path / "log.txt").read_text() == "first\nsecond\n"
    names = [name for name, _ in storage.tree()]
    assert [name for name in names if "pictures" in name] == [f"pictures/00000{n}000-real.png" for n in (1, 2)]
    assert sum(name.startswith("events/") for name in names) == 1, "those of the first process would count twice"


@pytest.mark.parametrize("left", [b"\0" * 50, b"\xff\xfe{", b"[1]\n", b"3\n", b'{"images_seen": null}\n'])
def test_whatever_a_crash_left_in_the_log_a_run_goes_on(tmp_path: Path, left: bytes) -> None:
    """After a loss of power the end of a file may hold anything."""
    write(tmp_path, 0, [1000, 2000])
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(left)
    write(tmp_path, 2000, [3000])
    assert [line["images_seen"] for line in lines(tmp_path)] == [1000, 2000, 3000]


def test_pictures_are_files_as_well_each_pixel_doubled(tmp_path: Path) -> None:
    images = RNG.uniform(-1, 1, (3, 4, 4, 1)).astype(np.float32)
    monitor = Monitor(str(tmp_path), PHASES, 0, print)
    monitor.pictures(64_000, {"real": images, "generated": -images})
    monitor.close()
    folder = tmp_path / "pictures"
    assert sorted(path.name for path in folder.iterdir()) == ["000064000-generated.png", "000064000-real.png"]
    shown = np.asarray(Image.open(folder / "000064000-real.png"))
    assert np.array_equal(shown, tile(images, 8)[:, :, 0].repeat(2, axis=0).repeat(2, axis=1))


def test_one_line_of_progress_says_how_far(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monitor = Monitor(str(tmp_path), PHASES, 6000, print)
    values = {"speed/sec_per_kimg": 12.5, "critic/wasserstein": 1.5, "encoder/distance": 0.25}
    monitor.progress(10_000, PHASES[1], values)
    monitor.close()
    (line,) = capsys.readouterr().out.splitlines()
    for part in ("10.0/", f"/{PHASES[-1].end // 1000} kimg", "8x8 fade", "12.50 sec/kimg", "1.500", "0.250", "to go"):
        assert part in line


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (5, 3, 2), (6, 3, 2), (2, 4, 1)])
def test_tiles_lie_row_by_row_with_two_white_pixels_between(channels: int, count: int, columns: int, rows: int) -> None:
    levels = np.linspace(-1, 0.9, count)
    images = np.broadcast_to(levels[:, None, None, None], (count, 4, 6, channels))
    grid = tile(images, columns)
    assert (grid.shape, grid.dtype) == (
        (4 * rows + 2 * (rows - 1), 6 * columns + 2 * (columns - 1), channels),
        np.uint8,
    )
    expected = np.full(grid.shape, 255)
    for i, level in enumerate(levels):
        row, column = divmod(i, columns)
        expected[6 * row : 6 * row + 4, 8 * column : 8 * column + 6] = round((level + 1) * 127.5)
    assert np.array_equal(grid, expected)


def test_tiles_clip_what_lies_beyond_black_and_white() -> None:
    values = np.array([-5.0, -1.0, 0.999, 1.0, 5.0]).reshape(5, 1, 1, 1)
    assert tile(values, 5)[0, ::3, 0].tolist() == [0, 0, 255, 255, 255]


def test_saved_pictures_are_lossless_and_scaled(tmp_path: Path) -> None:
    for channels in (1, 3):
        grid = RNG.integers(0, 256, (5, 7, channels), dtype=np.uint8)
        save_picture(grid, tmp_path / "picture.png", scale=3)
        shown = np.asarray(Image.open(tmp_path / "picture.png")).reshape(15, 21, channels)
        assert np.array_equal(shown, grid.repeat(3, axis=0).repeat(3, axis=1))


def test_every_chart_of_the_custom_page_shows_one_thing_and_the_method_fills_them(run: Path) -> None:
    accumulator = EventAccumulator(str(run / "events"), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    shown = {
        chart: [tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)]
        for charts in PAGES.values()
        for chart, (_, patterns) in charts.items()
    }
    assert [chart for chart, names in shown.items() if not names] == ["losses"], "those are of other methods"
    assert all(len(names) == 1 for chart, names in shown.items() if "AUC" not in chart and chart != "losses")
    assert not set(shown["AUC of terms"]) & set(shown["AUC of a"]) and "validation/L_n" in shown["AUC of terms"]
