"""Checkpoints that cannot run code: safetensors for the weights, readable JSON for the rest.

A checkpoint is a folder `checkpoints/images-000123456` in the run folder. It is written under a temporary name and
renamed when complete, so one that can be seen is whole. At a phase's end Adam's moments start anew, so the weights
and the number of images seen are all that the next phase needs.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from data_tools.errors import UserError
from trainer.config import TrainConfig
from trainer.networks import Critic, Encoder, Generator

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Networks:
    """The four networks of a run; `ema` is the generator's moving average, the one that scores."""

    generator: Generator
    critic: Critic
    encoder: Encoder
    ema: Generator

    @staticmethod
    def build(resolution: int, channels: int, width: int, seed: int) -> Networks:
        """Freshly drawn networks, a function of the seed alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            sizes = (resolution, channels, width)
            generator, critic, encoder, ema = Generator(*sizes), Critic(*sizes), Encoder(*sizes), Generator(*sizes)
        ema.load_state_dict(generator.state_dict())
        ema.requires_grad_(False)
        return Networks(generator, critic, encoder, ema)

    def by_name(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "critic": self.critic, "encoder": self.encoder, "ema": self.ema}

    def to(self, device: torch.device) -> Networks:
        for network in self.by_name().values():
            network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self


@dataclass(frozen=True)
class CheckpointInfo:
    """What checkpoint.json says."""

    path: Path
    images_seen: int
    resolution: int  # at which the networks last trained
    alpha: float | None  # fade factor, None outside a fade
    channels: int
    dataset_digest: str
    config: TrainConfig
    sha256: dict[str, str]


def save_checkpoint(
    run: Path,
    networks: Networks,
    config: TrainConfig,
    images_seen: int,
    resolution: int,
    alpha: float | None,
    channels: int,
    dataset_digest: str,
) -> Path:
    """Write a checkpoint; it appears under its name only when it is complete."""
    final = run / "checkpoints" / f"images-{images_seen:09d}"
    staged = final.with_name(f".{final.name}.partial")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        staged.mkdir(parents=True)
        for name, network in networks.by_name().items():
            tensors = {key: value.detach().contiguous().cpu() for key, value in network.state_dict().items()}
            save_file(tensors, staged / f"{name}.safetensors")
        facts = {
            "format_version": FORMAT_VERSION,
            "images_seen": images_seen,
            "resolution": resolution,
            "alpha": alpha,
            "channels": channels,
            "dataset_digest": dataset_digest,
            "versions": {"torch": torch.__version__},
            "sha256": {path.name: _sha256(path) for path in sorted(staged.glob("*.safetensors"))},
            "config": config.to_json(),
        }
        (staged / "checkpoint.json").write_text(json.dumps(facts, indent=2) + "\n")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(staged, final)
    except SafetensorError as error:  # a full disk, most likely
        raise OSError(errno.EIO, str(error), str(final)) from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return final


def has_checkpoint(run: Path) -> bool:
    """Whether a run folder holds any checkpoint."""
    return any((run / "checkpoints").glob("images-*/checkpoint.json"))


def latest_checkpoint(url: str | Path) -> Path:
    """The newest checkpoint of a run folder, or the folder itself when it is a checkpoint."""
    folder = Path(url)
    if (folder / "checkpoint.json").exists():
        return folder
    found = sorted((folder / "checkpoints").glob("images-*/checkpoint.json"))
    if not found:
        raise UserError(f"{folder}: holds no checkpoint - give the --out folder of a training run")
    return found[-1].parent


def read_info(path: Path) -> CheckpointInfo:
    """Read checkpoint.json; UserError when it is damaged or of a newer version."""
    file = path / "checkpoint.json"
    try:
        facts = json.loads(file.read_text())
        version = facts["format_version"]
        if version > FORMAT_VERSION:
            raise UserError(f"{file}: format version {version} is newer than {FORMAT_VERSION} - update stratagan")
        return CheckpointInfo(
            path,
            facts["images_seen"],
            facts["resolution"],
            facts["alpha"],
            facts["channels"],
            facts["dataset_digest"],
            TrainConfig.from_json(facts["config"]),
            dict(facts["sha256"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file}: damaged ({error!r}) - delete this checkpoint folder, the one before it serves"
        ) from None


def load_weights(info: CheckpointInfo, networks: dict[str, nn.Module]) -> None:
    """Load the named networks' weights, checked against their SHA-256."""
    for name, network in networks.items():
        file = info.path / f"{name}.safetensors"
        remedy = "delete this checkpoint folder, the one before it serves"
        if not file.exists():
            raise UserError(f"{file}: is missing - {remedy}")
        if _sha256(file) != info.sha256.get(file.name):
            raise UserError(f"{file}: differs from the checksum in checkpoint.json - {remedy}")
        try:
            network.load_state_dict(load_file(file))
        except (SafetensorError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise UserError(f"{file}: does not fit its configuration ({first}) - {remedy}") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
