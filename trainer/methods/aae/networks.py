"""Encoder, decoder and discriminator of codes; and what is held of each training image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trainer.networks.base import NetworkSet
from trainer.networks.convolutional import ConvDecoder, ConvEncoder
from trainer.networks.dense import Dense
from trainer.training.sweep import Found

if TYPE_CHECKING:
    from trainer.methods.aae import Aae


class Weights(Found):
    """The weight of each training image in the losses, float32 N in the order of samples; 1 at first."""

    of_samples: Tensor

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.register_buffer("of_samples", torch.ones(samples))


class Shaped(nn.Module):
    """A network whose output, of any range, becomes images N x C x R x R in [-1, 1]."""

    def __init__(self, network: nn.Module, channels: int, resolution: int) -> None:
        super().__init__()
        self.network, self.shape = network, (channels, resolution, resolution)

    def forward(self, codes: Tensor) -> Tensor:
        return self.network(codes).float().tanh().reshape(-1, *self.shape)


@dataclass(frozen=True)
class AdversarialAutoencoder(NetworkSet):
    """All at the final resolution."""

    encoder: nn.Module
    decoder: nn.Module
    discriminator: Dense
    weights_of_images: Weights

    @staticmethod
    def build(options: Aae, resolution: int, channels: int, samples: int, seed: int) -> AdversarialAutoencoder:
        """Freshly drawn networks, a function of the seed alone."""
        pixels, width, code = channels * resolution**2, options.width, options.code_size
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if options.layers == "dense":
                encoder: nn.Module = Dense(pixels, width, width, code, norm=True)
                decoder: nn.Module = Dense(code, width, width, pixels)
            else:
                encoder = ConvEncoder(resolution, channels, width, code)
                decoder = ConvDecoder(resolution, channels, width, code)
            discriminator = Dense(code, options.discriminator_width, options.discriminator_width, 1)
            shaped = Shaped(decoder, channels, resolution)
            return AdversarialAutoencoder(encoder, shaped, discriminator, Weights(samples))
