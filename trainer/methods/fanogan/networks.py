"""The three networks of a run of f-AnoGAN."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainer.networks.base import NetworkSet
from trainer.networks.residual import Critic, Encoder, Generator


@dataclass(frozen=True)
class FAnoGanNetworks(NetworkSet):
    """Generator, critic and encoder, all at the final resolution."""

    generator: Generator
    critic: Critic
    encoder: Encoder

    @staticmethod
    def build(resolution: int, channels: int, width: int, latent_size: int, seed: int) -> FAnoGanNetworks:
        """Freshly drawn networks, a function of the seed alone."""
        sizes = (resolution, channels, width)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return FAnoGanNetworks(Generator(*sizes, latent_size), Critic(*sizes), Encoder(*sizes, latent_size))
