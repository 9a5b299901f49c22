"""python -m tuning sweep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from data_tools.commands.options import USERS_CACHE
from data_tools.headings import Heading, configured
from data_tools.storage import absolute
from trainer.presets import PRESETS
from tuning.config import SweepConfig

HEADINGS = (
    Heading("sweep", "The data, and where the sweep goes.", ("data", "out", "name")),
    Heading(
        "training",
        "What is trained, one detector for each combination.",
        ("preset", "method", "gamma", "planted", "seed", "rounds", "drop"),
    ),
    Heading("search", "Further options of a training run to try.", ("set", "sampler", "samples", "asha")),
    Heading("score", "What follows from the scores of each detector.", ("lam",)),
    Heading("resource", "How many runs at a time, and on what.", ("workers", "cpus", "concurrent")),
    Heading("cache", "Data on each node.", ("cache", "cache_limit")),
)
"""Every option of a sweep, as --help shows them."""


@dataclass(frozen=True)
class Sweep:
    """Train one detector per method, gamma and seed, and make the tables that follow from their scores."""

    config: SweepConfig

    def __call__(self) -> None:
        from tuning.sweep import run_sweep

        # Ray's workers run in folders of their own.
        paths = {name: absolute(getattr(self.config, name)) for name in ("data", "out", "cache")}
        run_sweep(dataclasses.replace(self.config, **paths))


def with_options(kind: type[Sweep], words: Sequence[str]) -> type:
    """The sweep with its options under headings."""
    marks = {
        "preset": tyro.conf.arg(help=f"The preset whose options a run starts from: {', '.join(PRESETS)}."),
        "name": tyro.conf.arg(help_behavior_hint="(default: the last part of --data)"),
        "concurrent": tyro.conf.arg(help_behavior_hint="(default: as many as the cluster can place)"),
        "cache": USERS_CACHE,
    }
    return configured(kind, SweepConfig(), HEADINGS, marks)
