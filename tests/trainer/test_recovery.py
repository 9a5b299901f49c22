"""A training that is dead says so, goes back with a lower rate, is given up the third time; kills change nothing."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import spawn

from data_tools.errors import UserError, run_command
from tests.support.runs import OFTEN, bits, config_of, leave_group, lines, said, unhurried, words_of
from trainer.__main__ import main as trainer
from trainer.config import TrainConfig
from trainer.run import recoveries
from trainer.run.checkpoint import checkpoint_names, newest_checkpoint, read_info
from trainer.run.folder import prepare
from trainer.run.recoveries import RECOVERIES
from trainer.scoring.inference import Inference
from trainer.training import first_worker, loop
from trainer.training.loop import Hooks
from trainer.training.vitals import BLOWN_UP, Vitals, vitals

DEAD = Vitals(spread=0.001, slope=1.0, score=1.0)
WELL = Vitals(spread=1.0, slope=1.0, score=1.0)
MARKS = [32, 64, 96, 128, 160, 192, 224]
"""Counts of images at which a run of OFTEN is looked at; it saves at 48, 64, 96, 128, 144, 192, 224."""


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int, float], bool]], list[int]]:
    """What is found at a mark follows from the count of images and the learning rate; returns where that was."""

    def patched(dead: Callable[[int, float], bool]) -> list[int]:
        seen: list[int] = []

        def examine(first: first_worker.FirstWorker, step, phase, images_seen: int) -> Vitals:
            seen.append(images_seen)
            return DEAD if dead(images_seen, step.phase.learning_rate) else WELL

        monkeypatch.setattr(first_worker.FirstWorker, "examine", examine)
        return seen

    return patched


def train(dataset: Path, out: Path, *more: str, options: list[str] = OFTEN) -> int:
    with unhurried():
        return run_command(trainer, words_of(dataset, out, dataset.parent / "cache", [*options, *more]))


def past(run: Path) -> list[dict[str, int]]:
    return json.loads((run / RECOVERIES).read_text())["past"]


RATE = 0.004
"""The learning rate of the demo's preset."""


def sick_above(rate: float, since: int) -> Callable[[int, float], bool]:
    return lambda images_seen, learning_rate: images_seen >= since and learning_rate > rate


def test_a_healthy_run_says_nothing_of_it(full: Path) -> None:
    assert not (full / RECOVERIES).exists()
    facts = json.loads((Path(newest_checkpoint(full)) / "checkpoint.json").read_text())
    assert not {"ailing", "recoveries"} & set(facts)
    assert [line["images_seen"] for line in lines(full) if "health/spread" in line] == MARKS


def test_it_goes_back_to_where_it_was_well_and_ends_at_half_the_rate(looks, dataset: Path, tmp_path: Path) -> None:
    seen = looks(sick_above(0.003, 96))
    assert train(dataset, tmp_path / "run") == 0
    assert seen == [32, 64, 96, 128, 160, 96, 128, 160, 192, 224], "three marks in a row; back to the phase's end at 64"
    assert [(each["at"], each["back_to"]) for each in past(tmp_path / "run")] == [(160, 64)]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "generator has collapsed" in log and "at 160 images: back at 64 with learning rates times 0.5" in log
    assert (tmp_path / "run" / "finished.json").exists()
    infos = [read_info(f"{tmp_path}/run/checkpoints/{name}") for name in checkpoint_names(tmp_path / "run")]
    assert [(info.images_seen, info.recoveries) for info in infos] == [(48, 0), (64, 0)] + [
        (count, 1) for count in (96, 128, 144, 192, 224)
    ]
    trained = [line["images_seen"] for line in lines(tmp_path / "run") if "critic/loss" in line]
    assert trained == sorted(set(trained)), "curves hold every step once"


@pytest.mark.slow
def test_one_bad_mark_is_no_failure_but_at_the_end_it_is(looks, dataset: Path, tmp_path: Path) -> None:
    seen = looks(lambda images_seen, rate: images_seen in (64, 96, 160, 192))
    assert train(dataset, tmp_path / "run") == 0 and seen == MARKS
    seen = looks(lambda images_seen, rate: images_seen == 224 and rate > 0.003)
    assert train(dataset, tmp_path / "end") == 0
    assert seen == [*MARKS, 160, 192, 224] and [each["back_to"] for each in past(tmp_path / "end")] == [128]


