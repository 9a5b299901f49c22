"""A dataset's files changed by somebody else, and documents that no reader may trust."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_tools.__main__ import main as data_tools
from data_tools.dataset.cache import open_cache
from data_tools.dataset.exclusion import TRAINED_ON
from data_tools.dataset.reader import open_dataset

SIDE = 8
DEEP = "[" * 100_000
HUGE = "9" * 5000


def change(place: Path, **facts: Any) -> None:
    path = place / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def change_shard(place: Path, number: int = 0, **facts: Any) -> None:
    shards = json.loads((place / "manifest.json").read_text())["shards"]
    shards[number] |= facts
    pools = {pool: sum(int(s["samples"]) for s in shards if s["pool"] == pool) for pool in [*TRAINED_ON]}
    change(place, shards=shards, pools=pools | {"test-normal": 0, "test-anomaly": 0})


def put_shard(place: Path, content: bytes, number: int = 0, **facts: Any) -> None:
    """Another shard in its place, with a manifest that says so."""
    shard = json.loads((place / "manifest.json").read_text())["shards"][number]
    (place / shard["name"]).write_bytes(content)
    change_shard(place, number, size=len(content), sha256=hashlib.sha256(content).hexdigest(), **facts)


def readers(place: Path) -> list[Callable[[], object]]:
    """All that reads the shards of train-normal."""
    dataset = open_dataset(str(place), open_cache(place.parent / "cache"))
    return [
        lambda: data_tools(["verify", str(place)]),
        lambda: dataset.images("train-normal"),
        lambda: data_tools(["inspect", str(place), "--out", str(place.parent / "sheets")]),
    ]
