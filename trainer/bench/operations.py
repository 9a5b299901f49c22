"""Operations counted while code runs."""

from __future__ import annotations

from typing import Any

from torch.utils.flop_counter import flop_registry

from trainer.private import dispatch_mode


class Operations(dispatch_mode()):
    """Counts the operations of convolutions and matrix products while the block lasts, multiply and add as two.

    By torch's own formulas; its FlopCounterMode cannot look into a gradient that is itself differentiated.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.flop += formula(*args, **(kwargs or {}), out_val=out)
        return out
