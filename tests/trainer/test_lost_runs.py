"""A lock that does not last: a training run that was paused or refused leaves another's run unharmed."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data_tools.errors import BusyError, TakenOverError, UserError, run_command
from data_tools.storage import Guarded, StillOurs, open_storage, write_bytes
from tests.support.checks import refuses
from tests.support.lost import ROOT, TAKEN_OVER, Paused, contents, files, marks
from tests.support.runs import TINY, bits, config_of, words_of
from trainer.__main__ import main as trainer
from trainer.commands import train as command
from trainer.run.checkpoint import Snapshot, remove_checkpoint, write_checkpoint
from trainer.run.folder import CONFIG, check_begun, mark_finished, prepare, withdraw
from trainer.run.monitor import Monitor
from trainer.training.loop import train

PHASES = config_of(["train", "--data", "d", "--out", "o", *TINY]).schedule()


@pytest.fixture
def lost(url: str, short_lease: None) -> Iterator[StillOurs]:
    """What a training run has in hand whose place was taken and left again while it was paused."""
    with open_storage(url).sole_writer() as still_ours:
        write_bytes(open_storage(url), ".writer-000005", b'{"over": true}')
        time.sleep(0.5)
        yield still_ours


def a_snapshot(url: str) -> Snapshot:
    config = config_of(["train", "--data", "d", "--out", url, *TINY])
    return Snapshot(64, 8, None, 1, "0" * 64, config, {"critic": {"w": torch.zeros(3)}})


def send_logs(url: str, still_ours: StillOurs) -> None:
    with contextlib.closing(Monitor(url, PHASES, 0, print, still_ours)) as monitor:
        monitor.send()


ACTIONS: dict[str, Callable[[str, StillOurs], object]] = {
    "logs are sent": lambda url, ours: send_logs(url, ours),
    "a checkpoint is written": lambda url, ours: write_checkpoint(url, a_snapshot(url), still_ours=ours),
    "a checkpoint is removed": lambda url, ours: remove_checkpoint(url, "images-000000064", ours),
    "it is over": lambda url, ours: mark_finished(url, ours),
    "an object is removed": lambda url, ours: Guarded(open_storage(url), ours).remove("metrics.jsonl"),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_training_that_lost_its_run_changes_nothing(url: str, lost: StillOurs, action: str) -> None:
    write_checkpoint(url, a_snapshot(url))
    for name in ("metrics.jsonl", "pictures/000000064-real.png", "events/events.out.tfevents.1", "finished.json"):
        write_bytes(open_storage(url), name, b"of the successor")
    before = contents(url)
    with pytest.raises(TakenOverError, match="another process has taken over"):
        ACTIONS[action](url, lost)
    assert contents(url) == before


def test_of_pictures_only_those_of_the_training_before_are_removed(url: str, short_lease: None) -> None:
    storage = open_storage(url)
    for name in ("pictures/000009000-real.png", "pictures/mine.png", "events/events.out.tfevents.1", "events/notes"):
        write_bytes(storage, name, b"")
    monitor = Monitor(url, PHASES, 0, print)
    write_bytes(storage, "pictures/000008000-real.png", b"")  # it came later
    monitor.send()
    names = [name for name, _ in storage.tree() if "tfevents" not in name]
    monitor.close()
    assert names == ["events/notes", "log.txt", "metrics.jsonl", "pictures/000008000-real.png", "pictures/mine.png"]
    assert "events/events.out.tfevents.1" not in [name for name, _ in storage.tree()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        r"write critic\.safetensors 1",
        r"write critic\.safetensors 2",
        r"write metrics\.jsonl 2",
        r"write checkpoint\.json 2",
        r"write best\.json 2",
        r"remove critic\.safetensors 1",
        r"write pictures/.* 2",
        r"write finished\.json 1",
    ],
)
def test_a_paused_training_leaves_its_successors_run_alone(
    url: str, dataset: Path, short_lease: None, moment: str
) -> None:
    words = [*words_of(dataset, url, dataset.parent / "cache", TINY), "--keep", "1"]
    first = Paused(moment, "trainer", *words)
    trainer(words)
    before = contents(url)
    assert "finished.json" in before
    code, said = first.wake()
    assert code == 2 and said.rstrip().endswith(TAKEN_OVER), said
    assert contents(url) == before


@pytest.mark.slow
def test_in_a_folder_a_paused_training_holds_its_lock(
    full: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.run.resume.HANDOVER_SECONDS", 2.0)
    words = words_of(dataset, tmp_path / "run", dataset.parent / "cache")
    first = Paused(r"write checkpoint\.json 2", "trainer", *words)
    refuses(lambda: trainer(words), "another process is writing there")
    code, said = first.wake()
    assert code == 0, said
    assert bits(tmp_path / "run") == bits(full)


@pytest.mark.parametrize("error", [BusyError("busy - wait"), TakenOverError("lost - leave it"), UserError("no - help")])
def test_who_gives_up_leaves_the_training_that_runs_there_alone(
    out: str, dataset: Path, monkeypatch: pytest.MonkeyPatch, error: UserError
) -> None:
    """As with one on Ray, which writes config.json and waits, while another takes the lock and trains."""
    words, another = words_of(dataset, out, dataset.parent / "cache", TINY), contextlib.ExitStack()

    def given_up(config: Any) -> None:
        another.enter_context(open_storage(out).sole_writer())
        write_bytes(open_storage(out), "metrics.jsonl", b'{"images_seen": 32}')
        raise error

    monkeypatch.setattr(command, "_train_here", given_up)
    with another:
        assert run_command(trainer, words) == 2
        assert set(files(out)) == {CONFIG, "metrics.jsonl"}


def test_who_was_refused_removes_nothing_even_when_the_other_one_has_gone(out: str, dataset: Path) -> None:
    config = config_of(words_of(dataset, out, dataset.parent / "cache", TINY))
    assert prepare(config) == "new"
    before = files(out)
    withdraw(out, BusyError("busy - wait"))
    withdraw(out, TakenOverError("lost - leave it"))
    assert files(out) == before == {CONFIG: before[CONFIG]}


@pytest.mark.parametrize(
    ("there", "stays"),
    [
        ((), False),
        (("log.txt", "metrics.jsonl", "events/events.out.tfevents.1", "pictures/000000064-real.png"), False),
        (("checkpoints/images-000000064/critic.safetensors",), False),
        (("checkpoints/images-000000064/critic.safetensors", "checkpoints/images-000000064/checkpoint.json"), True),
        (("log.txt", "notes.txt"), True),
        (("calibration/images-000000064.safetensors",), True),
    ],
)
def test_a_new_run_that_failed_goes_only_where_nothing_is_lost(
    out: str, dataset: Path, there: tuple[str, ...], stays: bool
) -> None:
    prepare(config_of(words_of(dataset, out, dataset.parent / "cache", TINY)))
    for name in there:
        folder, _, file = name.rpartition("/")
        write_bytes(open_storage(f"{out}/{folder}" if folder else out), file, b"x")
    before = files(out)
    withdraw(out, UserError("no - help"))
    assert files(out) == (before if stays else {})
    assert stays or out.startswith("s3:") or not Path(out).exists()


def test_a_run_whose_holder_may_only_be_paused_is_not_withdrawn(url: str, dataset: Path, short_lease: None) -> None:
    prepare(config_of(words_of(dataset, url, dataset.parent / "cache", TINY)))
    write_bytes(open_storage(url), ".writer-000001", b'{"machine": "elsewhere", "pid": 1, "beat": 7}')
    withdraw(url, UserError("no - help"))
    assert set(files(url)) == {CONFIG} and marks(url)[-1] == ".writer-000001"


def test_who_comes_after_it_was_withdrawn_trains_no_run_without_options(out: str, dataset: Path) -> None:
    config = config_of(words_of(dataset, out, dataset.parent / "cache", TINY))
    prepare(config)
    check_begun(config)
    withdraw(out, UserError("no - help"))
    refuses(lambda: train(config), out, CONFIG, "is gone")
    prepare(dataclasses.replace(config, seed=7))
    refuses(lambda: train(config), out, "differs in", "seed")


@pytest.mark.slow
def test_one_on_ray_that_gives_up_leaves_the_one_that_trains_here(dataset: Path, tmp_path: Path) -> None:
    """As people do it: two with one --out; the first writes config.json and waits for Ray, the second trains."""
    run = tmp_path / "run"
    words = words_of(dataset, run, dataset.parent / "cache", [*TINY, "--final-images", "100000000"])
    how: Any = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    on_ray = subprocess.Popen([sys.executable, "-m", "trainer", *words, "--workers", "1"], **how)
    try:
        while not (run / CONFIG).exists():
            assert on_ray.poll() is None
            time.sleep(0.05)
        here = subprocess.Popen([sys.executable, "-m", "trainer", *words], **how)
        try:
            _, said = on_ray.communicate(timeout=180)
            assert on_ray.returncode == 2 and "another process is writing there - wait for it, or stop it" in said
            assert here.poll() is None and (run / CONFIG).exists() and (run / "metrics.jsonl").exists()
            here.send_signal(signal.SIGTERM)
            here.communicate(timeout=60)
            assert here.returncode == 128 + signal.SIGTERM and (run / "checkpoints").exists()
        finally:
            here.kill()
    finally:
        on_ray.kill()
