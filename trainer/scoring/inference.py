"""The detector: what a user loads. The critic is dropped; generator and encoder score (Berg et al. 2019, eq. 2-5)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data_tools.errors import UserError
from trainer.config import TrainConfig
from trainer.methods.table import networks_for_scoring, scorer
from trainer.networks.residual import izi_f
from trainer.run.checkpoint import CheckpointInfo, Snapshot, load_weights, newest_checkpoint, read_info
from trainer.scoring.criterion import PAPER_LAMBDA
from trainer.training.batches import at_resolution, faded, to_float


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


def residual_map(queries: Tensor, matches: Tensor) -> Tensor:
    """|w(Q) - w(R)|, the mean over channels: N x C x r x r each -> N x r x r, in [0, 1]."""
    return (min_max(queries) - min_max(matches)).abs().mean(1)


def normalised_residual(queries: Tensor, matches: Tensor) -> Tensor:
    """L_n (eq. 3), N."""
    return (min_max(queries) - min_max(matches)).flatten(1).norm(dim=1) / queries[0].numel()


def negated_norm(z_hat: Tensor) -> Tensor:
    """L_o (eq. 4), N."""
    return -z_hat.norm(dim=1) / math.sqrt(z_hat.shape[1])


@dataclass(frozen=True)
class Scores:
    """One row a query, float64 arrays of length N; the greater, the more anomalous.

    L_n: ||w(Q) - w(R)||_2 / N_X, the normalised residual.   L_o: -||z_hat||_2 / sqrt(N_z).   L_r: ||Q - R||_2.
    Where the detector kept the critic: A, f-AnoGAN's mean (Q - R)^2 + mean (f(Q) - f(R))^2 with the critic's features
    f; D, the critic's score, negated. z_hat: the latent vectors themselves, float32, N x N_z.
    """

    L_n: np.ndarray
    L_o: np.ndarray
    L_r: np.ndarray
    A: np.ndarray | None = None
    D: np.ndarray | None = None
    z_hat: np.ndarray | None = None

    def anomaly(self, lam: float = PAPER_LAMBDA) -> np.ndarray:
        """a = lambda L_n + (1 - lambda) L_o; the greater, the more anomalous."""
        return lam * self.L_n + (1 - lam) * self.L_o

    def columns(self) -> dict[str, np.ndarray]:
        """The terms that are there, by name."""
        found = {name: getattr(self, name) for name in ("L_n", "L_o", "L_r", "A", "D")}
        return {name: column for name, column in found.items() if column is not None}


class AnomalyDetector:
    """Scores images with a trained encoder and generator, or whatever the method has in their place.

    An image's score is a function of that image and the checkpoint alone. The critic is dropped unless it is asked
    for, with which the further terms A and D come.
    """

    def __init__(
        self,
        config: TrainConfig,
        networks: Mapping[str, nn.Module],
        resolution: int,
        channels: int,
        alpha: float | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """networks: by name, those of `networks_for_scoring` or of a training, in eval mode on the device."""
        self.device = torch.device(device)
        self.config, self.resolution, self.channels = config, resolution, channels
        self.alpha = None if alpha is None else torch.tensor(alpha, device=self.device)
        self.networks = networks
        self.scorer = scorer(config, networks, resolution, self.alpha, self.device)

    @staticmethod
    def load(url: str | Path, device: str | torch.device | None = None) -> AnomalyDetector:
        """Load a run's newest checkpoint, or one checkpoint, by its URL; on the GPU where there is one."""
        return AnomalyDetector.from_checkpoint(read_info(newest_checkpoint(url)), device)

    @staticmethod
    def from_checkpoint(
        info: CheckpointInfo, device: str | torch.device | None = None, with_critic: bool = False
    ) -> AnomalyDetector:
        networks = networks_for_scoring(info.config, info.channels, with_critic)
        load_weights(info, networks)
        return AnomalyDetector.of(info.config, networks, info.resolution, info.channels, info.alpha, device)

    @staticmethod
    def from_snapshot(snapshot: Snapshot) -> AnomalyDetector:
        """The detector of a training at one moment."""
        networks = networks_for_scoring(snapshot.config, snapshot.channels, with_critic=False)
        for name, network in networks.items():
            network.load_state_dict(snapshot.files[name])
        return AnomalyDetector.of(snapshot.config, networks, snapshot.resolution, snapshot.channels, snapshot.alpha)

    @staticmethod
    def of(
        config: TrainConfig,
        networks: Mapping[str, nn.Module],
        resolution: int,
        channels: int,
        alpha: float | None,
        device: str | torch.device | None = None,
    ) -> AnomalyDetector:
        """A detector that has networks, just loaded, to itself; on the GPU where there is one."""
        device = device or best_device()
        for network in networks.values():
            network.to(device).requires_grad_(False).eval()
        return AnomalyDetector(config, networks, resolution, channels, alpha, device)

    def score(self, images: np.ndarray, batch: int = 64, with_A: bool = True) -> Scores:
        """images: uint8, N x H x W x C; H = W = a whole multiple of the detector's resolution.

        with_A: A too, where the critic is there; it takes two more passes of the critic.
        """
        parts = [self._score_batch(q, with_A) for q in self.batches(images, batch)]
        if not parts:
            further = (["D", "A"] if with_A else ["D"]) if "critic" in self.networks else []
            none = {name: np.zeros(0) for name in ["L_n", "L_o", "L_r", *further]}
            return Scores(**none, z_hat=np.zeros((0, self.config.latent_size), np.float32))
        columns = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
        z_hat = columns.pop("z_hat")
        return Scores(**{name: column.astype(np.float64) for name, column in columns.items()}, z_hat=z_hat)

    def heatmap(self, images: np.ndarray, batch: int = 64) -> np.ndarray:
        """|w(Q) - w(R)|, averaged over channels: float32, N x r x r, in [0, 1]."""
        maps = [residual_map(q, self._match(q)[0]) for q in self.batches(images, batch)]
        return torch.cat(maps).cpu().numpy() if maps else np.zeros((0, self.resolution, self.resolution), np.float32)

    def reconstruct(self, images: np.ndarray, batch: int = 64) -> np.ndarray:
        """The closest matches R = G(E(Q)): float32, N x r x r x C, about [-1, 1]."""
        pictures = [self._match(q)[0].permute(0, 2, 3, 1) for q in self.batches(images, batch)]
        shape = (0, self.resolution, self.resolution, self.channels)
        return torch.cat(pictures).cpu().numpy() if pictures else np.zeros(shape, np.float32)

    def batches(self, images: np.ndarray, batch: int) -> Iterator[Tensor]:
        """Checked images as the networks see them: N x C x r x r each."""
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
    def _match(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        z_hat = self.scorer.encode(queries)
        return self.scorer.generate(z_hat), z_hat

    @torch.no_grad()
    def _score_batch(self, queries: Tensor, with_A: bool) -> dict[str, Tensor]:
        matches, z_hat = self._match(queries)
        found = {
            "z_hat": z_hat,
            "L_n": normalised_residual(queries, matches),
            "L_o": negated_norm(z_hat),
            "L_r": (queries - matches).flatten(1).norm(dim=1),
        }
        if "critic" in self.networks:
            found["D"] = -self.scorer.criticise(queries)
            if with_A:
                found["A"] = izi_f(queries, matches, self.scorer.features)
        return found
