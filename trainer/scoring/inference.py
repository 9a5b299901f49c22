"""Trained networks at test time: images in, terms and closest matches out, each image by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data_tools.dataset.intensity import Intensity
from data_tools.errors import UserError
from trainer.config import TrainConfig
from trainer.contrast import FULL, Contrast
from trainer.methods import method_of
from trainer.methods.base import Trained
from trainer.networks.packed import packed
from trainer.run.checkpoint import CheckpointInfo, Snapshot, newest_checkpoint, read_info
from trainer.run.weights import check_finite, load_weights
from trainer.scoring.allocator import keep_freed_memory
from trainer.scoring.heat import residual
from trainer.scoring.join import PAPER_LAMBDA, anomaly
from trainer.scoring.terms.base import Compared, Response, Term
from trainer.training.batches import at_resolution, faded, to_float
from trainer.training.device import best_device

PIXELS = {"cpu": 2**16, "cuda": 2**20}
"""Of the images that pass the networks together, by kind of device: what a CPU's cache holds, what fills a GPU."""


@dataclass(frozen=True)
class Values:
    """Terms of N images by name, float64 N each; rows: of those that compare with training images, N x K each.

    z_hat: the latent vectors themselves, float32 N x N_z; None where no term needed them. maps: what was asked for
    beside the terms, float32 N x r x r.
    """

    terms: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    z_hat: np.ndarray | None
    maps: np.ndarray | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        return self.terms[name]

    def part(self, some: slice) -> Values:
        """Those of some of the images."""
        terms = {name: column[some] for name, column in self.terms.items()}
        rows = {name: each[some] for name, each in self.rows.items()}
        others = (None if each is None else each[some] for each in (self.z_hat, self.maps))
        return Values(terms, rows, *others)

    def anomaly(self, lam: float = PAPER_LAMBDA) -> np.ndarray:
        """The score a."""
        return anomaly(self["L_n"], self["L_o"], lam)


