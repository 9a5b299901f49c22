"""ADGAN (Deecke et al. 2018): a search in which each query bends a generator of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.methods.base import Method, check_at_most
from trainer.methods.proposed import Proposed

if TYPE_CHECKING:
    import torch

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.scoring.terms.base import Term
    from trainer.training.group import Group
    from trainer.training.step import Step


@dataclass(frozen=True)
class Adgan(Method):
    """A search from several starts, of latent vector and of the generator's weights together, at test time; the mean
    of what is left of the distance says how unusual an image is (ADGAN, Deecke et al. 2018).

    Its scoring of the growing networks without encoder, those of `search`. Step sizes and counts are the authors'.
    """

    starts: int = 8
    """Starting points of each query."""
    steps: int = 5
    """Updates of latent vector and weights."""
    latent_rate: float = 0.25
    """Adam's step size for the latent vector."""
    weight_rate: float = 5e-5
    """Adam's step size for the weights."""

    title = "ADGAN"
    known_by = "adgan"
    ablation = True  # the proposed method's networks, less the encoder
    scores_with = ("ema", "critic")

    minibatches = Proposed.minibatches
    schedule = Proposed.schedule
    z_size = Proposed.z_size
    generate = Proposed.generate
    criticise = Proposed.criticise
    features = Proposed.features

    def check(self, config: TrainConfig) -> None:
        super().check(config)
        check_at_most("--adgan.steps", self.steps, 10**6)
        check_at_most("--adgan.starts", self.starts, 2**12)

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.networks.progressive import SearchNetworks

        return SearchNetworks.build(config.resolution, channels, config.width, config.seed)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.search.step import SearchStep

        return SearchStep(config, networks, data, device, group)

    def ready(self, config: TrainConfig, images_seen: int) -> bool:
        return False  # a search is no single pass

    def own_terms(self) -> tuple[Term, ...]:
        from trainer.methods.adgan.terms import ADGAN

        return (ADGAN,)
