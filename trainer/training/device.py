"""Where networks compute, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import torch

from data_tools.ahead import ahead
from trainer.private import cpu_has_native_bf16

if TYPE_CHECKING:
    from trainer.config import TrainConfig

T = TypeVar("T")


def best_device() -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def beside(parts: Iterator[T]) -> Iterator[T]:
    """Parts that are made, on the CPU, for the networks: the next one while these compute, where a GPU is there.

    On a CPU the networks take every core, and a thread beside them costs a seventh of `score`.
    """
    return ahead(parts) if best_device().type == "cuda" else parts


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether networks run under bf16 autocast; penalty, norms, scores and weights are float32 in any case."""
    return config.precision == "bf16" or (config.precision == "auto" and has_native_bf16(device))


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed by the hardware; emulated, it is tens of times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_has_native_bf16()