class Inference:
    """A method's networks with a checkpoint's weights: terms, closest matches, residuals.

    What it says of an image is a function of that image and the checkpoint alone.
    """

    def __init__(
        self,
        config: TrainConfig,
        networks: Mapping[str, nn.Module],
        resolution: int,
        channels: int,
        alpha: float | None = None,
        device: str | torch.device = "cpu",
        intensity: Intensity | None = None,
        contrast: Contrast = FULL,
    ) -> None:
        """intensity: how images of more than 8 bits are brought to the 8 that are scored; contrast: how these are seen.

        networks: by name, those that score or all of a training run's, in eval mode on the device.
        """
        self.device = torch.device(device)
        self.config, self.resolution, self.channels, self.intensity = config, resolution, channels, intensity
        self.contrast = contrast
        self.alpha = None if alpha is None else torch.tensor(alpha, device=self.device)
        self.networks, self.method = networks, method_of(config)
        self.trained = Trained(config, networks, resolution, self.alpha, self.device, contrast)

    @staticmethod
    def load(url: str | Path, device: str | torch.device | None = None) -> Inference:
        """Load a run's newest checkpoint, or one checkpoint, by its URL; on the GPU where there is one."""
        return Inference.from_checkpoint(read_info(newest_checkpoint(url)), device)

    @staticmethod
    def from_checkpoint(info: CheckpointInfo, device: str | torch.device | None = None) -> Inference:
        networks = _unallocated(info.config, info.channels)
        load_weights(info, networks)
        check_finite(info, networks)
        where = (info.resolution, info.channels, info.alpha, device)
        return Inference.of(info.config, networks, *where, info.intensity, info.contrast)

    @staticmethod
    def from_snapshot(snapshot: Snapshot) -> Inference:
        """A training's networks at one moment."""
        networks = _unallocated(snapshot.config, snapshot.channels)
        for name, network in networks.items():
            network.to_empty(device="cpu").load_state_dict(snapshot.files[name])
        s = snapshot
        return Inference.of(s.config, networks, s.resolution, s.channels, s.alpha, None, s.intensity, s.contrast)

    @staticmethod
    def of(
        config: TrainConfig,
        networks: Mapping[str, nn.Module],
        resolution: int,
        channels: int,
        alpha: float | None,
        device: str | torch.device | None = None,
        intensity: Intensity | None = None,
        contrast: Contrast = FULL,
    ) -> Inference:
        """Has networks, just loaded, to itself; on the GPU where there is one."""
        device = torch.device(device or best_device())
        if device.type == "cpu":
            keep_freed_memory()
        for network in networks.values():
            network.to(device).requires_grad_(False).eval()
        return Inference(config, networks, resolution, channels, alpha, device, intensity, contrast)

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The method's terms, the one that it is known by first."""
        return self.method.terms()

    @cached_property
    def joined(self) -> tuple[Term, ...]:
        """Of these, those that `fused` joins, which a calibration holds."""
        return tuple(term for term in self.terms if term.joined)

    @cached_property
    def quick(self) -> tuple[Term, ...]:
        """Of these, those that need neither critic nor training images."""
        return tuple(term for term in self.terms if term.is_quick)

    @cached_property
    def _packed(self) -> Trained:
        """The networks for passes without gradients."""
        networks = {name: packed(network) for name, network in self.networks.items()}
        return replace(self.trained, networks=networks)

    def response(self, queries: Tensor) -> Response:
        """What the networks make of queries, N x C x r x r as of `batches`; gradients flow where they are enabled."""
        return Response(self.method, self.trained, queries)

    def values(
        self,
        images: np.ndarray,
        terms: Sequence[Term] | None = None,
        batch: int | None = None,
        maps: Callable[[Response], Tensor] | None = None,
    ) -> Values:
        """images: uint8, N x H x W x C; H = W = a whole multiple of the networks' resolution.

        terms: those wanted (default: all); of those that compare with training images come the rows. maps: of what the
        networks make of n images, n x r x r; for a heat map that takes no pass of its own.
        """
        wanted = self.terms if terms is None else terms
        parts = [self._values(queries, wanted, maps) for queries in self.batches(images, batch)]
        if not parts:  # an image of zeros tells the shapes
            side = self.resolution
            black = torch.zeros(1, self.channels, side, side, device=self.device)
            parts = [{name: column[:0] for name, column in self._values(black, wanted, maps).items()}]
        columns = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
        z_hat, mapped = columns.pop("z_hat", None), columns.pop("maps", None)
        compared = [term.name for term in wanted if isinstance(term, Compared)]
        rows = {name: columns.pop(name) for name in compared}
        return Values({name: column.astype(np.float64) for name, column in columns.items()}, rows, z_hat, mapped)

    def heatmap(self, images: np.ndarray, batch: int | None = None) -> np.ndarray:
        """|w(Q) - w(R)|, averaged over channels: float32, N x r x r, in [0, 1]."""
        return self.maps(images, residual, batch)

    def maps(self, images: np.ndarray, of: Callable[[Response], Tensor], batch: int | None = None) -> np.ndarray:
        """Maps of images, of a kind as in heat.py: float32, N x r x r; UserError without closest matches."""
        self.method.check_reconstructs()
        result = self.values(images, (), batch, of).maps
        assert result is not None
        return result

    def seen(self, images: np.ndarray, batch: int | None = None) -> np.ndarray:
        """The images as the networks see them: float32, N x r x r x C, about [-1, 1]."""
        return torch.cat([q.permute(0, 2, 3, 1) for q in self.batches(images, batch)]).cpu().numpy()

    def reconstruct(self, images: np.ndarray, batch: int | None = None) -> np.ndarray:
        """The closest matches R = G(E(Q)): float32, N x r x r x C, about [-1, 1]."""
        self.method.check_reconstructs()
        pictures = [self._matches(q).permute(0, 2, 3, 1) for q in self.batches(images, batch)]
        shape = (0, self.resolution, self.resolution, self.channels)
        return torch.cat(pictures).cpu().numpy() if pictures else np.zeros(shape, np.float32)

    @property
    def reconstructs(self) -> bool:
        """Whether the method makes closest matches, without which there are no pictures of them and no heat maps."""
        return "reconstruct" in self.method.offers()

    def batches(self, images: np.ndarray, batch: int | None = None) -> Iterator[Tensor]:
        """Checked images as the networks see them: N x C x r x r each, N at most batch (default: by PIXELS)."""
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
        batch = batch or max(PIXELS[self.device.type] // self.resolution**2, 1)
        for start in range(0, len(images), batch):
            part = torch.from_numpy(np.array(images[start : start + batch])).to(self.device)  # a copy, writable
            yield faded(at_resolution(to_float(part, self.contrast), self.resolution), self.alpha)

    @torch.no_grad()
    def _matches(self, queries: Tensor) -> Tensor:
        return Response(self.method, self._packed, queries).matches

    @torch.no_grad()
    def _values(
        self, queries: Tensor, terms: Sequence[Term], maps: Callable[[Response], Tensor] | None
    ) -> dict[str, Tensor]:
        response = Response(self.method, self._packed, queries)
        result = {term.name: term.of(response) for term in terms}
        result |= {"maps": maps(response)} if maps else {}
        return result | ({"z_hat": response.z_hat} if response.is_encoded else {})


def _unallocated(config: TrainConfig, channels: int) -> dict[str, nn.Module]:
    """The networks that score, on the device `meta`: nothing is drawn, nor room taken, that a checkpoint replaces."""
    method = method_of(config)
    with torch.device("meta"):
        networks = method.networks(config, channels, 0).by_name()
    return {name: networks[name] for name in method.scores_with or networks}
