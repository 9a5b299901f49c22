"""What a command was begun with, in a file at its result: the same command goes on, another one is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_tools.errors import UserError
from data_tools.storage import open_storage, read_document, write_bytes
from trainer.config import TrainConfig
from trainer.methods import method_of
from trainer.presets import preset
from tuning.config import METHODS
from tuning.options import parse, with_option

OPTIONS = {"seeds": "seed", "methods": "method", "settings": "set"}
"""What fields are called on the command line, where it is not by their names."""


def begin_or_go_on(out: str, file: str, options: Mapping[str, Any], what: str) -> None:
    """Write options down in an empty folder; UserError where others are written, or where something else lies.

    what: the command's result, as "rounds".
    """
    wanted, storage = json.loads(json.dumps(options)), open_storage(out)
    try:
        found = read_document(storage, file)
    except FileNotFoundError:
        if any(True for _ in storage.tree()):
            raise UserError(f"--out {out}: exists and holds no {what} - give a new or an empty folder") from None
        write_bytes(storage, file, (json.dumps(wanted, indent=2) + "\n").encode())
        return
    except ValueError as error:
        raise UserError(f"{out}/{file}: damaged ({error!r:.200}) - give another --out") from None
    for name, value in wanted.items():
        if found.get(name) != value:
            said = f"--{OPTIONS.get(name, name)} {value}"
            raise UserError(f"{said}: {out} was begun with {found.get(name)} - give that, or another --out")


def check_calibrates(config: TrainConfig) -> None:
    """UserError for a training whose detector has no calibration, before it is trained."""
    if not (method := method_of(config)).ready(config, config.schedule()[-1].end):
        raise UserError(f"--method {method.name()} does not score in one pass, which this needs - give another")


OPERATIONAL = ("workers", "cache", "cache_limit")
"""Options that say where and how something runs, not what comes out."""


def training_of(preset_name: str, called: str, settings: Sequence[str], **options: Any) -> TrainConfig:
    """A training from a preset, by a method as sweeps call it, with NAME=VALUE settings; UserError for a wrong one."""
    if called not in METHODS:
        raise UserError(f"--method {called} is unknown - choose among {', '.join(METHODS)}")
    config = dataclasses.replace(preset(preset_name), **options)
    for option, value in METHODS[called].items():
        config = with_option(config, option, str(value))
    for text in settings:
        choice = parse(text, config)
        if len(choice.values) != 1:
            raise UserError(f"--set {text} is no single value - give NAME=VALUE")
        config = with_option(config, choice.name, choice.values[0])
    return config
