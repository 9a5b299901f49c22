"""What methods have in common whose networks, with batch norm, learn in one phase at the final resolution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.methods.base import Method, check_at_most
from trainer.schedule import Phase

if TYPE_CHECKING:
    from trainer.config import TrainConfig

WIDEST, LONGEST = 2**13, 2**16


@dataclass(frozen=True)
class OnePhaseMethod(Method):
    """Methods give these options defaults and a meaning of their own."""

    width: int = 64
    """Feature maps at half the image's side; they double as the side halves."""
    code_size: int = 256
    """Size of the code that an image is compressed to."""
    images: int = 1_250_000
    """Images shown."""
    minibatch: int = 128
    """Global minibatch."""
    learning_rate: float = 1e-3
    """Adam's step size."""

    def check(self, config: TrainConfig) -> None:
        self.check_batch_norm(config)
        super().check(config)
        check_at_most(self.option("width"), self.width, WIDEST)
        check_at_most(self.option("code_size"), self.code_size, LONGEST)

    def minibatches(self, config: TrainConfig) -> Iterator[tuple[str, int]]:
        yield self.option("minibatch"), self.minibatch

    def schedule(self, config: TrainConfig) -> tuple[Phase, ...]:
        return (Phase(0, config.resolution, "training", 0, self.images, self.minibatch, self.learning_rate),)
