"""No encoder: an image's latent vector is found by gradient descent (AnoGAN, Schlegl et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.methods.base import Trained, Variant, check_at_most
from trainer.methods.proposed import Proposed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.training.group import Group
    from trainer.training.step import Step


@dataclass(frozen=True)
class Search(Proposed):
    """AnoGAN's iterative search for an image's latent vector, at test time (Schlegl et al. 2017)."""

    steps: int = 500
    """Updates of the latent vector."""
    restarts: int = 1
    """Starting points; the one that ends closest counts."""
    learning_rate: float = 0.02
    """Adam's step size."""

    title = "search"
    ablation = True  # the proposed method's networks, less the encoder
    scores_with = ("ema", "critic")

    @staticmethod
    def presets() -> dict[str, Search]:
        few = Search(steps=100, learning_rate=0.05)
        return {"cells-small": few, "demo": few}

    @classmethod
    def variants(cls) -> dict[str, Variant]:
        return {"search": Variant(cls.title)}

    def check(self, config: TrainConfig) -> None:
        super().check(config)
        check_at_most("--search.steps", self.steps, 10**6)
        check_at_most("--search.restarts", self.restarts, 2**12)

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.networks.progressive import SearchNetworks

        return SearchNetworks.build(config.resolution, channels, config.width, config.seed)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.search.step import SearchStep

        return SearchStep(config, networks, data, device, group)

    def ready(self, config: TrainConfig, images_seen: int) -> bool:
        return False  # a search is not a single pass

    def encode(self, trained: Trained, queries: Tensor) -> Tensor:
        import torch

        from trainer.methods.search.descent import search
        from trainer.training.random import SEARCH_START, latents

        config = trained.config
        places = torch.arange(self.restarts, device=trained.device)
        starts = latents(config.seed, SEARCH_START, places, config.width)
        return search(
            queries,
            lambda z: self.generate(trained, z),
            lambda images: self.features(trained, images),
            starts,
            self.steps,
            self.learning_rate,
        )
