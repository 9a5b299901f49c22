"""The configuration of one of many training runs: a preset, a method as a sweep calls it, and single settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from data_tools.errors import UserError
from trainer.config import TrainConfig
from trainer.methods import method_of
from trainer.presets import preset
from tuning.config import METHODS
from tuning.options import parse, with_option


def with_method(config: TrainConfig, called: str) -> TrainConfig:
    """The same with all that a method, as sweeps call it, stands for; UserError for one that is unknown."""
    if called not in METHODS:
        raise UserError(f"--method {called} is unknown - choose among {', '.join(METHODS)}")
    for option, value in METHODS[called].items():
        config = with_option(config, option, value)
    return config


def training_of(preset_name: str, called: str, settings: Sequence[str], **options: Any) -> TrainConfig:
    """A training from a preset, by a method as sweeps call it, with NAME=VALUE settings; UserError for a wrong one."""
    config = with_method(dataclasses.replace(preset(preset_name), **options), called)
    for text in settings:
        choice = parse(text, config)
        if len(choice.values) != 1:
            raise UserError(f"--set {text} is not a single value - give NAME=VALUE")
        config = with_option(config, choice.name, choice.values[0])
    return config


def check_calibrates(config: TrainConfig) -> None:
    """UserError for a training run whose detector has no calibration, before it is trained."""
    if not (method := method_of(config)).ready(config, config.schedule()[-1].end):
        raise UserError(f"--method {method.name()} does not score in one pass, which this needs - give another")
