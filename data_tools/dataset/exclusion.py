"""Exclusion lists: training images that a training leaves out, by their keys, without sharding anew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

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


def find_excluded(dataset: Dataset, keys: Iterable[str], window: int = 0) -> dict[str, list[int]]:
    """Where the images of these keys lie; UserError when one is none of the dataset's training images.

    window: as of `training_set`: that many shards are decoded at a time.
    """
    wanted, found = set(keys), {}
    for pool in TRAINED_ON:
        for shards in groups(dataset.manifest.of(pool), window):
            names = [(shard.name, row) for shard in shards for row in range(shard.samples)]
            for (shard, row), line in zip(names, dataset.origin_lines(shards), strict=True):
                if (key := json.loads(line)["key"]) in wanted:
                    found.setdefault(shard, []).append(row)
                    wanted.discard(key)
    if wanted:
        raise UserError(
            f"--exclude: {min(wanted)} is no training image of {dataset.storage.url} ({len(wanted)} keys are not)"
            " - give a list that was made for this dataset"
        )
    return found


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
