"""Where in an image: maps of several kinds, and their calibration pixel by pixel on training images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.scoring.terms.base import Response
from trainer.scoring.terms.normalised_residual import residual_map

USUAL, RARE = 1.5, 8.0
"""Interquartile ranges above a pixel's median where colour begins, and where it is fullest."""
SIGMA = 0.03
"""Width of the blur, as a share of the image's side: single pixels of a gradient say little."""


def difference_map(queries: Tensor, matches: Tensor) -> Tensor:
    """|Q - R|, the mean over channels: N x C x r x r each -> N x r x r."""
    return (queries - matches).abs().mean(1)


def residual(response: Response) -> Tensor:
    """|w(Q) - w(R)|, the mean over channels, in [0, 1]."""
    return residual_map(response.queries, response.matches)


def difference(response: Response) -> Tensor:
    """|Q - R|, the mean over channels: unlike w, it does not spread one bright pixel over the whole image."""
    return difference_map(response.queries, response.matches)


def critic(response: Response) -> Tensor:
    """|gradient of the critic's score| by pixel, the sum over channels: what would have to change to look real."""
    return _gradient(lambda q: response.to(q).criticised, response.queries).abs().sum(1)


def encoder(response: Response) -> Tensor:
    """|gradient of ||E(Q) - E(R)||| by pixel, the sum over channels: what moves the latent vector away."""
    wanted = response.to(response.matches).z_hat
    return _gradient(lambda q: (response.to(q).z_hat - wanted).norm(dim=1), response.queries).abs().sum(1)


KINDS: dict[str, Callable[[Response], Tensor]] = {
    "residual": residual,
    "difference": difference,
    "critic": critic,
    "encoder": encoder,
}
"""Each: what networks make of N queries, without gradients, to N x r x r."""


def _gradient(score: Callable[[Tensor], Tensor], queries: Tensor) -> Tensor:
    with torch.enable_grad():
        inputs = queries.detach().clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(score(inputs).sum(), inputs)
    return slope


def blurred_kind(kind: str) -> Callable[[Response], Tensor]:
    """Blurred maps of one of KINDS, for `Inference.maps`."""
    return lambda response: blurred(KINDS[kind](response))


def blurred(maps: Tensor) -> Tensor:
    """Convolved with a Gaussian; borders are reflected."""
    sigma = max(SIGMA * maps.shape[-1], 0.5)
    reach = min(round(3 * sigma), maps.shape[-1] - 1)
    offsets = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = weights / weights.sum()
    padded = F.pad(maps.unsqueeze(1), (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1)).squeeze(1)


@dataclass(frozen=True)
class HeatScale:
    """Of each pixel position, median and interquartile range of a map's values on training images: float32 r x r."""

    middle: np.ndarray
    spread: np.ndarray

    @staticmethod
    def of(maps: np.ndarray) -> HeatScale:
        """maps: N x r x r. A spread below a tenth of the median one is raised to that: rounding is not an anomaly."""
        low, middle, high = np.percentile(maps, [25, 50, 75], axis=0)
        spread = high - low
        floor = max(0.1 * float(np.median(spread)), float(np.finfo(np.float32).tiny))
        return HeatScale(middle.astype(np.float32), np.maximum(spread, floor).astype(np.float32))

    def applied(self, maps: np.ndarray) -> np.ndarray:
        """Each pixel minus its median over its interquartile range: 0 is usual, 3 is rare."""
        return (maps - self.middle) / self.spread


def strength(heat: np.ndarray) -> np.ndarray:
    """Heat in interquartile ranges as shares of the fullest colour, in [0, 1]."""
    return np.clip((heat - USUAL) / (RARE - USUAL), 0, 1)


def full_size(maps: np.ndarray, side: int) -> np.ndarray:
    """Maps N x r x r interpolated to N x side x side."""
    if maps.shape[-1] == side:
        return maps
    return F.interpolate(torch.from_numpy(maps)[:, None], size=(side, side), mode="bilinear").squeeze(1).numpy()
