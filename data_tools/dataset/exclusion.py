"""Exclusion lists: training images that a training leaves out, by their keys, without sharding anew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from data_tools.dataset.contamination import normal_pool
from data_tools.dataset.manifest import Shard
from data_tools.dataset.reader import Dataset
from data_tools.errors import UserError
from data_tools.storage import open_storage, read_bytes

TRAINED_ON = ("train-normal", "train-unlabelled", "train-anomaly")

Excluded = Mapping[str, Sequence[int]]
"""By the name of a shard, which of its images are left out, ascending."""


def read_keys(url: str) -> frozenset[str]:
    """The keys in an exclusion list: text, one a line; empty lines and what follows a # are passed over.

    Raises UserError when there is no such file or it holds no key.
    """
    place, name = url.rpartition("/")[0] or ".", PurePosixPath(url).name
    try:
        text = read_bytes(open_storage(place), name).decode()
    except FileNotFoundError:
        raise UserError(f"--exclude {url}: no such file - give a list of keys, one a line") from None
    except UnicodeDecodeError:
        raise UserError(f"--exclude {url}: is no text - give a list of keys, one a line") from None
    keys = frozenset(filter(None, (line.partition("#")[0].strip() for line in text.splitlines())))
    if not keys:
        raise UserError(f"--exclude {url}: holds no key - leave the option out, or give one key a line")
    return keys


def find_excluded(dataset: Dataset, keys: Iterable[str]) -> dict[str, list[int]]:
    """Where the images of these keys lie; UserError when one is none of the dataset's training images.

    No image is decoded; shards are read for their keys, in the order of `TRAINED_ON` until all are found.
    """
    wanted, found = set(keys), {}
    for pool in TRAINED_ON:
        for shard, names in dataset.keys(pool).items() if wanted else ():
            for row, key in enumerate(names):
                if key in wanted:
                    found.setdefault(shard, []).append(row)
                    wanted.discard(key)
    if wanted:
        raise UserError(
            f"--exclude: {min(wanted)} is no training image of {dataset.storage.url} ({len(wanted)} keys are not)"
            " - give a list that was made for this dataset"
        )
    return found


def check_some_left(dataset: Dataset, excluded: Excluded) -> None:
    """Raise UserError when no image to learn from is left; anomalies alone are none."""
    if excluded and not any(kept_count(shard, excluded) for shard in dataset.manifest.of(normal_pool(dataset))):
        raise UserError("--exclude: leaves no image to train on - shorten the list")


def groups(shards: Sequence[Shard], window: int) -> list[tuple[Shard, ...]]:
    """Runs of `window` shards, or of all where it is 0."""
    size = window or max(len(shards), 1)
    return [tuple(shards[i : i + size]) for i in range(0, len(shards), size)]


def kept_count(shard: Shard, excluded: Excluded) -> int:
    """How many images of a shard stay."""
    return shard.samples - len(excluded.get(shard.name, ()))


def kept_rows(shards: Sequence[Shard], excluded: Excluded) -> np.ndarray:
    """The rows that stay of the images of these shards, one shard after the other: int64, ascending."""
    firsts = np.cumsum([0, *(shard.samples for shard in shards)])
    stays = np.ones(firsts[-1], bool)
    for first, shard in zip(firsts, shards):
        stays[first + np.asarray(excluded.get(shard.name, ()), np.int64)] = False
    return np.flatnonzero(stays)


def excluded_to_json(excluded: Excluded) -> bytes:
    return (json.dumps(excluded, sort_keys=True) + "\n").encode()


def excluded_from_json(content: bytes) -> dict[str, list[int]]:
    """Raises ValueError for what `excluded_to_json` has not written."""
    values = json.loads(content)
    if not isinstance(values, dict) or not all(isinstance(rows, list) for rows in values.values()):
        raise ValueError("no lists of rows by shard")
    return values
