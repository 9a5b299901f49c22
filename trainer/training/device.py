"""Where networks compute, and in which precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from trainer.config import TrainConfig


def best_device() -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether networks run under bf16 autocast; penalty, norms, scores and weights are float32 in any case."""
    return config.precision == "bf16" or (config.precision == "auto" and has_native_bf16(device))


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed by the hardware; emulated, it is tens of times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
