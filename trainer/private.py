"""All that we use of torch and Ray and they call private: what to look at when one of them is upgraded."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
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


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN, which convolves on CPUs, takes weights in a layout of its own here."""
    import torch

    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    return there and weight.device.type == "cpu" and weight.dtype == torch.float32


def packed_weight(weight: Tensor, stride: int, padding: int) -> Tensor:
    """Weights of a convolution, outputs x inputs x k x k, as `convolved` takes them."""
    import torch

    shape = [64, weight.shape[1], 16, 16]  # of what will be convolved: a guess that sets the layout
    sizes = ([padding] * 2, [stride] * 2, [1, 1], 1, shape)
    return torch.ops.mkldnn._reorder_convolution_weight(weight, *sizes)


def convolved(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, slope: float | None) -> Tensor:
    """A convolution by packed weights, then a leaky ReLU of this slope in the same call; no gradients."""
    import torch

    then = ("none", []) if slope is None else ("leaky_relu", [slope])
    sizes = ([padding] * 2, [stride] * 2, [1, 1], 1)
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *sizes, *then, "")


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


@contextlib.contextmanager
def loopback_alone() -> Iterator[None]:
    """Let what Ray starts here keep its servers to loopback: Ray's way for systems with a firewall that asks."""
    from ray._private import ray_constants

    name, before = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", ray_constants.ENABLE_RAY_CLUSTER
    variable = os.environ.get(name)  # by which Ray's processes learn of it; this one has read it already
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop(name)
        if variable is not None:
            os.environ[name] = variable


def bootstrap_address(value: str) -> str:
    """HOST:PORT at which Ray looks for a cluster, from a RAY_ADDRESS; ConnectionError for "auto" without one."""
    from ray._private import services
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    if value == "auto":  # as ray.init does: this user's cluster has this user's token
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    services.find_gcs_addresses.cache_clear()
    return services.canonicalize_bootstrap_address_or_die(value)


def greet_cluster(address: str) -> None:
    """Join and leave the cluster at HOST:PORT; raises what Ray does, or ends the process where Ray's C++ does."""
    from ray import _raylet
    from ray._common.usage.usage_lib import get_cluster_metadata
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._private.utils import check_version_info

    ensure_token_if_auth_enabled({}, create_token_if_missing=False)
    made_of_c_plus_plus: Any = _raylet
    client = made_of_c_plus_plus.GcsClient(address=address)
    check_version_info(get_cluster_metadata(client), "here")


def keep_rendezvous_to_its_address() -> None:
    """Let torch's rendezvous, which a group's first worker holds, listen at the group's address instead of at all."""
    from torch.distributed import TCPStore  # type: ignore[reportPrivateImportUsage]

    module: Any = importlib.import_module("torch.distributed.rendezvous")  # a function has the same name

    def store(host_name: str, port: int, *args: Any, is_master: bool = False, **options: Any) -> Any:
        if is_master:
            with contextlib.suppress(OSError):  # an address that only others reach us by
                family, *_, address = socket.getaddrinfo(host_name, port, type=socket.SOCK_STREAM)[0]
                options["master_listen_fd"] = socket.create_server(address[:2], family=family).detach()
        return TCPStore(host_name, port, *args, is_master=is_master, **options)

    module.TCPStore = store


def channels_last(images: Tensor) -> Tensor:
    """Laid out channels last in memory; as they are within `torch.func`'s transforms, whose tensors have no layout."""
    import torch

    if not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(images):  # type: ignore[reportPrivateImportUsage]
        return images
    return images.contiguous(memory_format=torch.channels_last)
