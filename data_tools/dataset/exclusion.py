"""Exclusion lists: training images that a training run leaves out, by their keys, without sharding again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from data_tools.dataset.contamination import normal_pool
from data_tools.dataset.manifest import Shard
from data_tools.dataset.reader import Dataset
from data_tools.errors import UserError
from data_tools.storage import open_storage, read_bytes
from data_tools.text import decoded
from data_tools.untrusted import JSON_BYTES, parse_json, whole

PLAIN = re.compile(r"(?![#\"])[^\s#\"'\\\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]+")
"""A key that needs no quotes in a list."""
COMMENT = re.compile(r"(?:^|(?<=\s))#")
TRAINED_ON = ("train-normal", "train-unlabelled", "train-anomaly")

Excluded = Mapping[str, Sequence[int]]
"""By the name of a shard, which of its images are left out, ascending."""


def read_keys(url: str) -> frozenset[str]:
    """The keys in an exclusion list: text, one a line, as `written_key` writes them.

    Empty lines are passed over, and what follows a # at a line's beginning or behind white space. Raises UserError
    when there is no such file or it holds no key.
    """
    place, name = url.rpartition("/")[0] or ".", PurePosixPath(url).name
    try:
        text = decoded(read_bytes(open_storage(place), name, JSON_BYTES))
        keys = frozenset(filter(None, map(_key_of, re.split(r"\r\n?|\n", text))))
    except FileNotFoundError:
        raise UserError(f"--exclude {url}: no such file - give a list of keys, one a line") from None
    except UnicodeDecodeError:
        raise UserError(f"--exclude {url}: is not UTF-8 text - save it as UTF-8, one key a line") from None
    except ValueError as error:
        raise UserError(f"--exclude {url}: {error} - give a list of keys, one a line") from None
    if not keys:
        raise UserError(f"--exclude {url}: holds no key - leave the option out, or give one key a line")
    return keys


def written_key(key: str) -> str:
    """A key as it stands in a list: in quotes, as JSON has it, where it could be read as something else."""
    return key if PLAIN.fullmatch(key) else json.dumps(key)


def _key_of(line: str) -> str:
    """The key in a line, "" where there is none; ValueError for quotes that do not end."""
    line = line.strip()
    if not line.startswith('"'):
        return COMMENT.split(line, maxsplit=1)[0].rstrip()
    try:
        key, end = json.JSONDecoder().raw_decode(line)
    except ValueError:
        key, end = "", 0
    if not end or COMMENT.split(line[end:], maxsplit=1)[0].strip():
        raise ValueError(f"{line[:80]!r} begins with a quote and is not a key in quotes")
    return key


def find_excluded(dataset: Dataset, keys: Iterable[str]) -> dict[str, list[int]]:
    """Where the images of these keys lie; UserError when one is none of the dataset's training images.

    No image is decoded; shards are read for their keys, in the order of `TRAINED_ON` until all are found.
    """
    wanted, result = frozenset(keys), dict[str, list[int]]()
    left = set(wanted)
    for pool in TRAINED_ON:
        for shard, names in dataset.keys(pool).items() if left else ():
            for row, key in enumerate(names):
                if key in wanted:
                    if key not in left:
                        raise UserError(
                            f"{dataset.storage.url}/{shard}: the key {key} is in another shard as well"
                            " - write the dataset again"
                        )
                    result.setdefault(shard, []).append(row)
                    left.discard(key)
    if left:
        raise UserError(
            f"--exclude: {min(left)!r:.120} is no training image of {dataset.storage.url} ({len(left)} keys are not)"
            " - give a list that was made for this dataset"
        )
    return result


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
    values = parse_json(content)
    if not isinstance(values, dict) or not all(isinstance(rows, list) for rows in values.values()):
        raise ValueError("no lists of rows by shard")
    for name, rows in values.items():
        before = -1
        for row in rows:
            before = whole(row, before + 1, 2**53, f"a row of {name!r:.40}")
    return values


def check_excluded(dataset: Dataset, excluded: Excluded) -> None:
    """ValueError where rows are of no shard that is trained on, or beyond its images."""
    samples = {shard.name: shard.samples for pool in TRAINED_ON for shard in dataset.manifest.of(pool)}
    for name, rows in excluded.items():
        if rows and rows[-1] >= samples.get(name, 0):
            raise ValueError(f"the dataset has no row {rows[-1]} of {name!r:.80}")
