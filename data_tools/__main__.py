"""python -m data_tools baxter | ctc | cifar10 | images | simulate | inspect | verify | cache"""

# No `from __future__ import annotations` here: tyro reads the annotations that `_write` gets at run time.

import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tyro

from data_tools.cache_commands import Clear, List
from data_tools.dataset.patch import Plan
from data_tools.dataset.writer import SAMPLES_PER_SHARD, check_target, write_dataset
from data_tools.errors import UserError, run_command
from data_tools.inspect import Inspect, Verify
from data_tools.simulator.simulate import Simulate
from data_tools.sources.baxter import Baxter
from data_tools.sources.cifar10 import Cifar10
from data_tools.sources.common import check_at_least
from data_tools.sources.ctc import Ctc
from data_tools.sources.images import Images
from data_tools.storage import absolute
from data_tools.storage.transfer import as_url, downloaded

USAGE = """usage: python -m data_tools COMMAND ...

Shard images into a dataset:
  baxter EXPERIMENT --out URL   cell videos, a Baxter Algorithms experiment: cells normal, debris anomalous
  ctc DATASET --out URL         cell videos, a Cell Tracking Challenge dataset: normal cells alone
  cifar10 FOLDER --out URL      CIFAR-10: one class normal, nine anomalous
  images FOLDER --out URL       a folder of images: normal/ and anomaly/, or no labels at all
Make videos to try it with:
  simulate OUT                  simulated cells and debris, in the Baxter layout
Look at a dataset:
  inspect URL                   counts, sizes, contact sheets
  verify URL                    every byte against the manifest
Look after the decoded images on this node:
  cache list | clear            what lies there, and make room

A URL is a folder or s3://bucket/prefix; endpoint, region and keys come from the usual AWS variables and files.

python -m data_tools COMMAND --help lists the options."""


class Source(Protocol):
    """Where patches come from; `plan` finds what is wrong with the options before the first image is cut."""

    @property
    def resolution(self) -> int: ...

    @property
    def channels(self) -> int: ...

    def plan(self) -> Plan: ...


@dataclass(frozen=True)
class Target:
    """Where the shards go."""

    out: str
    """URL of the new dataset."""
    samples_per_shard: int = SAMPLES_PER_SHARD
    """Images in one tar."""
    processes: int = 0
    """Processes that cut and write; 0 takes one a core."""


SOURCES: dict[str, Callable[..., Source]] = {"baxter": Baxter, "ctc": Ctc, "cifar10": Cifar10, "images": Images}
CACHE = {"list": List, "clear": Clear}
TOOLS = {"simulate": Simulate, "inspect": Inspect, "verify": Verify}


def _write(source: Source, target: Target) -> None:
    check_at_least(target.samples_per_shard, 1, "--samples-per-shard")
    check_at_least(target.processes, 0, "--processes")
    url = absolute(target.out)
    check_target(url)
    # What is read is the source's only positional option.
    name, inputs = next((name, value) for name, value in vars(source).items() if isinstance(value, Path))
    options: dict[str, Any] = {"kind": type(source).__name__.lower()}
    options |= json.loads(json.dumps(dataclasses.asdict(source), default=str))  # type: ignore[call-overload]
    if as_url(inputs):
        options[name] = as_url(inputs)
    with downloaded(inputs) as folder:
        source = dataclasses.replace(source, **{name: folder})  # type: ignore[type-var]
        plan, size = source.plan(), (source.resolution, source.channels)
        made = write_dataset(plan, url, *size, options, target.samples_per_shard, target.processes, folder)
    pools = {shard.pool: made.count(shard.pool) for shard in made.shards}
    counts = ", ".join(f"{count:,} {pool}" for pool, count in pools.items())
    print(f"wrote {target.out}: {counts} images of {made.resolution}x{made.resolution}x{made.channels}")


def main(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    name, *words = argv
    prog = f"python -m data_tools {name}"
    if name == "cache" and words and words[0] in CACHE:
        tyro.cli(CACHE[words[0]], args=words[1:], prog=f"{prog} {words[0]}").run()
    elif name == "cache":
        raise UserError(f"cache {' '.join(words[:1])}: no such command - give cache list or cache clear")
    elif name in TOOLS:
        tyro.cli(TOOLS[name], args=words, prog=prog).run()
    elif name in SOURCES:
        kind = SOURCES[name]

        def command(source: tyro.conf.OmitArgPrefixes[kind], target: tyro.conf.OmitArgPrefixes[Target]) -> None:  # type: ignore[valid-type]
            _write(source, target)

        tyro.cli(command, args=words, prog=prog, description=kind.__doc__)
    else:
        raise UserError(f"{name}: no such command - choose one of {', '.join([*SOURCES, *TOOLS, 'cache'])}")


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
