"""Read a dataset: shards decoded once a node into a memory-mapped array that all its workers share."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data_tools.dataset.cache import IMAGES, PROVENANCE, Cache, open_cache
from data_tools.dataset.manifest import Manifest, Shard, read_manifest
from data_tools.dataset.shards import read_raw, shard_keys
from data_tools.errors import UserError
from data_tools.processes import cores, in_processes
from data_tools.progress import progress
from data_tools.storage import FETCHED, Storage, open_storage

T = TypeVar("T")
MADV_POPULATE_READ = 22
ENTRY_VERSION = 2
"""Of what an entry of the cache is, and how it is made."""
KEY = re.compile(rb'^\{"key": ("(?:[^"\\]|\\.)*")', re.MULTILINE)
"""How a line of provenance begins."""
FEW = 20_000
"""Images that are decoded sooner than further processes have started."""
FEW_KEYS = 100_000
"""The same for images of which only the keys are read."""


@dataclass(frozen=True)
class Dataset:
    """An open dataset. Its pools are decoded when they are first asked for."""

    storage: Storage
    manifest: Manifest
    cache: Cache

    @property
    def resolution(self) -> int:
        return self.manifest.resolution

    @property
    def channels(self) -> int:
        return self.manifest.channels

    def count(self, pool: str) -> int:
        """Images in a pool."""
        return self.manifest.count(pool)

    def images(self, pool: str) -> np.ndarray:
        """A pool's images in the order of its shards: read-only, uint8, N x H x W x C, mapped from the cache.

        Raises UserError when they take more than the cache may hold.
        """
        return self.decoded(self.manifest.of(pool))

    def provenance(self, pool: str) -> list[dict[str, Any]]:
        """Where each of a pool's images comes from, with its key; in the order of `images`."""
        return self.origins(self.manifest.of(pool))

    def origins(self, shards: Sequence[Shard]) -> list[dict[str, Any]]:
        """Where the images of some shards of one pool come from; in the order of `decoded`."""
        return [json.loads(line) for line in self.origin_lines(shards)]

    def origin_lines(self, shards: Sequence[Shard]) -> list[str]:
        """The same as lines of JSON, which take a tenth of the memory."""
        if not shards:
            return []
        return self._entry(shards, _lines_of)

    def keys(self, pool: str) -> dict[str, list[str]]:
        """The keys of a pool's images in order, by the name of their shard; nothing is decoded, and nothing cached.

        Raises UserError when a shard is missing or its bytes are not those of the manifest.
        """
        shards = self.manifest.of(pool)
        if not shards:
            return {}
        cached = self.cache.existing(self._entry_name(shards), _lines_of)
        if cached is None:
            return _read_keys(self.storage.url, pool, shards)
        keys = (json.loads(line)["key"] for line in cached)
        return {shard.name: list(itertools.islice(keys, shard.samples)) for shard in shards}

    def decoded(self, shards: Sequence[Shard]) -> np.ndarray:
        """The images of some shards of one pool, one shard after the other, as `images` gives them."""
        if not shards:
            return np.zeros((0, self.resolution, self.resolution, self.channels), np.uint8)
        return self._entry(shards, lambda folder: _mapped(folder / IMAGES))

    def _entry(self, shards: Sequence[Shard], read: Callable[[Path], T]) -> T:
        count = sum(shard.samples for shard in shards)
        size = count * self.resolution**2 * self.channels
        origin = {"url": self.storage.url, "pool": shards[0].pool, "shards": len(shards), "images": count}
        return self.cache.entry(
            self._entry_name(shards), size, origin, lambda folder: _decode(self, shards, folder), read
        )

    def _entry_name(self, shards: Sequence[Shard]) -> str:
        """A checksum over all that an entry depends on: another manifest of the same shards has another entry."""
        counted = [[shard.sha256, shard.samples] for shard in shards]
        text = json.dumps([ENTRY_VERSION, self.resolution, self.channels, counted])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def open_dataset(url: str, cache: Cache | None = None) -> Dataset:
    """Open the dataset at a URL; UserError when there is none."""
    storage = open_storage(url)
    return Dataset(storage, read_manifest(storage), cache or open_cache())


