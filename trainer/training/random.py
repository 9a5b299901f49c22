"""Random numbers as a function of (seed, stream, position): the same on every worker, at any batch size.

Philox 4x32-10 (Salmon et al. 2011) in 64-bit integer arithmetic, then Box-Muller in float64, rounded to float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LATENT_FOR_CRITIC, LATENT_FOR_GENERATOR, MIXING, SEARCH_START, FIRST_TRANSFORM, NOISE, NOISE_AT_TEST = range(7)
"""Streams."""

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds over counters of four 32-bit words, held in int64 tensors of one shape; returns four such words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The product's 64 bits may wrap into the sign; mask after the shift, and the high word is right all the same.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def _words(seed: int, streams: Tensor, blocks: Tensor, positions: Tensor) -> Tensor:
    """Uniform numbers in (0, 1), float64, len(positions) x K x 4, of K blocks, each of a stream; all int64."""
    p = positions[:, None].expand(-1, len(blocks))
    block, stream = (each.expand(len(positions), -1) for each in (blocks, streams))
    words = philox((block, p & _MASK, p >> 32, stream), (seed & _MASK, (seed >> 32) & _MASK))
    return (torch.stack(words, dim=-1).double() + 0.5) / 2**32


def _normal(u: Tensor) -> Tensor:
    """Box and Muller's: N x an even number of uniform numbers to as many normal ones."""
    radius, angle = (-2 * u[:, 0::2].log()).sqrt(), 2 * math.pi * u[:, 1::2]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(1)


def uniforms(seed: int, stream: int, positions: Tensor, count: int) -> Tensor:
    """len(positions) x count numbers in (0, 1), float64; count a multiple of 4; positions int64."""
    blocks = torch.arange(count // 4, device=positions.device)
    return _words(seed, torch.full_like(blocks, stream), blocks, positions).flatten(1)


def latents(seed: int, stream: int, positions: Tensor, size: int) -> Tensor:
    """Standard normal latents, len(positions) x size, float32."""
    return _normal(uniforms(seed, stream, positions, -(-size // 4) * 4))[:, :size].float()


def mixing(seed: int, positions: Tensor) -> Tensor:
    """Mixing factors u of the gradient penalty, len(positions) x 1 x 1 x 1, uniform in [0, 1], float32."""
    return uniforms(seed, MIXING, positions, 4)[:, 0].float().view(-1, 1, 1, 1)


def drawn(seed: int, positions: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """A step's `latents` for critic and for generator and its `mixing`, in a third of the operations."""
    count = -(-size // 4)
    block = torch.arange(count, device=positions.device)
    blocks = torch.cat([block, block, block[:1]])
    streams = torch.full_like(blocks, LATENT_FOR_CRITIC)
    streams[count:-1], streams[-1] = LATENT_FOR_GENERATOR, MIXING
    u = _words(seed, streams, blocks, positions)
    z = _normal(u[:, :-1].flatten(1)).view(len(positions), 2, -1)[:, :, :size].float()
    return z[:, 0], z[:, 1], u[:, -1, 0].float().view(-1, 1, 1, 1)
