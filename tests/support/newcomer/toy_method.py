"""A toy: an autoencoder of two layers, without latent vectors of its own, without a generator, without a critic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainer.methods.base import Method, Trained
from trainer.networks.base import NetworkSet
from trainer.schedule import Phase
from trainer.scoring.terms.base import Term
from trainer.training.step import Step

if TYPE_CHECKING:
    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.training.group import Group


class Autoencoder(nn.Module):
    """Images N x C x r x r to images of that shape, through a few numbers."""

    def __init__(self, pixels: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(pixels, hidden), nn.Linear(hidden, pixels)

    def forward(self, images: Tensor) -> Tensor:
        return self.up(self.down(images.flatten(1)).relu()).tanh().view_as(images)


@dataclass(frozen=True)
class ToyNetworks(NetworkSet):
    """The only one."""

    autoencoder: Autoencoder


class ToyLoss(nn.Module):
    """The mean squared difference of images and their reconstructions."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = (self.autoencoder(images) - images).square().mean()
        return loss, {"autoencoder/loss": loss.detach()}


class ToyStep(Step):
    """One update by momentum."""

    networks: ToyNetworks

    def begin(self, phase: Phase) -> None:
        self.phase, self.trained = phase, self.networks.parameters()
        self.loss = self._reduced(ToyLoss(self.networks.autoencoder))
        self.optimisers = {"sgd": torch.optim.SGD(self.trained, lr=phase.learning_rate, momentum=0.9)}

    def run(self, images_seen: int) -> dict[str, Tensor]:
        loss, parts = self.loss(self._real(*self._places(images_seen)))
        self._update(self.optimisers["sgd"], loss)
        self.finite.look(self.trained, images_seen)
        return parts


WORST_PIXEL = Term(
    "toy_worst",
    "the greatest difference of a pixel and its reconstruction",
    lambda response: (response.queries - response.matches).abs().flatten(1).amax(1),
    needs=("reconstruct",),
)


@dataclass(frozen=True)
class Toy(Method):
    """An autoencoder of two layers."""

    hidden: int = 16
    """Size of the code that an image is compressed to."""
    learning_rate: float = 0.3
    """Its step size."""

    title = "toy"
    known_by = "toy_worst"

    def minibatches(self, config: TrainConfig) -> Iterator[tuple[str, int]]:
        yield f"--minibatch.{config.resolution}", config.minibatch[config.resolution]

    def schedule(self, config: TrainConfig) -> tuple[Phase, ...]:
        side, batch = config.resolution, config.minibatch[config.resolution]
        return (Phase(0, side, "squeeze", 0, config.final_images, batch, self.learning_rate),)

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            return ToyNetworks(Autoencoder(channels * config.resolution**2, self.hidden))

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        return ToyStep(config, networks, data, device, group)

    def reconstruct(self, trained: Trained, queries: Tensor) -> Tensor:
        return trained.networks["autoencoder"](queries)

    def own_terms(self) -> tuple[Term, ...]:
        return (WORST_PIXEL,)
