"""The method and its peers: what the loop and the detector need of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_tools.dataset.training_set import TrainingSet
from trainer.config import TrainConfig
from trainer.methods.fanogan_step import FAnoGanNetworks, FAnoGanStep
from trainer.methods.growing import GrowingStep
from trainer.methods.latent_search import search
from trainer.networks import residual as fanogan
from trainer.networks.progressive import Critic, Encoder, Generator, Networks, NetworkSet, SearchNetworks
from trainer.training import random as counter_random
from trainer.training.group import Group
from trainer.training.step import Step


def build_networks(config: TrainConfig, channels: int) -> NetworkSet:
    """Freshly drawn networks, a function of configuration and seed."""
    if config.method == "fanogan":
        return FAnoGanNetworks.build(config, channels)
    kind = SearchNetworks if config.method == "search" else Networks
    return kind.build(config.resolution, channels, config.width, config.seed)


def build_step(
    config: TrainConfig, networks: NetworkSet, data: TrainingSet, device: torch.device, group: Group
) -> Step:
    """The method's step, to be begun with a phase."""
    kind = FAnoGanStep if config.method == "fanogan" else GrowingStep
    return kind(config, networks, data, device, group)


def can_score(config: TrainConfig, images_seen: int) -> bool:
    """Whether this count of images has trained an encoder, so that scoring is a matter of one pass."""
    return config.method == "proposed" or (config.method == "fanogan" and images_seen > config.fanogan.gan_images)


@dataclass(frozen=True)
class Scorer:
    """What a method makes of images (N x C x r x r) and of latents (N x N_z) at test time, each sample by itself."""

    encode: Callable[[Tensor], Tensor]  # queries to z_hat
    generate: Callable[[Tensor], Tensor]  # z_hat to the closest matches
    features: Callable[[Tensor], Tensor]  # images to the critic's features, N x F
    criticise: Callable[[Tensor], Tensor]  # images to the critic's scores, N


def networks_for_scoring(config: TrainConfig, channels: int, with_critic: bool) -> Mapping[str, nn.Module]:
    """Networks, by name, to load weights into: without the critic where the method can do without."""
    sizes, f = (config.resolution, channels, config.width), config.fanogan
    if config.method == "fanogan":
        sizes = (config.resolution, channels, f.width)
        critic = {"critic": fanogan.Critic(*sizes)} if with_critic else {}
        return {
            "generator": fanogan.Generator(*sizes, f.latent_size),
            "encoder": fanogan.Encoder(*sizes, f.latent_size),
            **critic,
        }
    if config.method == "search":
        return {"ema": Generator(*sizes), "critic": Critic(*sizes)}
    return {"ema": Generator(*sizes), "encoder": Encoder(*sizes)} | ({"critic": Critic(*sizes)} if with_critic else {})


def scorer(
    config: TrainConfig, networks: Mapping[str, nn.Module], resolution: int, alpha: Tensor | None, device: torch.device
) -> Scorer:
    """networks: as of `networks_for_scoring`, or of a training; functions that need a missing one raise KeyError."""
    if config.method == "fanogan":
        return Scorer(
            encode=lambda queries: networks["encoder"](queries),
            generate=lambda z: networks["generator"](z),
            features=lambda images: networks["critic"].features(images),  # type: ignore[operator]
            criticise=lambda images: networks["critic"](images),
        )

    def generate(z: Tensor) -> Tensor:
        return networks["ema"](z, resolution, alpha)

    def features(images: Tensor) -> Tensor:
        return networks["critic"].trunk.features(images, resolution, alpha).flatten(1)  # type: ignore[union-attr, operator]

    def find(queries: Tensor) -> Tensor:
        s = config.search
        restarts = torch.arange(s.restarts, device=device)
        starts = counter_random.latents(config.seed, counter_random.SEARCH_START, restarts, config.latent_size)
        return search(queries, generate, features, starts, s.steps, s.learning_rate)

    return Scorer(
        # Minibatch-stddev groups of one, so that a query's score does not depend on what else is in the batch.
        encode=find if config.method == "search" else lambda q: networks["encoder"](q, resolution, alpha, group=1),
        generate=generate,
        features=features,
        criticise=lambda images: networks["critic"](images, resolution, alpha, group=1),
    )
