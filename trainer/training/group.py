"""The workers of a training run: who takes part in a step, and what they agree on before they go on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.networks.base import NetworkSet
from trainer.schedule import STDDEV_GROUP
from trainer.training.health import NotFiniteError

T = TypeVar("T")
LOADING = timedelta(hours=1)
"""How long workers wait for those whose nodes read the data for the first time."""


@dataclass(frozen=True)
class Group:
    """The workers that train, and this one's number among them; those from `size` on stand by."""

    rank: int = 0
    size: int = 1
    world_size: int = 1
    process_group: Any = None  # of those who train
    waiting_group: Any = None  # of all, for what may take long
    node: str = ""

    @property
    def is_idle(self) -> bool:
        return self.rank >= self.size


def form_group(batches: Iterable[int], patience: float, node: str = "") -> Group:
    """Of all workers there are, as many as divide every batch into whole minibatch-stddev groups.

    batches: all global batch sizes. patience: seconds a worker waits for the others in a step. Every worker calls it.
    """
    if not dist.is_initialized():
        return Group(node=node)
    rank, world = dist.get_rank(), dist.get_world_size()
    size = fitting_size(world, batches)
    training = dist.new_group(list(range(size)), timeout=timedelta(seconds=patience))
    return Group(rank, size, world, training, dist.new_group(backend="gloo", timeout=LOADING), node)


def fitting_size(workers: int, batches: Iterable[int]) -> int:
    """The greatest count up to `workers` that divides every batch into whole minibatch-stddev groups."""
    groups = [batch // STDDEV_GROUP for batch in batches]
    return next(size for size in range(workers, 0, -1) if all(group % size == 0 for group in groups))


def broadcast_from_first(group: Group, value: T | None) -> T:
    """The first worker's value, on all workers that there are."""
    values = [value]
    if group.world_size > 1:
        dist.broadcast_object_list(values, src=0, group=group.waiting_group)
    return values[0]  # type: ignore[return-value]


def barrier(group: Group) -> None:
    """Return when all workers have come here, however long their nodes took to read the data."""
    if group.world_size > 1:
        dist.barrier(group.waiting_group)


def tell_idle_workers(group: Group, not_finite_at: int | None) -> None:
    """Now and then, let those who stand by know how those who train are; raises NotFiniteError in the former."""
    if group.world_size > group.size:
        told = broadcast_from_first(group, not_finite_at)
        if group.is_idle and told is not None:
            raise NotFiniteError(told)


@contextlib.contextmanager
def explained_timeouts(group: Group, patience: float) -> Iterator[None]:
    """Say what it means when waiting for the others takes too long."""
    try:
        yield
    except RuntimeError as error:
        if group.size == 1 or not re.search(r"time[d ]*out", str(error), re.IGNORECASE):
            raise
        raise RuntimeError(
            f"worker {group.rank} ({group.node}) waited {patience:.0f} s for the others - one hangs, is far slower"
            " or cannot be reached; if it is only slow, raise --patience"
        ) from error


def all_reduced(group: Group, values: Tensor) -> Tensor:
    """The sum over the group's workers, in place."""
    if group.size > 1:
        dist.all_reduce(values, group=group.process_group)
    return values


def gathered(group: Group, values: Tensor) -> Tensor:
    """A number of each image of the global batch, in the order of positions; gradients flow to this worker's alone.

    values: those of this worker's images, N. For losses of statistics of the batch, so that four workers compute what
    one does: such a loss times the number of workers, since reduction takes the mean of their gradients.
    """
    if group.size == 1:
        return values
    everyone = [torch.empty_like(values) for _ in range(group.size)]
    dist.all_gather(everyone, values.detach().contiguous(), group=group.process_group)
    everyone[group.rank] = values
    return torch.cat(everyone)


def fingerprint(networks: NetworkSet) -> int:
    """A 63-bit hash over the bits of every weight, for comparing workers."""
    total = 0
    for network in networks.by_name().values():
        for parameter in network.parameters():
            words = parameter.detach().contiguous().view(torch.int32).flatten().long()
            odd = torch.arange(1, 2 * len(words), 2, device=words.device)
            total = (total * 1_000_003 + int((words * odd).sum().item())) % (2**63 - 1)
    return total


def check_agreement(group: Group, networks: NetworkSet, images_seen: int) -> None:
    """Stop when workers' weights or counts differ: a silent divergence would spoil the run."""
    if group.size == 1:
        return
    mine = {"images_seen": images_seen, "weights": fingerprint(networks)}
    everyone: list[Any] = [None] * group.size
    dist.all_gather_object(everyone, (mine, group.node), group=group.process_group)
    differing = [f"{rank} ({node})" for rank, (theirs, node) in enumerate(everyone) if theirs != everyone[0][0]]
    if differing:
        raise RuntimeError(
            f"worker {', '.join(differing)} differs from worker 0 ({everyone[0][1]}) in weights or count"
            f" after {images_seen:,} images"
        )
