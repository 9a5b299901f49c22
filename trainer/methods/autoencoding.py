"""What autoencoders of convolutions have in common: options, phases, networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_tools.errors import UserError
from trainer.methods.base import Method, Trained, check_at_most
from trainer.schedule import Phase

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.scoring.terms.base import Term


@dataclass(frozen=True)
class AutoencodingMethod(Method):
    """An autoencoder of strided convolutions; its options are those of E3Outlier (Wang et al. 2019)."""

    width: int = 64
    """Feature maps at half the side of an image, twice as many at each half of that."""
    code_size: int = 256
    """Numbers that an image is squeezed into, each in [-1, 1]."""
    images: int = 1_250_000
    """Images shown."""
    minibatch: int = 128
    """Global minibatch."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    weight_decay: float = 5e-4
    """Times each weight, added to its gradient."""

    may_be_0 = ("weight_decay",)

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """A quarter of the width, so that a training takes minutes on two cores."""
        small = {"width": 16, "code_size": 64, "images": 250_000}
        return {
            "cells-small": cls(**small),
            "study": cls(**small | {"images": 200_000}),
            "demo": cls(**small | {"images": 100_000}),
        }

    def check(self, config: TrainConfig) -> None:
        name = self.name()
        if config.microbatch:
            raise UserError(
                f"--microbatch {config.microbatch} does not go with --method {name}, whose batch norm needs the whole"
                " batch - leave it out"
            )
        if config.resolution < 8:
            raise UserError(f"--resolution {config.resolution} is too small for --method {name} - give 8 or more")
        super().check(config)
        check_at_most(f"--{name}.width", self.width, 2**12)
        check_at_most(f"--{name}.code-size", self.code_size, 2**16)

    def minibatches(self, config: TrainConfig) -> Iterator[tuple[str, int]]:
        yield f"--{self.name()}.minibatch", self.minibatch

    def schedule(self, config: TrainConfig) -> tuple[Phase, ...]:
        return (Phase(0, config.resolution, "training", 0, self.images, self.minibatch, self.learning_rate),)

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.methods.ae.networks import Autoencoder

        return Autoencoder.build(config.resolution, channels, self.width, self.code_size, config.seed)

    def reconstruct(self, trained: Trained, queries: Tensor) -> Tensor:
        return trained.networks["decoder"](trained.networks["encoder"](queries))

    def own_terms(self) -> tuple[Term, ...]:
        from trainer.methods.ae.terms import SQUARED_ERROR

        return (SQUARED_ERROR,)
