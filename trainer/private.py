"""All that we use of torch and Ray and they call private: what to look at when one of them is upgraded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def lerp_all(tensors: Sequence[Tensor], towards: Sequence[Tensor], weight: float) -> None:
    """Move each tensor in place towards another, in one kernel for all."""
    import torch

    torch._foreach_lerp_(tensors, towards, weight)  # type: ignore[reportPrivateImportUsage]


def greatest_values(tensors: Sequence[Tensor]) -> Tensor:
    """The greatest absolute value of each, in one kernel for all."""
    import torch

    return torch.stack(torch._foreach_norm(tensors, math.inf))  # type: ignore[reportPrivateImportUsage]


def cpu_has_native_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself."""
    import torch

    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def dispatch_mode() -> Any:
    """The class of what sees every operation that torch carries out."""
    from torch.utils._python_dispatch import TorchDispatchMode

    return TorchDispatchMode


def greatest_resources() -> Mapping[str, float]:
    """What a Ray cluster that grows with its work may have at most; empty for one that does not."""
    from ray._private.state import state  # Ray Train and Tune look there as well

    return state.get_max_resources_from_cluster_config() or {}


def torch_backend() -> Any:
    """The class by which Ray Train sets up the workers' process group."""
    from ray.train.torch.config import _TorchBackend

    return _TorchBackend


def keep_nodes_to_loopback() -> None:
    """Let a Ray node that this process starts keep its servers to loopback, as Ray itself does with a head alone."""
    from ray._private import ray_constants, services

    ray_constants.ENABLE_RAY_CLUSTER = True
    services.resolve_ip_for_localhost = lambda host: host
