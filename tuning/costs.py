"""What a trial cost: minutes of training and parameters."""

from __future__ import annotations

import json

import torch

from data_tools.storage import Storage, read_bytes
from trainer.config import TrainConfig
from trainer.methods import method_of


def training_minutes(storage: Storage) -> float:
    """Of all training runs under a URL, each round of a robust twin among them, as their metrics say."""
    names = [name for name, _ in storage.tree() if name.rpartition("/")[2] == "metrics.jsonl"]
    return sum(_minutes(read_bytes(storage, name)) for name in names)


def _minutes(content: bytes) -> float:
    """Images between two lines, times what a thousand of them took."""
    minutes, before = 0.0, 0
    for line in map(json.loads, content.splitlines()):
        seen = line["images_seen"]
        minutes += (seen - before) / 1000 * line.get("speed/sec_per_kimg", 0.0) / 60
        before = seen
    return minutes


def parameter_count(config: TrainConfig, channels: int) -> int:
    """Of all networks that are trained; an average of one is none of its own."""
    with torch.device("meta"):
        networks = method_of(config).networks(config, channels, 0).by_name()
    return sum(p.numel() for name, network in networks.items() if name != "ema" for p in network.parameters())