@pytest.mark.slow
def test_the_third_time_it_is_given_up_and_says_so_again(
    looks, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = looks(sick_above(0.0, 96))
    assert train(dataset, tmp_path / "run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    for word in ("generator has collapsed", "160 images", "0.004, 0.002, 0.001", "--learning-rate of 0.00025"):
        assert word in line
    assert [each["back_to"] for each in past(tmp_path / "run")] == [64, 64]
    assert not (tmp_path / "run" / "finished.json").exists()
    count = len(seen)
    assert train(dataset, tmp_path / "run") == 2 and len(seen) == count, "without a step"
    assert capsys.readouterr().err.splitlines() == [line]
    for command in (["evaluate"], ["audit", "--out", str(tmp_path / "audit")]):
        trainer([command[0], str(tmp_path / "run"), *command[1:], "--cache", str(dataset.parent / "cache")])
        assert f"given up, its checkpoints are from before: {line.removeprefix('error: ')}" in capsys.readouterr().err


@pytest.mark.slow
def test_without_a_checkpoint_to_go_back_to_it_begins_anew(looks, dataset: Path, tmp_path: Path) -> None:
    looks(sick_above(0.003, 0))
    assert train(dataset, tmp_path / "run") == 0
    assert [(each["at"], each["back_to"]) for each in past(tmp_path / "run")] == [(96, 0)]


@pytest.mark.slow
def test_a_checkpoint_to_go_back_to_outlives_newer_ones(
    looks, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MARKS", 5)
    looks(sick_above(0.003, 96))
    options = [*OFTEN[: OFTEN.index("--keep")], "--keep", "1", "--best-by", "a_paper"]
    monkeypatch.setattr("trainer.run.monitor.Monitor.validations", lambda *_: {})
    assert run_command(trainer, words_of(dataset, tmp_path / "run", dataset.parent / "cache", options)) == 0
    assert [(each["at"], each["back_to"]) for each in past(tmp_path / "run")] == [(224, 64)]


class Killed(BaseException):
    """As by kill -9: nothing of the process goes on."""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["written", "cleared", "before", "after"])
def test_a_kill_at_any_moment_changes_no_bit(
    moment: str, looks, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks(sick_above(0.003, 96))
    assert train(dataset, tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        if moment in ("written", "cleared"):
            name = {"written": "record_failure", "cleared": "clear_abandoned"}[moment]
            original = getattr(recoveries, name)

            def killed(run: str, *rest) -> None:
                original(run, *rest)
                if (tmp_path / "cut" / RECOVERIES).exists():
                    raise Killed

            patch.setattr(loop, name, killed)
        else:
            at = {"before": 144, "after": 128}[moment]
            original_save = first_worker.FirstWorker.save

            def save(first, step, phase, images_seen: int, **rest) -> None:
                original_save(first, step, phase, images_seen, **rest)
                if images_seen == at and (moment == "before") != (tmp_path / "cut" / RECOVERIES).exists():
                    first.saver.finish()
                    raise Killed

            patch.setattr(first_worker.FirstWorker, "save", save)
        with pytest.raises(Killed):
            train(dataset, tmp_path / "cut")
    assert train(dataset, tmp_path / "cut") == 0
    assert bits(tmp_path / "cut") == bits(tmp_path / "whole") and past(tmp_path / "cut") == past(tmp_path / "whole")
    assert said(tmp_path / "cut") == said(tmp_path / "whole")


def test_an_absurd_learning_rate_ends_with_advice(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is patched here."""
    assert train(dataset, tmp_path / "run", "--learning-rate", "1e6") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "1e+06, 5e+05, 2.5e+05" in line and "give a --learning-rate of" in line
    assert len(past(tmp_path / "run")) == 2 and not (tmp_path / "run" / "finished.json").exists()


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"past": 3, "given_up": ""}', '{"past": [{"at": -1}], "given_up": ""}']
)
def test_a_damaged_record_is_refused_in_one_line(
    content: str, full: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(full, tmp_path / "run")
    (run / RECOVERIES).write_text(content)
    assert train(dataset, run) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert RECOVERIES in line and "damaged" in line


# What is measured


def test_a_trained_run_is_alive_and_what_is_measured_is_what_it_says(full: Path, dataset: Path) -> None:
    inference = Inference.load(full)
    images = np.random.default_rng(0).integers(60, 160, (32, 32, 32, 1), np.uint8)
    found = vitals(inference, images)
    assert found.trouble == "" and found == vitals(inference, images)
    networks = inference.networks
    with torch.no_grad():
        networks["ema"].dense.weight.zero_()  # type: ignore[union-attr,operator]
    assert "collapsed" in vitals(inference, images).trouble
    with torch.no_grad():
        networks["critic"].score.weight.zero_()  # type: ignore[union-attr,operator]
    assert "critic is dead" in vitals(inference, images).trouble


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (Vitals(), ""),
        (WELL, ""),
        (Vitals(1.0, 1.0, BLOWN_UP), "blown up"),
        (Vitals(1.0, 1.0, float("nan")), "blown up"),
        (Vitals(1.0, float("nan"), 1.0), "dead"),
        (Vitals(float("nan"), 1.0, 1.0), "collapsed"),
    ],
)
def test_what_is_no_number_is_no_health(found: Vitals, word: str) -> None:
    assert word in found.trouble and bool(found.trouble) == bool(word)
    assert all(np.isfinite(value) for value in found.metrics().values())


def _rank(rank: int, world: int, place: str, jobs: list[tuple[TrainConfig, int]]) -> None:
    """One of several workers that train together; found dead at the full rate, well at half of it."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=world)
    sick = sick_above(0.003, 96)
    first_worker.FirstWorker.examine = (  # type: ignore[method-assign]
        lambda _, step, phase, images_seen: DEAD if sick(images_seen, step.phase.learning_rate) else WELL
    )
    for config, stop_after in jobs:
        asked = itertools.count(1)
        loop.train(config, Hooks(stopped=lambda: next(asked) == stop_after, log=lambda line: None))  # noqa: B023
    leave_group()


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [8, 12], ids=["before it is found dead", "after it went back"])
def test_three_workers_of_which_one_stands_by_go_back_together(stop_after: int, dataset: Path, tmp_path: Path) -> None:
    """Stopped as by SIGTERM, it goes back and on to the same bits. At 160 images, after ten steps, it is found dead."""
    words = words_of(dataset, tmp_path / "whole", dataset.parent / "cache", OFTEN)
    whole, cut = config_of(words), config_of([*words, "--out", str(tmp_path / "cut")])
    for config in (whole, cut):
        prepare(config)
    jobs = [(whole, 0), (cut, stop_after), (cut, 0)]
    spawn(_rank, args=(3, str(tmp_path / "meeting"), jobs), nprocs=3)
    assert [(each["at"], each["back_to"]) for each in past(tmp_path / "whole")] == [(160, 64)]
    assert "1 standing by" in (tmp_path / "whole" / "log.txt").read_text()
    assert past(tmp_path / "cut") == past(tmp_path / "whole") and bits(tmp_path / "cut") == bits(tmp_path / "whole")
    assert (tmp_path / "cut" / "finished.json").exists()


def _absurd_rank(rank: int, world: int, place: str, config: TrainConfig) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=world)
    with pytest.raises(UserError) as caught:
        loop.train(config, Hooks(log=lambda line: None))
    Path(f"{config.out}/said-by-{rank}").write_text(str(caught.value))
    leave_group()


@pytest.mark.slow
def test_three_workers_give_up_together_with_the_same_words(dataset: Path, tmp_path: Path) -> None:
    """Nothing is patched here."""
    words = words_of(dataset, tmp_path / "run", dataset.parent / "cache", [*OFTEN, "--learning-rate", "1e6"])
    config = config_of(words)
    prepare(config)
    spawn(_absurd_rank, args=(3, str(tmp_path / "meeting"), config), nprocs=3)
    (line,) = {(tmp_path / "run" / f"said-by-{rank}").read_text() for rank in range(3)}
    assert "give a --learning-rate of" in line and len(past(tmp_path / "run")) == 2
    assert not (tmp_path / "run" / "finished.json").exists()
