"""Named starting points of a configuration, one plain function each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from data_tools.errors import UserError
from trainer.config import PAPER_MINIBATCH, TrainConfig
from trainer.methods import METHODS


def kth() -> TrainConfig:
    """The paper's KTH-Cellvideos run: 64x64, 5,280 thousand images."""
    return TrainConfig(preset="kth")


def cifar_car() -> TrainConfig:
    """The paper's CIFAR_CAR run: 32x32, 4,000 thousand images."""
    return TrainConfig(preset="cifar-car", resolution=32, final_images=400_000)


def of_methods(name: str) -> dict[str, Any]:
    """The options of methods in a preset, of those that have others there than their defaults."""
    return {method: each.presets()[name] for method, each in METHODS.items() if name in each.presets()}


STEADY: dict[str, Any] = {"contrast": "learned", "final_decay": 1.0}
"""What keeps a critic of small batches ahead of its generator; see tuning/results/steadiness.md."""


def cells_small() -> TrainConfig:
    """Cells at 32x32 on two CPU cores in a quarter of an hour: 1/16 of the width, 3 % of the images.

    The learning rate is the paper's times sqrt(512 / width): with weights scaled by 1 / sqrt(fan in), a step of Adam
    moves a layer's output by about learning_rate * sqrt(fan in), so this keeps the speed of learning that of width 512.
    """
    return TrainConfig(
        preset="cells-small",
        resolution=32,
        width=32,
        fade_images=20_000,
        stable_images=20_000,
        final_images=44_000,
        minibatch={**PAPER_MINIBATCH, 4: 32, 8: 32, 16: 16, 32: 16},
        learning_rate=0.004,
        **STEADY,
        ema_decay=0.995,
        log_images=2_000,
        checkpoint_images=10_000,
        **of_methods("cells-small"),
    )


def cifar_small() -> TrainConfig:
    """CIFAR-10 cars on two CPU cores: the same schedule as cells-small."""
    return dataclasses.replace(cells_small(), preset="cifar-small")


def study() -> TrainConfig:
    """One of a study's many training runs: 16x16, a few minutes on one CPU core."""
    return dataclasses.replace(
        cells_small(),
        preset="study",
        resolution=16,
        fade_images=12_000,
        stable_images=12_000,
        final_images=36_000,
        minibatch={**PAPER_MINIBATCH, 4: 32, 8: 32, 16: 32},
        log_images=4_000,
        checkpoint_images=12_000,
        **of_methods("study"),
    )


def demo() -> TrainConfig:
    """A few minutes on two CPU cores, for a first look."""
    return TrainConfig(
        preset="demo",
        resolution=32,
        width=32,
        fade_images=10_000,
        stable_images=10_000,
        final_images=14_000,
        minibatch={**PAPER_MINIBATCH, 4: 32, 8: 32, 16: 16, 32: 16},
        learning_rate=0.004,  # as for cells-small
        generator_rate=0.5,  # 30 training runs of this preset were steady with it; longer ones do better without
        **STEADY,
        ema_decay=0.99,
        log_images=1_000,
        checkpoint_images=5_000,
        **of_methods("demo"),
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "kth": kth,
    "cifar-car": cifar_car,
    "cells-small": cells_small,
    "cifar-small": cifar_small,
    "study": study,
    "demo": demo,
}


def preset(name: str, **options: Any) -> TrainConfig:
    """The preset of this name with some options changed; UserError with the list of names otherwise."""
    if name not in PRESETS:
        raise UserError(f"--preset {name} is unknown - choose one of {', '.join(PRESETS)}")
    return dataclasses.replace(PRESETS[name](), **options)
