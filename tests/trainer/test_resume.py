"""Going on where a run was: bit for bit, on one process or several, after a signal, a cut, or from other weights."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.multiprocessing.spawn import spawn

from data_tools.errors import UserError, run_command
from data_tools.storage import open_storage, read_bytes
from tests.support.checks import refuses
from tests.support.runs import (
    COUNTS,
    OFTEN,
    TINY,
    bits,
    config_of,
    cut_back,
    leave_group,
    lines,
    said,
    unhurried,
    upload,
    words_of,
)
from trainer.__main__ import main as trainer
from trainer.config import TrainConfig
from trainer.run.checkpoint import checkpoint_names, chosen_checkpoint, newest_checkpoint, read_info
from trainer.run.folder import prepare
from trainer.run.resume import find_start
from trainer.training.loop import Hooks, train


def events(run: Path) -> Counter[tuple[str, int]]:
    accumulator = EventAccumulator(str(run / "events"), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    scalars = [(tag, event.step) for tag in tags["scalars"] for event in accumulator.Scalars(tag)]
    return Counter(scalars + [(tag, event.step) for tag in tags["images"] for event in accumulator.Images(tag)])


def aucs_of(run: Path, by: str) -> dict[str, float]:
    key = f"validation/{by}"
    return {f"images-{line['images_seen']:09.0f}": line[key] for line in lines(run) if key in line}


@pytest.fixture
def again(dataset: Path) -> Callable[..., None]:
    """Give the command of the full run once more, for another folder."""

    def command(out: Path | str, *more: str) -> None:
        with unhurried():
            trainer([*words_of(dataset, out, dataset.parent / "cache"), *more])

    return command


def test_a_whole_run_saves_within_phases_and_at_their_ends(full: Path) -> None:
    counts = [int(name.removeprefix("images-")) for name in checkpoint_names(full)]
    assert counts == COUNTS
    infos = {seen: read_info(f"{full}/checkpoints/images-{seen:09d}") for seen in counts}
    assert [seen for seen in counts if "critic_adam.safetensors" in infos[seen].sha256] == [48, 96, 144, 192]
    assert {seen: info.alpha for seen, info in infos.items() if info.alpha is not None} == {96: 0.5}
    assert Counter((line["images_seen"], name) for line in lines(full) for name in line).most_common(1)[0][1] == 2
    assert set(events(full).values()) == {1}


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(48, id="mid-stable", marks=pytest.mark.slow),
        pytest.param(64, id="phase end", marks=pytest.mark.slow),
        pytest.param(96, id="mid-fade"),
        pytest.param(144, id="last phase"),
    ],
)
def test_a_run_cut_back_to_any_checkpoint_ends_bit_identical(
    full: Path, at: int, tmp_path: Path, again: Callable[..., None]
) -> None:
    cut = cut_back(full, at, tmp_path / "run")
    with (cut / "metrics.jsonl").open("a") as file:
        file.write('{"images_seen": 240, "crit')  # as a process writes that is killed
    again(cut)
    assert bits(cut) == bits(full) and len(bits(cut)) == 4
    assert said(cut) == said(full)
    assert events(cut) == events(full)
    assert f"from {at} images" in (cut / "log.txt").read_text()


@pytest.mark.slow
def test_after_two_restarts_every_curve_holds_every_step_once(
    full: Path, tmp_path: Path, again: Callable[..., None]
) -> None:
    cut = cut_back(full, 48, tmp_path / "run")
    again(cut)
    again(cut_back(cut, 128, tmp_path / "again"))
    twice = tmp_path / "again"
    assert said(twice) == said(full) and bits(twice) == bits(full)
    assert events(twice) == events(full) and set(events(twice).values()) == {1}
    pictures = {path.name for path in (full / "pictures").iterdir()}
    assert {path.name for path in (twice / "pictures").iterdir()} == pictures


@pytest.mark.slow
def test_a_checkpoint_that_a_kill_left_unvalidated_is_validated_on_resume(
    full: Path, tmp_path: Path, again: Callable[..., None]
) -> None:
    cut = cut_back(full, 96, tmp_path / "run")
    kept = [line for line in lines(cut) if not (line["images_seen"] == 96 and "validation/L_n" in line)]
    (cut / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    again(cut)
    assert said(cut) == said(full)


@pytest.mark.slow
def test_a_run_in_s3_that_was_cut_off_ends_bit_identical(
    full: Path, url: str, tmp_path: Path, again: Callable[..., None]
) -> None:
    cut, out = cut_back(full, 144, tmp_path / "run"), f"{url}/run"
    upload(cut, out)
    again(out)
    assert bits(out) == bits(full) and said(out) == said(full)
    storage = open_storage(out)
    names = [name for name, _ in storage.tree()]
    for name in [name for name in names if name.startswith("events/")]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(read_bytes(storage, name))
    assert events(tmp_path) == events(full)
    assert {Path(name).name for name in names if name.startswith("pictures/")} == {
        path.name for path in (full / "pictures").iterdir()
    }


# Several workers


def _rank(rank: int, world: int, place: str, jobs: list[tuple[TrainConfig, int]]) -> None:
    """One of several processes that train together, each config up to so many steps from where it is (0: all)."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=world)
    for config, stop_after in jobs:
        asked = itertools.count(1)
        around = Hooks(stopped=lambda: next(asked) == stop_after, log=lambda line: None)  # noqa: B023
        train(config, around)
    leave_group()


