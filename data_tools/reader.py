"""Read a dataset: every pool decoded once a node into a memory-mapped array that all its workers share."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock

from data_tools.manifest import Manifest, read_manifest
from data_tools.progress import progress
from data_tools.shards import read_shard
from data_tools.storage import Storage, open_storage


@dataclass(frozen=True)
class Dataset:
    """An open dataset. Its pools are decoded when they are first asked for."""

    storage: Storage
    manifest: Manifest
    cache: Path

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
        """A pool's images in the order of its shards: read-only, uint8, N x H x W x C, mapped from the cache."""
        if not self.count(pool):
            return np.zeros((0, self.resolution, self.resolution, self.channels), np.uint8)
        return np.load(_decoded(self.storage, self.manifest, pool, self.cache) / "images.npy", mmap_mode="r")

    def provenance(self, pool: str) -> list[dict[str, Any]]:
        """Where each of a pool's images comes from, with its key; in the order of `images`."""
        if not self.count(pool):
            return []
        path = _decoded(self.storage, self.manifest, pool, self.cache) / "provenance.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


def open_dataset(url: str, cache: Path | None = None) -> Dataset:
    """Open the dataset at a URL; UserError when there is none.

    cache: the folder for decoded images; by default the user's cache folder.
    """
    storage = open_storage(url)
    return Dataset(storage, read_manifest(storage), cache or Path(platformdirs.user_cache_dir("stratagan")))


def _decoded(storage: Storage, manifest: Manifest, pool: str, cache: Path) -> Path:
    """The folder with a pool's decoded images; whoever comes first decodes, the others wait for it.

    The folder is named after the pool's content, so a dataset that was copied or written anew is not decoded again.
    """
    final = cache / f"{manifest.digest[:32]}-{pool}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{final.name}.lock"):
        if not final.is_dir():
            with tempfile.TemporaryDirectory(prefix=f".{final.name}-", dir=cache) as scratch:
                made = Path(scratch) / "made"
                made.mkdir()
                _decode(storage, manifest, pool, made)
                made.rename(final)
    return final


def _decode(storage: Storage, manifest: Manifest, pool: str, out: Path) -> None:
    shape = (manifest.count(pool), manifest.resolution, manifest.resolution, manifest.channels)
    path = out / "images.npy"
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    _reserve(path)
    samples = (sample for shard in manifest.of(pool) for sample in read_shard(storage, shard))
    with (out / "provenance.jsonl").open("w") as lines:
        for i, (key, image, provenance) in enumerate(progress(samples, f"decoding {pool}", "images", shape[0])):
            images[i] = image
            lines.write(json.dumps({"key": key, **provenance}) + "\n")
    images.flush()


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
