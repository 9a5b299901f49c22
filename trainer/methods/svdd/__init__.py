"""Deep SVDD (Ruff et al. 2018): a network draws all images towards one point."""

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

Boundary = Literal["hard", "soft"]


@dataclass(frozen=True)
class Svdd(Method):
    """A network maps all images close to one point; an image far from it is unusual (Deep SVDD, Ruff et al. 2018).

    Networks, batch and step sizes are theirs; the lengths are their 350 and 150 epochs of 5,000 images. Each image is
    brought to mean 0 and mean absolute value 1, without the scale of its class that the authors' code knows.
    """

    width: int = 32
    """Feature maps at full resolution; they double as the side halves."""
    code_size: int = 128
    """Size of a code; a multiple of 16."""
    boundary: Boundary = "hard"
    """hard: all codes are pulled to the centre; soft: those outside the radius that holds all but a share `nu`."""
    nu: float = 0.05
    """That share, the assumed share of anomalies."""
    outliers: Outliers = "blind"
    """What is done with the images of each batch that look anomalous (LOE, Qiu et al. 2022). blind: nothing; hard: they
    are pushed away from the centre; soft: half of that; refine: they are left out."""
    alpha: float = ALPHA
    """The assumed share of anomalies."""
    autoencoder_images: int = 1_750_000
    """Images shown first, while encoder and decoder learn to reconstruct them."""
    images: int = 750_000
    """Images shown afterwards, while the encoder moves their codes towards the centre."""
    minibatch: int = 200
    """Global minibatch."""
    learning_rate: float = 1e-4
    """Adam's step size; a tenth after 5/7 of the first phase and after a third of the second."""
    weight_decay: float = 5e-7
    """Weight decay: this times each weight is added to its gradient."""

    title = "Deep SVDD"
    known_by = "d"
    may_be_0 = ("weight_decay", "alpha")
    scores_with = ("encoder", "sphere")

    @classmethod
    def variants(cls) -> dict[str, Variant]:
        return variants_with(cls)

    @staticmethod
    def presets() -> dict[str, Svdd]:
        """Half the width, a tenth of the images at ten times the rate: a training run takes minutes on two cores."""
        small = Svdd(
            width=16, code_size=64, autoencoder_images=100_000, images=100_000, minibatch=64, learning_rate=1e-3
        )
        return {"cells-small": small, "study": small, "demo": small}

    def check(self, config: TrainConfig) -> None:
        self.check_batch_norm(config)
        super().check(config)
        check_outliers(self)
        if self.outliers != "blind" and self.boundary == "soft":
            raise UserError(
                f"--svdd.outliers {self.outliers} does not go with --svdd.boundary soft, which has no loss of a single"
                " image - give one of them"
            )
        if self.nu >= 1:
            raise UserError(f"--svdd.nu {self.nu} is not a share - give less than 1, e.g. 0.05")
        if self.code_size % 16:
            raise UserError(f"--svdd.code-size {self.code_size} is not a multiple of 16 - give e.g. 64")
        check_at_most("--svdd.width", self.width, 2**12)
        check_at_most("--svdd.code-size", self.code_size, 2**16)

    def minibatches(self, config: TrainConfig) -> Iterator[tuple[str, int]]:
        yield "--svdd.minibatch", self.minibatch

    def schedule(self, config: TrainConfig) -> tuple[Phase, ...]:
        """The autoencoder, then the sphere."""
        r, first, end = config.resolution, self.autoencoder_images, self.autoencoder_images + self.images
        return (
            Phase(0, r, "autoencoder", 0, first, self.minibatch, self.learning_rate, milestone=5 / 7),
            Phase(1, r, "sphere", first, end, self.minibatch, self.learning_rate, milestone=1 / 3),
        )

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.methods.svdd.networks import SvddNetworks

        return SvddNetworks.build(config.resolution, channels, self.width, self.code_size, config.seed)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.svdd.step import SvddStep

        return SvddStep(config, networks, data, device, group)

    def ready(self, config: TrainConfig, images_seen: int) -> bool:
        return images_seen > self.autoencoder_images

    def own_terms(self) -> tuple[Term, ...]:
        from trainer.methods.svdd.terms import DISTANCE

        return (DISTANCE,)
