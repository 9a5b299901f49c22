"""The manifest: written last, it names every shard; a dataset without one does not exist."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from data_tools.dataset.intensity import Intensity
from data_tools.dataset.patch import POOLS
from data_tools.dataset.tar import BLOCK
from data_tools.errors import UserError
from data_tools.storage import Storage, read_document
from data_tools.untrusted import object_name, whole

MANIFEST = "manifest.json"
FORMAT_VERSION = 2
"""Since 2 there is an intensity; a manifest without one stays readable for programs that know of 1 alone."""
MAX_SIDE = 2**15
MAX_EXACT = 2**53
"""Of samples and bytes: what every program counts exactly."""
MIN_SAMPLE = 4 * BLOCK
"""Bytes that two files take in a tar."""
DEFLATED = 1032
"""Bytes of an image that a byte of a PNG can hold, at most."""


@dataclass(frozen=True)
class Shard:
    """One tar: `samples` pairs of PNG and JSON of one pool, `size` bytes in all."""

    name: str
    pool: str
    samples: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a dataset holds.

    source: the options it was made with, for people to read. intensity: how values of more than 8 bits became 8; None
    where there were none, and in datasets of former versions.
    """

    resolution: int
    channels: int
    shards: tuple[Shard, ...]
    source: dict[str, Any]
    intensity: Intensity | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over the shards' checksums in order: two datasets of one digest hold the same samples."""
        text = "".join(f"{shard.pool} {shard.sha256}\n" for shard in self.shards)
        return hashlib.sha256(text.encode()).hexdigest()

    def count(self, pool: str) -> int:
        """Samples in a pool."""
        return sum(shard.samples for shard in self.of(pool))

    def of(self, pool: str) -> tuple[Shard, ...]:
        """The shards of a pool, in order."""
        return tuple(shard for shard in self.shards if shard.pool == pool)

    def to_json(self) -> str:
        intensity = {"intensity": self.intensity and self.intensity.to_json()}
        version = FORMAT_VERSION if self.intensity else 1
        facts = {"format_version": version, "pools": {pool: self.count(pool) for pool in POOLS}}
        return json.dumps(facts | dataclasses.asdict(self) | intensity, indent=2) + "\n"


def read_manifest(storage: Storage) -> Manifest:
    """Read the manifest of a dataset.

    Raises UserError when there is none, when it is damaged or cannot be true, or when a newer version wrote it.
    """
    name = f"{storage.url}/{MANIFEST}"
    try:
        facts = read_document(storage, MANIFEST)
        version = whole(facts["format_version"], 1, 2**31, "format_version")
        if version > FORMAT_VERSION:
            raise UserError(f"{name}: format version {version} is newer than {FORMAT_VERSION} - update stratagan")
        return _checked(facts)
    except FileNotFoundError:
        raise UserError(f"{storage.url}: is not a dataset (it has no {MANIFEST}) - make one with data_tools") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise UserError(f"{name}: damaged ({reason}) - write the dataset again") from None


def _checked(facts: dict[str, Any]) -> Manifest:
    """Raises ValueError and the like for what no writer has written."""
    side, channels = whole(facts["resolution"], 4, MAX_SIDE, "resolution"), facts["channels"]
    if side & (side - 1):
        raise ValueError(f"resolution is {side}, no power of two")
    if channels not in (1, 3) or type(channels) is not int:
        raise ValueError(f"channels is {channels!r:.40}, neither 1 nor 3")
    shards = tuple(_shard(shard, side * side * channels) for shard in facts["shards"])
    if len({shard.name for shard in shards}) < len(shards):
        raise ValueError("names a shard twice")
    if sum(shard.samples for shard in shards) > MAX_EXACT or sum(shard.size for shard in shards) > MAX_EXACT:
        raise ValueError("more samples or bytes than there can be")
    if not isinstance(facts["source"], dict):
        raise ValueError("source is not an object")
    intensity = Intensity.from_json(facts.get("intensity"))
    manifest = Manifest(side, channels, shards, facts["source"], intensity)
    if facts["pools"] != {pool: manifest.count(pool) for pool in POOLS}:
        raise ValueError("pools and shards do not add up")
    return manifest


def _shard(facts: dict[str, Any], image: int) -> Shard:
    """image: bytes of a decoded one, of which so many must be able to be in the shard."""
    shard = Shard(**facts)
    if object_name(shard.name).startswith(".") or shard.name == MANIFEST:
        raise ValueError(f"{shard.name} is not the name of a shard")
    if shard.pool not in POOLS:
        raise ValueError(f"unknown pool {shard.pool!r:.40}")
    whole(shard.size, 0, MAX_EXACT, "size")
    whole(shard.samples, 0, shard.size // MIN_SAMPLE, "samples")
    if shard.samples * image > shard.size * DEFLATED:
        raise ValueError(f"{shard.name} cannot hold {shard.samples:,} images in {shard.size:,} bytes")
    if not isinstance(shard.sha256, str) or not re.fullmatch("[0-9a-f]{64}", shard.sha256):
        raise ValueError("a sha256 that is not 64 hexadecimal digits")
    return shard
