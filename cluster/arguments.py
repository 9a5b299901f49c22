"""The words of a job: whether the cluster knows the places that they name, which only this machine may have."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster.package import PROGRAMS
from data_tools.command_line import HELP, Program, find_command, parsed
from data_tools.errors import UserError
from data_tools.storage import local_path, url_forms
from data_tools.storage.transfer import as_url

PLACES = {
    *("data", "out", "run", "from_run", "images", "url", "sweep", "sweeps"),
    *("exclude", "start_from", "cache", "heatmaps", "json", "against"),
}
"""Fields of our commands that are text and name a folder, a file or a URL; those of type Path do so anyway."""
OPTIONS = {f"--{name.replace('_', '-')}" for name in PLACES} | {"--from"}


def check_arguments(command: Sequence[str]) -> None:
    """UserError where a job's command is none, cannot be understood, or names a place that only this machine has."""
    if not command:
        raise UserError("no command - give one after --, as in python -m cluster submit -- python -m trainer train ...")
    pairs = [word.split("=", 1) for word in command if word.startswith("--") and "=" in word]
    pairs += [[before, word] for before, word in itertools.pairwise(["", *command]) if not word.startswith("-")]
    for option, value in pairs:
        named = f"{option} {value}" if option in OPTIONS else value
        if value == "~" or value.startswith("~/"):
            raise UserError(f"{named}: the cluster has another ~ - give {url_forms()}, or a whole path")
        if option in OPTIONS:
            _check(named, value)
    for value in _places(command):
        _check(value, value)


def _check(named: str, value: str) -> None:
    if value and not as_url(value) and local_path(value) and not value.startswith("/"):
        raise UserError(
            f"{named}: the cluster cannot see this folder - give {url_forms()}, or a whole path that all its machines"
            " share"
        )


def _places(command: Sequence[str]) -> Iterator[str]:
    """Places that the words of a command of ours give, as its own parser understands them: those without an option."""
    for i, (flag, name) in enumerate(itertools.pairwise(command)):
        if flag == "-m" and name in PROGRAMS:
            words = [word for word in command[i + 2 :] if word != "--debug"]
            if not words or set(words) & {*HELP, "--version", "--"}:
                return
            program: Program = importlib.import_module(f"{name}.__main__").PROGRAM
            asked, rest = find_command(program, words)
            yield from _of(parsed(program, asked, rest))
            return


def _of(command: Any) -> Iterator[str]:
    """The values of a command's fields that are places and are not as they are when nothing is said."""
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if dataclasses.is_dataclass(value):
            yield from _of(value)
        elif value != field.default:
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, Path) or (field.name in PLACES and isinstance(each, str)):
                    yield str(each)
