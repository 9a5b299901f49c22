"""bf16 as hardware with it computes, on a CPU without: products of bf16 numbers, summed in float32, rounded once.

PyTorch's own way on such a CPU rounds sums in between: gradients of weights are four times as wrong, and slow.

    make bf16 DO="train --precision bf16 …"      # `python -m trainer`, computed so
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from data_tools.errors import run_command
from trainer.__main__ import main

ATEN = torch.ops.aten
PRODUCTS = {ATEN.convolution.default, ATEN.convolution_backward.default, ATEN.mm.default, ATEN.addmm.default}


class HardwareBf16(TorchDispatchMode):
    """While the block lasts, products of bf16 tensors are those of their float32 copies, rounded to bf16."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or not any(isinstance(x, Tensor) and x.dtype == torch.bfloat16 for x in args):
            return func(*args, **kwargs)
        return tree_map(_narrow, func(*tree_map(_wide, args), **kwargs))


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x


def _narrow(x: Any) -> Any:
    return x.bfloat16() if isinstance(x, Tensor) else x


def _computed_so(argv: list[str]) -> None:
    with HardwareBf16():
        main(argv)


if __name__ == "__main__":
    sys.exit(run_command(_computed_so, sys.argv[1:]))
