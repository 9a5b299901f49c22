"""Patches to tar shards and back: WebDataset naming, a PNG and a JSON sidecar per sample.

The same patches always give the same bytes: no time, user or machine goes into a shard.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
import webdataset
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from data_tools.errors import UserError
from data_tools.manifest import MANIFEST, Manifest, Shard
from data_tools.patch import POOLS, Patch
from data_tools.progress import progress
from data_tools.storage import Storage, open_storage

SAMPLES_PER_SHARD = 4096


def check_target(url: str) -> None:
    """Raise UserError when a dataset cannot be written to `url`: one is there, or files of somebody else.

    Shards without a manifest are what a killed writer leaves behind; they may be written over.
    """
    names = open_storage(url).names()
    if MANIFEST in names:
        raise UserError(f"--out {url}: holds a dataset already - give another folder, or remove this one")
    foreign = [name for name in names if not _is_shard(name.removeprefix(".").removesuffix(".partial"))]
    if foreign:
        raise UserError(f"--out {url}: holds {foreign[0]}, which is no part of a dataset - give an empty folder")


def write_dataset(
    patches: Iterable[Patch],
    url: str,
    resolution: int,
    channels: int,
    source: dict[str, Any],
    samples_per_shard: int = SAMPLES_PER_SHARD,
) -> Manifest:
    """Write patches as shards, the manifest last; on any error the shards written so far are removed.

    Holds one shard a pool in memory. Raises UserError when there is nothing to train on.
    """
    check_target(url)
    storage = open_storage(url)
    for name in storage.names():
        storage.remove(name)  # shards of a killed writer
    shards: list[Shard] = []
    try:
        for pool, number, part in _parts(progress(patches, "writing", "patches"), samples_per_shard):
            shards.append(_write_shard(storage, f"{pool}-{number:06d}.tar", pool, part))
        manifest = Manifest(resolution, channels, _in_order(shards), source)
        if not manifest.count("train-normal") + manifest.count("train-unlabelled"):
            raise UserError(f"--out {url}: nothing to train on, the source gave no normal training image - add some")
        with storage.write(MANIFEST) as file:
            file.write(manifest.to_json().encode())
    except BaseException:
        for name in storage.names():
            if _is_shard(name):
                storage.remove(name)
        raise
    return manifest


def _is_shard(name: str) -> bool:
    return name == MANIFEST or (name.endswith(".tar") and name.rpartition("-")[0] in POOLS)


def _in_order(shards: list[Shard]) -> tuple[Shard, ...]:
    return tuple(sorted(shards, key=lambda shard: (POOLS.index(shard.pool), shard.name)))


def _parts(patches: Iterable[Patch], size: int) -> Iterator[tuple[str, int, list[Patch]]]:
    """(pool, number, patches) of every shard, each pool in the order of its patches."""
    waiting: dict[str, list[Patch]] = {pool: [] for pool in POOLS}
    number: dict[str, int] = {pool: 0 for pool in POOLS}
    for patch in patches:
        part = waiting[patch.pool]
        part.append(patch)
        if len(part) == size:
            yield patch.pool, number[patch.pool], part
            number[patch.pool] += 1
            waiting[patch.pool] = []
    for pool, part in waiting.items():
        if part:
            yield pool, number[pool], part


def _write_shard(storage: Storage, name: str, pool: str, patches: list[Patch]) -> Shard:
    buffer = io.BytesIO()
    with webdataset.TarWriter(buffer, user="", group="", mtime=0, encoder=False) as tar:  # type: ignore[arg-type]
        for patch in patches:
            facts = json.dumps(patch.provenance, sort_keys=True).encode()
            tar.write({"__key__": patch.key, "png": encode_png(patch.image), "json": facts})
    content = buffer.getvalue()
    with storage.write(name) as file:
        file.write(content)
    return Shard(name, pool, len(patches), len(content), hashlib.sha256(content).hexdigest())


def encode_png(image: np.ndarray) -> bytes:
    """uint8 H x W x C, C 1 or 3."""
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def read_shard(storage: Storage, shard: Shard) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """Key, image (uint8 H x W x C) and provenance of every sample, after a check of every byte.

    Raises UserError when the shard is missing or its bytes are not those of the manifest.
    """
    check_shard(storage, shard)
    with storage.open(shard.name) as stream:
        for sample in group_by_keys(tar_file_expander([{"url": shard.name, "stream": stream}])):
            pixels = np.asarray(Image.open(io.BytesIO(sample["png"])))
            yield sample["__key__"], pixels.reshape(*pixels.shape[:2], -1), json.loads(sample["json"])


def check_shard(storage: Storage, shard: Shard) -> None:
    """Compare a shard with the manifest, byte for byte by its checksum; raises UserError."""
    name = f"{storage.url}/{shard.name}"
    try:
        with storage.open(shard.name) as file:
            size, digest = _measure(file)
    except FileNotFoundError:
        raise UserError(f"{name}: is missing - restore it, or write the dataset anew") from None
    if (size, digest) != (shard.size, shard.sha256):
        what = f"has {size:,} bytes instead of {shard.size:,}" if size != shard.size else "has been altered"
        raise UserError(f"{name}: {what} (its checksum is not the manifest's) - restore it, or write the dataset anew")


def _measure(file: BinaryIO) -> tuple[int, str]:
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    return file.tell(), digest
