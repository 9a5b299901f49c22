"""python -m data_tools SOURCE: what all sources have in common, from the options to a dataset."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import tyro

from data_tools.dataset.writer import SAMPLES_PER_SHARD, check_target, write_dataset
from data_tools.sources.common import check_at_least
from data_tools.storage import absolute
from data_tools.text import readable

if TYPE_CHECKING:
    from data_tools.dataset.patch import Plan


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
    """Processes that cut and write; 0 takes one per core."""


def to_shards(source: type[Source], words: Sequence[str]) -> type:
    """The command that writes what a source cuts: the source's options, and the target's."""

    def call(self: Any) -> None:
        write_shards(self.source, self.target)

    return dataclasses.make_dataclass(
        source.__name__,
        [("source", Annotated[source, tyro.conf.arg(name="")]), ("target", tyro.conf.OmitArgPrefixes[Target])],
        namespace={"__call__": call, "__doc__": source.__doc__},
    )


def write_shards(source: Source, target: Target) -> None:
    """Write a dataset; UserError for options out of range and for what the source cannot read."""
    from data_tools.storage.transfer import as_url, downloaded

    check_at_least(target.samples_per_shard, 1, "--samples-per-shard")
    check_at_least(target.processes, 0, "--processes")
    url = absolute(target.out)
    check_target(url)
    # What is read is the source's only positional option.
    name, inputs = next((name, value) for name, value in vars(source).items() if isinstance(value, Path))
    options: dict[str, Any] = {"kind": type(source).__name__.lower()}
    options |= json.loads(json.dumps(dataclasses.asdict(source), default=lambda place: readable(str(place))))  # type: ignore[call-overload]
    if as_url(inputs):
        options[name] = as_url(inputs)
    with downloaded(inputs) as folder:
        source = dataclasses.replace(source, **{name: folder})  # type: ignore[type-var]
        plan, size = source.plan(), (source.resolution, source.channels)
        made = write_dataset(plan, url, *size, options, target.samples_per_shard, target.processes, folder)
    pools = {shard.pool: made.count(shard.pool) for shard in made.shards}
    counts = ", ".join(f"{count:,} {pool}" for pool, count in pools.items())
    print(f"wrote {target.out}: {counts} images of {made.resolution}x{made.resolution}x{made.channels}")
