"""One step of Deep SVDD: an autoencoder, then its encoder, drawn to the centre of its codes (Ruff et al. 2018)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.methods import method_of
from trainer.methods.ae.step import squared_errors
from trainer.methods.svdd.networks import SvddNetworks
from trainer.schedule import Phase
from trainer.training.group import gathered
from trainer.training.outlier_exposure import ExposedStep, Exposure
from trainer.training.sweep import find_once, swept

MIN_CENTRE = 0.1
"""Of a number of the centre, by its absolute value, unless it is 0: what is nearer is too easily reached by all."""
MIN_DISTANCE = 1e-6
"""Below it 1 / d grows no further."""
WARM_UP = 1 / 15
"""Share of the second phase, the authors' 10 of 150 epochs, before which a soft boundary has radius 0."""


def normalised(images: Tensor) -> Tensor:
    """Each image by itself at mean 0 and mean absolute value 1 over pixels and channels; a constant one is 0."""
    flat = images.flatten(1)
    centred = flat - flat.mean(dim=1, keepdim=True)
    scale = centred.abs().mean(dim=1, keepdim=True).clamp_min(1e-3)
    return (centred / scale).view_as(images)


def centre_of(codes: Tensor) -> Tensor:
    """The mean of codes, N x code size, none of whose numbers lies nearer to 0 than MIN_CENTRE, unless it is 0."""
    mean = codes.double().mean(dim=0)
    return torch.where(mean.abs() < MIN_CENTRE, MIN_CENTRE * mean.sign(), mean).float()


def radius_of(distances: Tensor, nu: float) -> Tensor:
    """The radius R beyond which a share nu of squared distances lie."""
    return distances.detach().sqrt().quantile(1 - nu)


def soft_loss(distances: Tensor, radius: Tensor, nu: float) -> Tensor:
    """R^2 + 1 / (nu n) sum max(0, d - R^2)."""
    return radius**2 + (distances - radius**2).clamp_min(0).mean() / nu


class CodeLoss(nn.Module):
    """The mean squared error of images reconstructed from their codes."""

    def __init__(self, networks: SvddNetworks, bf16: bool = False) -> None:
        super().__init__()
        self.encoder, self.decoder, self.bf16 = networks.encoder, networks.decoder, bf16

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images: N x C x r x r. Returns the loss and its parts."""
        images = normalised(images)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            matches = self.decoder(self.encoder(images))
        loss = squared_errors(images, matches).mean()
        return loss, {"autoencoder/loss": loss.detach()}


class SphereLoss(nn.Module):
    """The mean squared distance d from the centre, 1 / d of an anomalous image; or the soft boundary's loss."""

    def __init__(self, networks: SvddNetworks, soft: bool, nu: float, exposure: Exposure, bf16: bool = False) -> None:
        super().__init__()
        self.encoder, self._sphere = networks.encoder, (networks.sphere,)  # in a tuple: it does not learn
        self.soft, self.nu, self.exposure, self.bf16 = soft, nu, exposure, bf16

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images: N x C x r x r. Returns the loss and its parts."""
        (sphere,) = self._sphere
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            codes = self.encoder(normalised(images))
        distances = sphere.distances(codes)
        loss, parts = self.exposure.joined(distances, 1 / distances.clamp_min(MIN_DISTANCE))
        if self.soft:
            loss = soft_loss(distances, sphere.radius, self.nu)
        parts |= {"sphere/loss": loss.detach(), "sphere/distance": distances.detach().mean()}
        if self.soft:
            parts |= {"sphere/radius": sphere.radius.clone(), "sphere/next_radius": self._next(distances)}
        return loss, parts

    def _next(self, distances: Tensor) -> Tensor:
        """The radius after this step, of the global batch."""
        return radius_of(gathered(self.exposure.group, distances.detach()), self.nu)


class SvddStep(ExposedStep):
    """One update of encoder and decoder, or of the encoder alone."""

    networks: SvddNetworks

    def objective(self, phase: Phase) -> nn.Module:
        options: Any = method_of(self.config)
        if phase.kind == "autoencoder":
            return CodeLoss(self.networks, self.bf16)
        sphere = self.networks.sphere
        find_once(self, phase, sphere, lambda: sphere.centre.copy_(centre_of(self._codes(phase))))
        return SphereLoss(self.networks, options.boundary == "soft", options.nu, self.exposure, self.bf16)

    def _codes(self, phase: Phase) -> Tensor:
        return swept(self, phase, lambda images: self.networks.encoder(normalised(images)))

    def run(self, images_seen: int) -> dict[str, Tensor]:
        parts = super().run(images_seen)
        following = parts.pop("sphere/next_radius", None)
        warm = images_seen - self.phase.start >= WARM_UP * (self.phase.end - self.phase.start)
        if following is not None and warm:
            self.networks.sphere.radius.copy_(following)
        return parts
