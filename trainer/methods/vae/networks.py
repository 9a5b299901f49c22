"""The two networks of a variational autoencoder, each of which says a normal distribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.networks.base import NetworkSet
from trainer.networks.convolutional import ConvDecoder, ConvEncoder

MIN_LOG_VARIANCE = -6.0
"""Of a pixel and of a latent number: a likelihood has no upper end, and a training run would run away with it."""
Normal = tuple[Tensor, Tensor]
"""Means and logarithms of variances, of one shape."""


def _normal(both: Tensor) -> Normal:
    mean, log_variance = both.float().chunk(2, dim=1)
    return mean, log_variance.clamp_min(MIN_LOG_VARIANCE)


class NormalEncoder(ConvEncoder):
    """Images to latent vectors: N x code size each, float32 under autocast."""

    def forward(self, images: Tensor) -> Normal:  # type: ignore[override]
        return _normal(super().forward(images))


class NormalDecoder(ConvDecoder):
    """Latent vectors to images, whose means lie in [-1, 1]: N x C x R x R each, float32 under autocast."""

    def forward(self, codes: Tensor) -> Normal:  # type: ignore[override]
        mean, log_variance = _normal(super().forward(codes))
        return mean.tanh(), log_variance


@dataclass(frozen=True)
class VariationalAutoencoder(NetworkSet):
    """Encoder and decoder, both at the final resolution."""

    encoder: NormalEncoder
    decoder: NormalDecoder

    @staticmethod
    def build(resolution: int, channels: int, width: int, code_size: int, seed: int) -> VariationalAutoencoder:
        """Freshly drawn networks, a function of the seed alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder = NormalEncoder(resolution, channels, width, 2 * code_size)
            return VariationalAutoencoder(encoder, NormalDecoder(resolution, 2 * channels, width, code_size))