def together(world: int, place: Path, *jobs: tuple[TrainConfig, int]) -> None:
    spawn(_rank, args=(world, str(place), list(jobs)), nprocs=world)


def two_runs(dataset: Path, folder: Path, *options: str) -> tuple[TrainConfig, TrainConfig]:
    """The same run twice, each with a folder of its own."""
    words = [*words_of(dataset, folder / "whole", dataset.parent / "cache"), *options]
    whole, cut = config_of(words), config_of([*words, "--out", str(folder / "cut")])
    for config in (whole, cut):
        prepare(config)
    return whole, cut


def trained(run: Path | str) -> list[float]:
    return [line["images_seen"] for line in lines(run) if "critic/loss" in line]


@pytest.mark.slow
def test_three_workers_of_which_one_stands_by_go_on_bit_identical(dataset: Path, tmp_path: Path) -> None:
    """16 images are four groups for minibatch-stddev, so of three workers two train; the stop is in the fade."""
    whole, cut = two_runs(dataset, tmp_path, "--final-images", "32")
    together(3, tmp_path / "meeting", (whole, 0), (cut, 5), (cut, 0))
    assert bits(cut.out) == bits(whole.out)
    assert [seen for seen in trained(cut.out) if seen != 80] == trained(whole.out)  # a stop says where it was
    log = (tmp_path / "cut" / "log.txt").read_text()
    assert log.count("2 worker(s), 1 standing by") == 2 and "from 80 images" in log


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [3, 6, 11], ids=["4x4", "mid-fade", "last phase"])
def test_four_workers_in_new_processes_go_on_bit_identical(dataset: Path, tmp_path: Path, stop_after: int) -> None:
    """Four, where sums depend on their order. The stop falls between checkpoints."""
    whole, cut = two_runs(dataset, tmp_path)
    together(4, tmp_path / "meeting-1", (whole, 0), (cut, stop_after))
    assert read_info(newest_checkpoint(cut.out)).images_seen == 16 * stop_after
    together(4, tmp_path / "meeting-2", (cut, 0))
    assert bits(cut.out) == bits(whole.out)
    stop = 16 * stop_after
    assert sorted({*trained(whole.out), stop}) == trained(cut.out)  # a stop says where it was


# Other weights, another configuration


@pytest.mark.slow
def test_a_new_run_starts_from_an_old_ones_weights(
    full: Path, dataset: Path, tmp_path: Path, again: Callable[..., None]
) -> None:
    """At their count, with Adam again; what it was asked for besides is its own."""
    old = f"{full}/checkpoints/images-{144:09d}"
    again(tmp_path / "run", "--from", old, "--learning-rate", "0.001")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"starting from the weights of {old}" in log and "from 144 images" in log
    assert checkpoint_names(tmp_path / "run") == ["images-000000192", "images-000000224"]
    assert bits(tmp_path / "run") != bits(full)
    assert trained(tmp_path / "run") == [160, 192, 224]
    assert {line["images_seen"] for line in lines(tmp_path / "run") if "validation/L_n" in line} == {192, 224}
    # It goes on from its own checkpoints, not from the old weights again.
    cut = cut_back(tmp_path / "run", 192, tmp_path / "cut")
    again(cut, "--from", old, "--learning-rate", "0.001")
    assert bits(cut) == bits(tmp_path / "run") and said(cut) == said(tmp_path / "run")


