"""The manifest: written last, it names every shard; a dataset without one does not exist."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from data_tools.dataset.intensity import Intensity
from data_tools.dataset.patch import POOLS
from data_tools.errors import UserError
from data_tools.storage import Storage

MANIFEST = "manifest.json"
FORMAT_VERSION = 2
"""Since 2 there is an intensity; a manifest without one stays readable for programs that know of 1 alone."""


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

    Raises UserError when there is none, when it is damaged, or when a newer version wrote it.
    """
    name = f"{storage.url}/{MANIFEST}"
    try:
        with storage.open(MANIFEST) as file:
            facts = json.load(file)
        version = facts["format_version"]
        if version > FORMAT_VERSION:
            raise UserError(f"{name}: format version {version} is newer than {FORMAT_VERSION} - update stratagan")
        shards = tuple(Shard(**shard) for shard in facts["shards"])
        intensity = Intensity.from_json(facts.get("intensity"))
        manifest = Manifest(int(facts["resolution"]), int(facts["channels"]), shards, dict(facts["source"]), intensity)
        if facts["pools"] != {pool: manifest.count(pool) for pool in POOLS}:
            raise ValueError("pools and shards do not add up")
        return manifest
    except FileNotFoundError:
        raise UserError(f"{storage.url}: is no dataset (it has no {MANIFEST}) - make one with data_tools") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(f"{name}: damaged ({reason}) - write the dataset anew") from None
