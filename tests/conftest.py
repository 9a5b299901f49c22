"""What tests share: a small simulated experiment, its dataset, a run trained on it; and how a refusal must look."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data_tools.__main__ import main as data_tools
from data_tools.errors import UserError
from trainer.__main__ import main as trainer

torch.set_num_threads(1)  # tests run side by side

TINY = shlex.split(
    "--preset demo --resolution 8 --width 8 --fade-images 64 --stable-images 64 --final-images 96"
    " --minibatch.4 16 --minibatch.8 16 --log-images 32 --precision float32"
)
"""A training of 20 steps: 4x4 stable, 8x8 fade, 8x8 stable."""


def refuses(action: Callable[[], object], *words: str) -> None:
    """The action raises one line that holds all the words and a remedy."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and " - " in message
    assert all(word in message for word in words), message


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("videos") / "experiment"
    data_tools(f"simulate {out} --sequences 2 --frames 4 --size 160 --cells 12 --debris 8 --seed 5".split())
    return out


@pytest.fixture(scope="session")
def dataset(videos: Path) -> Path:
    out = videos.parent / "shards"
    data_tools(f"baxter {videos} --out {out} --resolution 32 --test-size 12 --rotations 1".split())
    return out


@pytest.fixture(scope="session")
def run(dataset: Path) -> Path:
    """A finished run; tests only read it."""
    out = dataset.parent / "run"
    trainer(["train", "--data", str(dataset), "--out", str(out), "--cache", str(out.parent / "cache"), *TINY])
    return out
