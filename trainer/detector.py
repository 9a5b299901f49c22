"""The detector: what a user loads. The critic is dropped; generator and encoder score (Berg et al. 2019, eq. 2-5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_tools.errors import UserError
from trainer.batches import at_resolution, faded, to_float
from trainer.checkpoint import CheckpointInfo, load_weights, newest_checkpoint, read_info
from trainer.networks import Encoder, Generator

PAPER_LAMBDA = 0.05


def best_device() -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def min_max(images: Tensor) -> Tensor:
    """w(X): each image scaled to [0, 1] over all its pixels and channels; a constant image becomes 0 everywhere."""
    flat = images.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    span = (high - low).clamp_min(torch.finfo(images.dtype).tiny)
    return ((flat - low) / span).view_as(images)


@dataclass(frozen=True)
class Scores:
    """One row a query, float64 arrays of length N.

    L_n: ||w(Q) - w(R)||_2 / N_X, the normalised residual.   L_o: -||z_hat||_2 / sqrt(N_z).   L_r: ||Q - R||_2.
    """

    L_n: np.ndarray
    L_o: np.ndarray
    L_r: np.ndarray

    def anomaly(self, lam: float = PAPER_LAMBDA) -> np.ndarray:
        """a = lambda L_n + (1 - lambda) L_o; the greater, the more anomalous."""
        return lam * self.L_n + (1 - lam) * self.L_o


class AnomalyDetector:
    """Scores images with a trained encoder and generator.

    An image's score is a function of that image and the checkpoint alone: minibatch-stddev groups have size one.
    """

    def __init__(
        self,
        generator: Generator,
        encoder: Encoder,
        resolution: int,
        channels: int,
        alpha: float | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.generator, self.encoder = generator, encoder
        self.resolution, self.channels = resolution, channels
        self.alpha = None if alpha is None else torch.tensor(alpha, device=self.device)

    @staticmethod
    def load(url: str | Path, device: str | torch.device | None = None) -> AnomalyDetector:
        """Load a run's newest checkpoint, or one checkpoint, by its URL; on the GPU where there is one."""
        return AnomalyDetector.from_checkpoint(read_info(newest_checkpoint(url)), device)

    @staticmethod
    def from_checkpoint(info: CheckpointInfo, device: str | torch.device | None = None) -> AnomalyDetector:
        device = device or best_device()
        sizes = (info.config.resolution, info.channels, info.config.width)
        generator, encoder = Generator(*sizes), Encoder(*sizes)
        load_weights(info, {"ema": generator, "encoder": encoder})
        generator.to(device).requires_grad_(False)
        encoder.to(device).requires_grad_(False)
        return AnomalyDetector(generator, encoder, info.resolution, info.channels, info.alpha, device)

    def score(self, images: np.ndarray, batch: int = 64) -> Scores:
        """images: uint8, N x H x W x C; H = W = a whole multiple of the detector's resolution."""
        parts = [self._score_batch(q) for q in self._batches(images, batch)]
        columns = torch.cat(parts, dim=1).double().cpu().numpy() if parts else np.zeros((3, 0))
        return Scores(*columns)

    def heatmap(self, images: np.ndarray, batch: int = 64) -> np.ndarray:
        """|w(Q) - w(R)|, averaged over channels: float32, N x r x r, in [0, 1]."""
        maps = [(min_max(q) - min_max(self._reconstruct(q)[0])).abs().mean(1) for q in self._batches(images, batch)]
        return torch.cat(maps).cpu().numpy() if maps else np.zeros((0, self.resolution, self.resolution), np.float32)

    def reconstruct(self, images: np.ndarray, batch: int = 64) -> np.ndarray:
        """The closest matches R = G(E(Q)): float32, N x r x r x C, about [-1, 1]."""
        pictures = [self._reconstruct(q)[0].permute(0, 2, 3, 1) for q in self._batches(images, batch)]
        shape = (0, self.resolution, self.resolution, self.channels)
        return torch.cat(pictures).cpu().numpy() if pictures else np.zeros(shape, np.float32)

    def _batches(self, images: np.ndarray, batch: int):
        if images.dtype != np.uint8 or images.ndim != 4:
            raise UserError(f"images of type {images.dtype} and shape {images.shape} - give uint8, N x H x W x C")
        _, height, width, channels = images.shape
        if channels != self.channels:
            raise UserError(f"images with {channels} channels for a detector of {self.channels} - convert them")
        if height != width or height < self.resolution or height % self.resolution:
            raise UserError(
                f"images of {height}x{width} for a detector of {self.resolution}x{self.resolution} - "
                f"resize them to {self.resolution}x{self.resolution}"
            )
        for start in range(0, len(images), batch):
            part = torch.from_numpy(np.array(images[start : start + batch])).to(self.device)  # a copy, writable
            yield faded(at_resolution(to_float(part), self.resolution), self.alpha)

    @torch.no_grad()
    def _reconstruct(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        z_hat = self.encoder(queries, self.resolution, self.alpha, group=1)
        return self.generator(z_hat, self.resolution, self.alpha), z_hat

    def _score_batch(self, queries: Tensor) -> Tensor:
        matches, z_hat = self._reconstruct(queries)
        count = queries[0].numel()
        normalised = (min_max(queries) - min_max(matches)).flatten(1).norm(dim=1) / count
        norm = -z_hat.norm(dim=1) / math.sqrt(z_hat.shape[1])
        residual = (queries - matches).flatten(1).norm(dim=1)
        return torch.stack([normalised, norm, residual])
