"""GEOM (Golan and El-Yaniv 2018): a classifier learns which transform an image went through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from data_tools.errors import UserError
from trainer.methods.base import Method, Variant, check_at_most
from trainer.methods.outliers import ALPHA, Outliers, check_outliers, variants_with
from trainer.schedule import Phase

if TYPE_CHECKING:
    import torch

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.scoring.terms.base import Term
    from trainer.training.group import Group
    from trainer.training.step import Step

Transforms = Literal["all", "turns", "shifts", "patches"]


@dataclass(frozen=True)
class Geom(Method):
    """A classifier tells which transform an image went through; where it cannot, the image is unusual (GEOM,
    Golan and El-Yaniv 2018).

    Networks, transforms and step size are theirs; the length is their three passes over 72 views of 5,000 images.
    Objects without orientation, as cells mostly are, defeat turns and flips: give shifts or patches there.
    """

    depth: int = 10
    """Convolutions on the longest way through the classifier: 4 more than a multiple of 6."""
    width: int = 4
    """Feature maps, in multiples of 16 at full resolution, 64 at the lowest."""
    transforms: Transforms = "all"
    """all: flips, shifts by a quarter of the side and quarter turns, 72 in all; turns: without shifts, 8; shifts:
    these alone, 9; patches: the 24 orders of an image's quarters."""
    outliers: Outliers = "blind"
    """What is done with the views of each batch that look anomalous (LOE, Qiu et al. 2022). blind: nothing; hard: their
    transform is to be unknowable; soft: half of that; refine: they are left out."""
    alpha: float = ALPHA
    """The assumed share of anomalies."""
    views: int = 1_080_000
    """Transformed images shown: each image under each transform once before any comes again."""
    minibatch: int = 128
    """Global minibatch, of views."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    weight_decay: float = 5e-4
    """Times each weight, added to its gradient: the gradient of their penalty of 2.5e-4 times its square."""

    title = "GEOM"
    known_by = "dirichlet"
    may_be_0 = ("weight_decay", "alpha")

    @classmethod
    def variants(cls) -> dict[str, Variant]:
        return variants_with(cls)

    @staticmethod
    def presets() -> dict[str, Geom]:
        """A quarter of the width, half of it at 16x16, so that a training run takes minutes on two cores."""
        return {
            "cells-small": Geom(width=1, views=360_000),
            "study": Geom(width=2, views=360_000),
            "demo": Geom(width=1, views=120_000),
        }

    def check(self, config: TrainConfig) -> None:
        self.check_batch_norm(config)
        super().check(config)
        check_outliers(self)
        if self.depth < 10 or (self.depth - 4) % 6:
            raise UserError(f"--geom.depth {self.depth} is not 4 more than a multiple of 6 - give 10, 16, 22 ...")
        check_at_most("--geom.depth", self.depth, 1000)
        check_at_most("--geom.width", self.width, 2**8)

    def minibatches(self, config: TrainConfig) -> Iterator[tuple[str, int]]:
        yield "--geom.minibatch", self.minibatch

    def schedule(self, config: TrainConfig) -> tuple[Phase, ...]:
        """The classifier, then the fit of what it says of training images, which takes the time of one step."""
        r, views, batch = config.resolution, self.views, self.minibatch
        return (
            Phase(0, r, "views", 0, views, batch, self.learning_rate),
            Phase(1, r, "fit", views, views + batch, batch, self.learning_rate),
        )

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.methods.geom.networks import GeomNetworks
        from trainer.methods.geom.transforms import KINDS

        classes = len(KINDS[self.transforms](config.resolution))
        return GeomNetworks.build(channels, self.depth, self.width, classes, config.seed)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.geom.step import GeomStep

        return GeomStep(config, networks, data, device, group)

    def ready(self, config: TrainConfig, images_seen: int) -> bool:
        return images_seen > self.views

    def own_terms(self) -> tuple[Term, ...]:
        from trainer.methods.geom.terms import DIRICHLET, ENTROPY, SOFTMAX

        return DIRICHLET, SOFTMAX, ENTROPY
