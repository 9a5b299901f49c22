"""The two networks of an autoencoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.networks.base import NetworkSet
from trainer.networks.convolutional import ConvDecoder, ConvEncoder


class CodeEncoder(ConvEncoder):
    """Images to codes in [-1, 1], float32 under autocast."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).float().tanh()


class ImageDecoder(ConvDecoder):
    """Codes to images in [-1, 1], float32 under autocast."""

    def forward(self, codes: Tensor) -> Tensor:
        return super().forward(codes).float().tanh()


@dataclass(frozen=True)
class Autoencoder(NetworkSet):
    """Encoder and decoder, both at the final resolution."""

    encoder: CodeEncoder
    decoder: ImageDecoder

    @staticmethod
    def build(resolution: int, channels: int, width: int, code_size: int, seed: int) -> Autoencoder:
        """Freshly drawn networks, a function of the seed alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            sizes = (resolution, channels, width, code_size)
            return Autoencoder(CodeEncoder(*sizes), ImageDecoder(*sizes))
