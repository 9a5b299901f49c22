"""The networks of GANomaly."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainer.networks.base import NetworkSet
from trainer.networks.dcgan import DcganDecoder, DcganEncoder, Discriminator


@dataclass(frozen=True)
class GanomalyNetworks(NetworkSet):
    """All at the final resolution."""

    encoder: DcganEncoder
    decoder: DcganDecoder
    encoder_again: DcganEncoder
    discriminator: Discriminator

    @staticmethod
    def build(resolution: int, channels: int, width: int, code_size: int, seed: int) -> GanomalyNetworks:
        """Freshly drawn networks, a function of the seed alone."""
        sizes = (resolution, channels, width, code_size)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            both = DcganEncoder(*sizes), DcganDecoder(*sizes)
            return GanomalyNetworks(*both, DcganEncoder(*sizes), Discriminator(resolution, channels, width, 1))