def test_the_newest_weights_of_a_run_start_a_longer_one(full: Path, tmp_path: Path, again: Callable[..., None]) -> None:
    again(tmp_path / "run", "--from", str(full), "--final-images", "128")
    assert checkpoint_names(tmp_path / "run") == ["images-000000240", "images-000000256"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--from", "{full}"], ("images-000000224", "224 images", "--final-images")),
        (["--from", "{full}", "--width", "16", "--final-images", "128"], ("--width 8", "16")),
        (["--from", "{full}", "--resolution", "16"], ("--resolution 8", "16")),
        (
            ["--from", "{full}/checkpoints/images-000000144", "--stable-images", "256"],
            ("8x8", "4x4", "--stable-images"),
        ),
        (["--from", "{full}/pictures"], ("pictures", "holds no checkpoint")),
        (["--from", "{full}/nowhere"], ("nowhere", "holds no checkpoint")),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_written(
    full: Path, dataset: Path, tmp_path: Path, options: list[str], words: tuple[str, ...]
) -> None:
    filled = [option.format(full=full) for option in options]
    command = [*words_of(dataset, tmp_path / "run", dataset.parent / "cache"), "--minibatch.16", "16", *filled]
    refuses(lambda: trainer(command), *words)
    assert not (tmp_path / "run").exists()


def test_weights_for_other_channels_are_refused_without_a_folder(full: Path, tmp_path: Path) -> None:
    from tests.test_bad_input import shards_of

    shards_of(tmp_path / "coloured", {"train-normal": 40}, channels=3)
    old = f"{full}/checkpoints/images-{144:09d}"
    command = [*words_of(tmp_path / "coloured", tmp_path / "run", tmp_path / "cache"), "--from", old]
    with pytest.raises(UserError, match="is for images of 1 channels, and these have 3") as caught:
        trainer(command)
    assert not (tmp_path / "run").exists()
    assert " - " in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--seed", "7", "--ema-decay", "0.5"], ("--seed", "--ema-decay")),
        (["--from", "elsewhere"], ("--from",)),
        (["--minibatch.8", "32"], ("--minibatch",)),
    ],
)
def test_another_configuration_on_resume_is_refused_by_name(
    full: Path, dataset: Path, tmp_path: Path, options: list[str], named: tuple[str, ...]
) -> None:
    cut = cut_back(full, 96, tmp_path / "run")
    before = {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    refuses(lambda: trainer([*words_of(dataset, cut, dataset.parent / "cache"), *options]), "differs in", *named)
    assert {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()} == before


# Signals, and others at work


@pytest.mark.slow
def test_a_run_that_is_told_to_end_saves_at_that_step_and_goes_on_from_it(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = words_of(dataset, out, dataset.parent / "cache", [*TINY, "--final-images", "1000000", "--pictures", "1"])
    command = [sys.executable, "-m", "trainer", *words]

    def until_told(enough: str) -> str:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout
            shown = []
            for line in process.stdout:
                shown.append(line)
                if enough in line:
                    process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 128 + signal.SIGTERM, shown
        return "".join(shown)

    first = until_told("0.3/")
    assert "stopped; the same command goes on from here" in first
    newest = read_info(newest_checkpoint(out))
    assert max(trained(out)) <= newest.images_seen < max(trained(out)) + 32, "at the very step"
    assert {"critic_adam.safetensors", "generator_adam.safetensors"} <= newest.sha256.keys()
    second = until_told(f"from {newest.images_seen:,} images")
    assert f"from {newest.images_seen:,} images" in second
    assert read_info(newest_checkpoint(out)).images_seen > newest.images_seen
    assert trained(out) == sorted(set(trained(out)))


@pytest.mark.slow
def test_stopping_between_two_lines_of_metrics_changes_no_bit(full: Path, dataset: Path, tmp_path: Path) -> None:
    """At 80 images, in a fade, where nothing else is due."""
    words = words_of(dataset, tmp_path / "run", dataset.parent / "cache")
    config, steps = config_of(words), iter(range(1, 100))
    prepare(config)
    with unhurried():
        train(config, Hooks(stopped=lambda: next(steps) == 5))
    assert read_info(newest_checkpoint(config.out)).images_seen == 80
    with unhurried():
        trainer(words)
    assert bits(config.out) == bits(full)
    # Means over the steps from 64 on are no longer to be had for the line at 96; all others are the same.
    others = [
        [line for line in said(run) if json.loads(line)["images_seen"] not in (80, 96)]
        for run in (full, tmp_path / "run")
    ]
    assert others[0] == others[1]


def test_a_second_training_on_the_same_run_is_refused(
    full: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainer.run.resume.HANDOVER_SECONDS", 0.3)
    cut = cut_back(full, 192, tmp_path / "run")
    command = words_of(dataset, cut, dataset.parent / "cache")
    before = {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    with open_storage(str(cut)).sole_writer():
        assert run_command(trainer, command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "another process is writing there - wait for it, or stop it" in line and str(cut) in line
    assert {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()} == before
    assert run_command(trainer, command) == 0, "once the other one is gone"


def test_one_that_ends_a_moment_later_is_waited_for(full: Path, dataset: Path, tmp_path: Path) -> None:
    """As after a kill, when the same command is given at once."""
    cut = cut_back(full, 192, tmp_path / "run")
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys, time; from data_tools.storage import open_storage\n"
            "with open_storage(sys.argv[1]).sole_writer(): print('held', flush=True); time.sleep(60)",
            str(cut),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout and holder.stdout.readline() == "held\n"
    subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {holder.pid}"])
    trainer(words_of(dataset, cut, dataset.parent / "cache"))
    assert holder.wait(10) == -signal.SIGKILL
    holder.stdout.close()
    assert bits(cut) == bits(full)


# What stays


@pytest.mark.slow
def test_the_newest_and_the_best_checkpoints_stay_and_broken_ones_go(
    full: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aucs = aucs_of(full, "a_paper")
    best = max(aucs, key=lambda name: aucs[name])
    out = tmp_path / "run"
    for broken in ("images-000000050", "images-000000100"):  # from a process that was killed while it wrote
        (out / "checkpoints" / broken).mkdir(parents=True)
        (out / "checkpoints" / broken / "critic.safetensors").write_bytes(b"half")
    shutil.copy(full / "config.json", out)
    with unhurried():
        trainer([*words_of(dataset, out, dataset.parent / "cache"), "--keep", "2"])
    assert checkpoint_names(out) == sorted({best, "images-000000192", "images-000000224"})
    assert {path.name for path in (out / "checkpoints").iterdir()} == set(checkpoint_names(out))
    assert json.loads((out / "best.json").read_text()) == {"checkpoint": best, "a_paper": aucs[best]}
    assert chosen_checkpoint(str(out), best=True) == f"{out}/checkpoints/{best}"
    assert chosen_checkpoint(str(out), best=False) == f"{out}/checkpoints/images-000000224"
    trainer(["evaluate", str(out), "--best", "--cache", str(dataset.parent / "cache")])
    assert f"AUC after {int(best.removeprefix('images-'))} images" in capsys.readouterr().out
    summary = json.loads((out / "evaluation" / "summary.json").read_text())
    assert summary["images_seen"] == int(best.removeprefix("images-"))
    assert summary["a_paper"] == pytest.approx(aucs[best])


@pytest.mark.parametrize("by", ["L_n", "L_r", "a_best", "separation"])
def test_the_best_is_the_best_by_what_was_asked_for(
    full: Path, dataset: Path, tmp_path: Path, by: str, again: Callable[..., None]
) -> None:
    """best.json is made again from the log, for a run that goes on as well; of equals the first stays."""
    aucs = aucs_of(full, by)
    cut = cut_back(full, 192, tmp_path / "run")
    again(cut, "--best-by", by, "--keep", "1")
    best = max(aucs, key=lambda name: aucs[name])
    assert json.loads((cut / "best.json").read_text()) == {"checkpoint": best, by: aucs[best]}
    assert checkpoint_names(cut) == sorted({best, "images-000000224"})


@pytest.mark.parametrize("content", ["{}", "[]", "{", "", '{"checkpoint": 3}', '{"checkpoint": "images-000000001"}'])
def test_a_best_json_that_is_damaged_is_refused_in_one_line(full: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(full, tmp_path / "run")
    (tmp_path / "run" / "best.json").write_text(content)
    refuses(lambda: trainer(["evaluate", str(tmp_path / "run"), "--best"]), str(tmp_path / "run"))
    (tmp_path / "run" / "best.json").unlink()
    refuses(lambda: trainer(["evaluate", str(tmp_path / "run"), "--best"]), "best.json", "--best")


def test_the_schedule_of_these_tests_is_the_one_they_name() -> None:
    config = dataclasses.replace(config_of(["train", *OFTEN]))
    assert [(phase.name, phase.end) for phase in config.schedule()] == [
        *(("4x4 stable", 64), ("8x8 fade", 128), ("8x8 stable", 224)),
    ]


def test_a_resume_with_another_torch_says_that_bits_may_differ(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = cut_back(full, 48, tmp_path / "run")
    config = config_of(words_of(full.parent / "shards", cut, full.parent / "cache"))
    assert not [note for note in find_start(config).notes if "differ" in note]
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    (note,) = find_start(config).notes
    assert note.startswith(f"note: {cut}/checkpoints/images-000000048 was made with torch 2.")
    assert "here are torch 9.9.9" in note and note.endswith("the bits of the run may differ")