def _lines_of(entry: Path) -> list[str]:
    return (entry / PROVENANCE).read_text(encoding="utf-8").splitlines()


def _read_keys(url: str, pool: str, shards: Sequence[Shard]) -> dict[str, list[str]]:
    """In parallel processes when they are many."""
    processes = 1 if sum(shard.samples for shard in shards) < FEW_KEYS else min(cores(), len(shards))
    done = in_processes(_keys_of, url, shards, processes)
    result = dict(progress(done, f"reading the keys of {pool}", "shards", len(shards)))
    return {shard.name: result[shard.name] for shard in shards}


def _keys_of(url: str, shard: Shard) -> tuple[str, list[str]]:
    return shard.name, shard_keys(open_storage(url), shard)


def _mapped(path: Path) -> np.ndarray:
    """The array in a file, read-only; where it is no burden to memory, with all its pages in place.

    One by one, as patches are first touched, they would halve the speed of the first epoch.
    """
    array = np.load(path, mmap_mode="r")
    if array.nbytes < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2:
        with contextlib.suppress(OSError, ValueError):  # before Linux 5.14, elsewhere, and for no bytes
            array._mmap.madvise(MADV_POPULATE_READ)  # type: ignore[attr-defined]
    return array


def _decode(dataset: Dataset, shards: Sequence[Shard], out: Path) -> None:
    """Decode shards into a folder, in parallel when they are many; shards that are there from before are kept."""
    count = sum(shard.samples for shard in shards)
    shape = (count, dataset.resolution, dataset.resolution, dataset.channels)
    path = out / IMAGES
    for left in [*out.glob(f"{FETCHED}*"), *out.glob("*.staged")]:
        left.unlink()  # of a reader that was killed
    if not path.exists():
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        _reserve(path)
    firsts = np.cumsum([0, *(shard.samples for shard in shards[:-1])]).tolist()
    jobs = [(shard, first) for shard, first in zip(shards, firsts, strict=True) if not _lines(out, first).exists()]
    processes = 1 if count < FEW else min(cores(), len(jobs))
    done = in_processes(_decode_shard, (dataset.storage.url, out), jobs, processes)
    for _ in progress(done, f"decoding {shards[0].pool}", "shards", len(jobs)):
        pass
    seen = set[bytes]()
    with (out / PROVENANCE).open("wb") as joined:
        for shard, first in zip(shards, firsts, strict=True):
            lines = _lines(out, first).read_bytes()
            keys = KEY.findall(lines)
            if len(keys) != shard.samples:  # of another attempt
                _lines(out, first).unlink()
                raise UserError(f"{out}: was changed while it was made - run it again")
            if twice := seen.intersection(keys):
                name, key = f"{dataset.storage.url}/{shard.name}", json.loads(min(twice))
                raise UserError(f"{name}: the key {key} is in another shard as well - write the dataset again")
            seen.update(keys)
            joined.write(lines)
    for first in firsts:
        _lines(out, first).unlink()


def _decode_shard(shared: tuple[str, Path], job: tuple[Shard, int]) -> None:
    """In a worker process: one shard to its rows; its lines of provenance appear when all rows are there."""
    (url, out), (shard, first) = shared, job
    images = np.load(out / IMAGES, mmap_mode="r+").view(np.ndarray)  # to write to a memmap takes a third longer
    lines = []
    for i, (key, image, facts) in enumerate(read_raw(open_storage(url), shard, out, images.shape[2:])):
        images[first + i] = image
        rest = facts.strip()[1:].lstrip()
        lines.append(f'{{"key": {encode_basestring_ascii(key)}{"" if rest == "}" else ", "}{rest}')
    with (out / IMAGES).open("rb") as file:
        os.fsync(file.fileno())  # the lines must not outlive a power cut that the rows do not
    staged = _lines(out, first).with_suffix(".staged")
    staged.write_text("\n".join([*lines, ""]), encoding="ascii")
    staged.rename(_lines(out, first))


def _lines(out: Path, first: int) -> Path:
    return out / f"{first:012d}.jsonl"


def _reserve(path: Path) -> None:
    """Claim a mapped file's space: on a full disk this is an error, where writing to the map would be a crash."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            error.filename = str(path.parent)
            raise
