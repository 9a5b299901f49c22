"""Where patches come from. A source is one file and one line here.

It is a frozen dataclass: its fields are its options, its only positional one says what to read, and it has
`resolution`, `channels` and `plan`, as `data_tools.commands.shard.Source` says.
"""

from __future__ import annotations

from data_tools.command_line import Command


def _source(name: str, what: str, line: str, place: str) -> Command:
    return Command(
        name, f"{what} --out URL", line, f"data_tools.sources.{place}", "data_tools.commands.shard:to_shards"
    )


SOURCES = (
    _source("baxter", "EXPERIMENT", "cell videos, a Baxter Algorithms experiment: debris anomalous", "baxter:Baxter"),
    _source("ctc", "DATASET", "cell videos, a Cell Tracking Challenge dataset: normal cells alone", "ctc:Ctc"),
    _source("cifar10", "FOLDER", "CIFAR-10: one class normal, nine anomalous", "cifar10:Cifar10"),
    _source("images", "FOLDER", "a folder of images: normal/ and anomaly/, or no labels at all", "images:Images"),
)
