"""What the files of a checkpoint hold: each read, checked against its checksum, and loaded into networks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from data_tools.storage import open_storage, read_bytes
from trainer.methods import network_names
from trainer.run.checkpoint import FACTS, REMEDY, CheckpointInfo, DamagedError


def read_tensors(info: CheckpointInfo, name: str) -> dict[str, Tensor]:
    """The tensors of one file, checked against its SHA-256; DamagedError when they are not what was written."""
    file = f"{info.url}/{name}.safetensors"
    storage = open_storage(info.url)
    try:
        content = read_bytes(storage, f"{name}.safetensors")
        if hashlib.sha256(content).hexdigest() != info.sha256.get(f"{name}.safetensors"):
            raise DamagedError(f"{file}: differs from the checksum in {FACTS} - {REMEDY}")
        return safetensors.torch.load(content)
    except FileNotFoundError:
        raise DamagedError(f"{file}: is missing - {REMEDY}") from None
    except SafetensorError as error:
        raise DamagedError(f"{file}: no safetensors ({str(error).splitlines()[0]}) - {REMEDY}") from None


def load_weights(info: CheckpointInfo, networks: Mapping[str, nn.Module]) -> None:
    """Load the named networks' weights; DamagedError when they are not what was written or do not fit.

    Networks on the device `meta` come to the CPU: memory is taken for no more than a file holds.
    """
    for name, network in networks.items():
        tensors = read_tensors(info, name)
        try:
            _check_shapes(tensors, network)
            if any(each.is_meta for each in network.state_dict().values()):
                network.to_empty(device="cpu")
            network.load_state_dict(tensors)
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            raise DamagedError(
                f"{info.url}/{name}.safetensors: does not fit its configuration ({first}) - {REMEDY}"
            ) from None


def _check_shapes(tensors: Mapping[str, Tensor], network: nn.Module) -> None:
    for name, wanted in network.state_dict().items():
        if name not in tensors:
            raise RuntimeError(f"{name} is missing")
        if tensors[name].shape != wanted.shape:
            raise RuntimeError(f"{name} is {tuple(tensors[name].shape)} instead of {tuple(wanted.shape)}")


def check_finite(info: CheckpointInfo, networks: Mapping[str, nn.Module]) -> None:
    """DamagedError where a network, just loaded, holds NaN or infinite weights: what it would score is nothing."""
    for name, network in networks.items():
        for key, values in network.state_dict().items():
            # A sum that is finite has no other addend, and costs a tenth of looking at each.
            if not bool(values.sum().isfinite()) and not bool(values.isfinite().all()):
                raise DamagedError(f"{info.url}/{name}.safetensors: {key} holds NaN or infinite weights - {REMEDY}")


def check_checkpoint(info: CheckpointInfo) -> None:
    """Read every file; DamagedError when one is not what was written."""
    for name in network_names(info.config, info.channels):
        if f"{name}.safetensors" not in info.sha256:
            raise DamagedError(f"{info.url}/{FACTS}: does not list {name}.safetensors - {REMEDY}")
    for file in info.sha256:
        read_tensors(info, file.removesuffix(".safetensors"))
