"""A variational autoencoder whose score is a likelihood (An and Cho 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.methods.autoencoding import AutoencodingMethod
from trainer.methods.base import Trained, check_at_most

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.scoring.terms.base import Term
    from trainer.training.group import Group
    from trainer.training.step import Step


@dataclass(frozen=True)
class Vae(AutoencodingMethod):
    """A variational autoencoder: an image is unusual when its own latent vectors make it unlikely (An and Cho 2015).

    Networks are those of the autoencoder with two heads each, in place of the paper's dense layers; how many latent
    vectors the paper draws, and how long it trains, is not known.
    """

    weight_decay: float = 0.0
    """Weight decay: this times each weight is added to its gradient."""
    draws: int = 10
    """Latent vectors drawn of each query."""

    title = "VAE"
    known_by = "nll"

    def check(self, config: TrainConfig) -> None:
        super().check(config)
        check_at_most("--vae.draws", self.draws, 2**12)

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.methods.vae.networks import VariationalAutoencoder

        return VariationalAutoencoder.build(config.resolution, channels, self.width, self.code_size, config.seed)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.vae.step import VaeStep

        return VaeStep(config, networks, data, device, group)

    def reconstruct(self, trained: Trained, queries: Tensor) -> Tensor:
        """The mean of the image at the mean of the latent vector."""
        mean, _ = trained.networks["encoder"](queries)
        return trained.networks["decoder"](mean)[0]

    def own_terms(self) -> tuple[Term, ...]:
        from trainer.methods.ae.terms import SQUARED_ERROR
        from trainer.methods.vae.terms import DIVERGENCE, LIKELIHOOD

        return LIKELIHOOD, DIVERGENCE, SQUARED_ERROR
