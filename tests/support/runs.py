"""Small training runs for tests: their commands, what they said, their bits, and what a kill leaves of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch.distributed
import tyro

from data_tools.storage import open_storage, read_bytes, write_bytes
from trainer.config import TrainConfig
from trainer.presets import preset
from trainer.run import saving
from trainer.run.checkpoint import Snapshot, checkpoint_names, newest_checkpoint

TINY = shlex.split(
    "--preset demo --resolution 8 --width 8 --fade-images 64 --stable-images 64 --final-images 96"
    " --minibatch.4 16 --minibatch.8 16 --log-images 32 --precision float32"
)
"""A training of 20 steps: 4x4 stable, 8x8 fade, 8x8 stable."""
OFTEN = [*TINY, "--checkpoint-images", "48", "--keep", "99"]
COUNTS = [48, 64, 96, 128, 144, 192, 224]
"""Where a run of OFTEN saves: in and at the ends of 4x4 stable (to 64), 8x8 fade (to 128), 8x8 stable (to 224)."""


SMALL_AE = (
    "resolution=8",
    "ae.width=4",
    "ae.code-size=8",
    "ae.images=64",
    "ae.minibatch=16",
    "log-images=32",
    "precision=float32",
)
"""Settings of a tuning command whose trainings of an autoencoder take a second."""


def placed(dataset: Path, out: Path) -> list[str]:
    """Where a command reads and writes, with the cache that tests share."""
    return ["--data", str(dataset), "--out", str(out), "--cache", str(dataset.parent / "cache")]


def words_of(data: Path | str, out: Path | str, cache: Path, options: list[str] = OFTEN) -> list[str]:
    return ["train", "--data", str(data), "--out", str(out), "--cache", str(cache), *options]


def config_of(words: list[str]) -> TrainConfig:
    return tyro.cli(TrainConfig, args=words[1:], default=preset("demo"))


@contextlib.contextmanager
def unhurried() -> Iterator[None]:
    """Training waits until each checkpoint is saved and validated: so small a one would leave some of them out."""
    original = saving.Saver.save

    def save(saver: saving.Saver, snapshot: Snapshot, must: bool) -> None:
        original(saver, snapshot, must)
        while snapshot.name not in saver.monitor.validations("a_paper") and not saver.failure:
            time.sleep(0.005)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving.Saver, "save", save)
        yield


def lines(run: Path | str) -> list[dict[str, float]]:
    return [json.loads(line) for line in read_bytes(open_storage(str(run)), "metrics.jsonl").splitlines()]


def said(run: Path | str) -> list[str]:
    """The lines of metrics without what a clock put there, sorted: validations come when they are done."""
    kept = [{k: v for k, v in line.items() if k != "time" and not k.startswith("speed/")} for line in lines(run)]
    return sorted(json.dumps(line) for line in kept)


def bits(run: Path | str) -> dict[str, str]:
    """The checksums of a run's last checkpoint, of the files themselves."""
    storage = open_storage(newest_checkpoint(run))
    return {
        name: hashlib.sha256(read_bytes(storage, name)).hexdigest()
        for name in storage.names()
        if name.endswith(".safetensors")
    }


def cut_back(full: Path, to: int, out: Path) -> Path:
    """A copy of a run as a kill after the checkpoint at `to` leaves it: its logs go further."""
    shutil.copytree(full, out)
    for name in checkpoint_names(out):
        if int(name.removeprefix("images-")) > to:
            shutil.rmtree(out / "checkpoints" / name)
    return out


def upload(run: Path, url: str) -> None:
    storage = open_storage(url)
    for path in run.rglob("*.*"):
        write_bytes(storage, path.relative_to(run).as_posix(), path.read_bytes())


def leave_group() -> NoReturn:
    """Leave the process group and end a worker that a test started, at once and well.

    A thread of gloo that lets go of a tensor while the interpreter ends aborts the process (PyTorch's issue 190489).
    """
    torch.distributed.destroy_process_group()
    os._exit(0)
