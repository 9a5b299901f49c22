"""Commands whose options are those of a training run: they start from a preset, which the other options override."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tyro

from data_tools.command_line import HELP
from data_tools.commands.options import USERS_CACHE
from data_tools.errors import UserError
from data_tools.headings import Heading, configured
from trainer.methods import METHODS
from trainer.presets import PRESETS, preset

HEADINGS = (
    Heading(
        "run",
        "Where the run takes place, and what it starts from.",
        ("data", "out", "preset", "workers", "start_from", "patience"),
    ),
    Heading(
        "method",
        "What is trained, and on which images.",
        (
            "method",
            "gamma",
            "planted",
            "exclude",
            "seed",
            *(name for name, each in METHODS.items() if dataclasses.fields(each)),
        ),
    ),
    Heading(
        "schedule",
        "Sizes of images, networks and batches, and how long each phase lasts.",
        ("resolution", "width", "fade_images", "stable_images", "final_images", "microbatch", "minibatch", "contrast"),
    ),
    Heading(
        "loss",
        "Optimisation and losses.",
        (
            *("learning_rate", "generator_rate", "final_decay", "ema_decay"),
            *("penalty", "drift", "distance", "coupling", "distance_weight"),
            *("precision", "compile"),
        ),
    ),
    Heading("log", "Logs and checkpoints.", ("log_images", "pictures", "checkpoint_images", "keep", "best_by")),
    Heading("cache", "Data on this node.", ("cache", "cache_limit", "window")),
)
"""Every option of a training run, as --help shows them."""


def from_preset(kind: type, words: Sequence[str]) -> type:
    """`kind`, a command with a `config: TrainConfig`, whose defaults are those of the preset that the words name.

    --help shows the options of the method that the words name, and not those of all.
    """
    name = value_of("--preset", words)
    if name is None and not set(HELP) & set(words):
        raise UserError(f"--preset is missing - choose {' or '.join(', '.join(PRESETS).rsplit(', ', 1))}")
    marks = {
        "preset": tyro.conf.arg(
            help=f"Where the other options' defaults come from: {', '.join(PRESETS)}.",
            help_behavior_hint="" if name else f"(required; shown are those of {next(iter(PRESETS))})",
        ),
        "cache": USERS_CACHE,
    }
    default = preset(name or next(iter(PRESETS)))
    method = value_of("--method", words) or default.method
    others = {each for each in METHODS if each != method} if set(HELP) & set(words) else set()
    return configured(kind, default, HEADINGS, marks, others)


def value_of(option: str, words: Sequence[str]) -> str | None:
    """The first value of an option on a command line."""
    for i, word in enumerate(words):
        if word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
        if word == option and i + 1 < len(words):
            return words[i + 1]
    return None


def list_of_presets() -> str:
    """Each preset with the first sentence about it, for the overview."""
    width = max(map(len, PRESETS))
    lines = [f"  {name:{width}}  {(make.__doc__ or '').splitlines()[0]}" for name, make in PRESETS.items()]
    return "\n".join(["Presets:", *lines])
