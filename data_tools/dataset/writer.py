"""Write a dataset: shards in parallel processes, straight to their target, the manifest last.

Beside each finished shard lies a receipt until all are there: what the shard was made from, and its checksum.
A writer that was killed leaves shards and receipts; the same command again checks them and makes only what is missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.dataset.manifest import FORMAT_VERSION, MANIFEST, Manifest, Shard
from data_tools.dataset.patch import POOLS, Patch, Plan
from data_tools.dataset.shards import check_shard, write_shard
from data_tools.errors import TakenOverError, UserError
from data_tools.processes import cores, in_processes
from data_tools.progress import progress
from data_tools.storage import Guarded, StillOurs, Storage, open_storage, read_bytes, read_document, write_bytes
from data_tools.storage.folder import meant
from data_tools.storage.short_retries import short_retries
from data_tools.walk import walk

SAMPLES_PER_SHARD = 4096
RECEIPT = ".receipt"


@dataclass(frozen=True)
class Job:
    """One shard to make from its drafts. made_from: a checksum over all that decides its bytes."""

    name: str
    pool: str
    drafts: Sequence[Any]
    made_from: str


def check_target(url: str) -> None:
    """Raise UserError when a dataset cannot be written to `url`: one is there, or files of somebody else.

    Shards without a manifest are what a killed writer leaves behind.
    """
    names = open_storage(url).names()
    if MANIFEST in names:
        raise UserError(f"--out {url}: already holds a dataset - give another folder, or remove this one")
    foreign = [name for name in names if not _is_ours(meant(name))]
    if foreign:
        raise UserError(f"--out {url}: holds {foreign[0]}, which is not part of a dataset - give an empty folder")


def write_dataset(
    plan: Plan,
    url: str,
    resolution: int,
    channels: int,
    source: dict[str, Any],
    samples_per_shard: int = SAMPLES_PER_SHARD,
    processes: int = 1,
    inputs: Path | None = None,
) -> Manifest:
    """Write the planned patches as shards, the manifest last; on any error the shards written here are removed.

    processes: 0 takes one a core. inputs: the folder the plan reads; shards of a killed writer are used again only
    where its files are of the same sizes and times. Raises UserError when there is nothing to train on, and when
    another process is writing to `url` or, while this one was paused, has taken over.
    """
    if not any(plan.drafts.get(pool) for pool in ("train-normal", "train-unlabelled")):
        raise UserError(f"--out {url}: the source has no normal training image - add some")
    place = open_storage(url)
    with place.sole_writer(_is_ours) as still_ours:
        storage = Guarded(place, still_ours)
        check_target(url)
        state = _digest(source, resolution, channels, _fingerprint(inputs), FORMAT_VERSION)
        jobs = list(_jobs(plan, samples_per_shard, state))
        made = _reusable(storage, jobs)
        left = [job for job in jobs if job.name not in made]
        kept = {*made, *(name + RECEIPT for name in made)}
        for name in set(storage.names()) - kept:  # of a killed writer: no manifest names it
            storage.remove(name)
        try:
            parts = in_processes(_make, (url, plan.cut, still_ours), left, min(processes or cores(), len(left)))
            for shard in progress(parts, "writing", "shards", len(left)):
                made[shard.name] = shard
                still_ours()
            ordered = sorted(made.values(), key=lambda shard: (POOLS.index(shard.pool), shard.name))
            manifest = Manifest(resolution, channels, tuple(ordered), source, plan.intensity)
            for job in jobs:  # before the manifest, so that no kill leaves them beside it
                storage.remove(job.name + RECEIPT)
            _publish(storage, manifest)
        except FileExistsError as error:
            raise UserError(f"{error}: another process has written it - let it finish") from None
        except BaseException:
            _tidy(storage, (job.name for job in left))
            raise
    return manifest


def _publish(storage: Guarded, manifest: Manifest) -> None:
    """Write the manifest, by which the shards become a dataset, while the turn is ours."""
    content = manifest.to_json().encode()
    storage.still_ours(now=True)
    write_bytes(storage, MANIFEST, content, new=True)
    try:
        storage.still_ours()  # asks only where we were paused between that look and the end of the writing
    except TakenOverError:
        try:
            for shard in manifest.shards:  # a successor that has found the manifest has left them alone
                check_shard(storage, shard)
        except UserError:
            with contextlib.suppress(FileNotFoundError):
                if read_bytes(storage, MANIFEST) == content:
                    storage.storage.remove(MANIFEST)
            raise TakenOverError(
                f"{storage.url}: another process has taken over writing there - let it finish"
            ) from None


def _jobs(plan: Plan, samples_per_shard: int, state: str) -> Iterator[Job]:
    for pool in POOLS:
        drafts = plan.drafts.get(pool, ())
        for number, start in enumerate(range(0, len(drafts), samples_per_shard)):
            name = f"{pool}-{number:06d}.tar"
            part = drafts[start : start + samples_per_shard]
            yield Job(name, pool, part, _digest(state, name, start, len(part)))


def _make(shared: tuple[str, Any, StillOurs], job: Job) -> Shard:
    """In a worker process: make one shard and its receipt."""
    url, cut, still_ours = shared
    storage = Guarded(open_storage(url), still_ours)
    patches: Iterator[Patch] = cut(job.pool, job.drafts)
    shard = write_shard(storage, job.name, job.pool, patches)
    receipt = {"made_from": job.made_from, "shard": dataclasses.asdict(shard)}
    write_bytes(storage, job.name + RECEIPT, json.dumps(receipt).encode())
    return shard


def _reusable(storage: Storage, jobs: list[Job]) -> dict[str, Shard]:
    """The shards of a killed writer that are what these jobs would make, byte for byte."""
    there, result = set(storage.names()), dict[str, Shard]()
    candidates = [job for job in jobs if {job.name, job.name + RECEIPT} <= there]
    for job in progress(candidates, "checking what an earlier writer left", "shards", len(candidates)):
        with contextlib.suppress(UserError, ValueError, KeyError, TypeError, FileNotFoundError):
            receipt = read_document(storage, job.name + RECEIPT)
            shard = Shard(**receipt["shard"])
            if receipt["made_from"] == job.made_from and (shard.name, shard.pool) == (job.name, job.pool):
                check_shard(storage, shard)
                result[job.name] = shard
    return result


def _tidy(storage: Guarded, shards: Iterable[str]) -> None:
    """Remove of these shards, which only we write, what is there.

    Nothing where the place is somebody else's by now or cannot be reached, and nothing beside a manifest.
    """
    names = {name for shard in shards for name in (shard, shard + RECEIPT)}
    with contextlib.suppress(UserError, OSError), short_retries():
        storage.still_ours(now=True)
        there = storage.names()
        for name in there if MANIFEST not in there else ():
            if meant(name) in names:
                storage.remove(name)


def _is_ours(name: str) -> bool:
    name = name.removesuffix(RECEIPT)
    return name == MANIFEST or (name.endswith(".tar") and name.rpartition("-")[0] in POOLS)


def _fingerprint(folder: Path | None) -> str:
    """A checksum over names, sizes and times of all files in a folder; "" without one."""
    if folder is None:
        return ""
    files = []
    for path in walk(folder).files:
        facts = path.stat()
        files.append([path.relative_to(folder).as_posix(), facts.st_size, facts.st_mtime_ns])
    return _digest(*files)


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
