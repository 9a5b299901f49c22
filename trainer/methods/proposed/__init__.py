"""The proposed method: a progressively grown WGAN-GP whose encoder is trained with it (Berg et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_tools.errors import UserError
from trainer.methods.base import Method, Trained, Variant
from trainer.schedule import Phase, grown, resolutions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.training.group import Group
    from trainer.training.step import Step


@dataclass(frozen=True)
class Proposed(Method):
    """The paper's: generator, critic and encoder grow together; its options are those without a prefix."""

    title = "proposed (d_I)"
    known_by = "a"
    scores_with = ("ema", "encoder", "critic")

    @classmethod
    def variants(cls) -> dict[str, Variant]:
        return {
            "proposed": Variant("proposed (d_I)"),
            "proposed-dz": Variant("proposed (d_z)", {"distance": "latent"}),
            "clustergan-loss": Variant("ClusterGAN's loss", {"distance": "latent-squared"}),
        }

    def minibatches(self, config: TrainConfig) -> Iterator[tuple[str, int]]:
        for resolution in resolutions(config.resolution):
            if resolution not in config.minibatch:
                raise UserError(
                    f"--minibatch has no batch for {resolution}x{resolution} - give"
                    f" --minibatch.{resolution} 4, or --resolution {resolution // 2}"
                )
            yield f"--minibatch.{resolution}", config.minibatch[resolution]

    def schedule(self, config: TrainConfig) -> tuple[Phase, ...]:
        return grown(config)

    def z_size(self, config: TrainConfig) -> int:
        return config.width

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.networks.progressive import Networks

        return Networks.build(config.resolution, channels, config.width, config.seed)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.proposed.step import GrowingStep

        return GrowingStep(config, networks, data, device, group)

    def encode(self, trained: Trained, queries: Tensor) -> Tensor:
        # Minibatch-stddev groups of one, so that a query's score does not depend on what else is in the batch.
        return trained.networks["encoder"](queries, trained.resolution, trained.alpha, group=1)

    def generate(self, trained: Trained, z: Tensor) -> Tensor:
        return trained.networks["ema"](z, trained.resolution, trained.alpha)

    def criticise(self, trained: Trained, images: Tensor) -> Tensor:
        return trained.networks["critic"](images, trained.resolution, trained.alpha, group=1)

    def features(self, trained: Trained, images: Tensor) -> Tensor:
        trunk: Any = trained.networks["critic"].trunk
        return trunk.features(images, trained.resolution, trained.alpha).flatten(1)
