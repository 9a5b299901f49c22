"""One step of GEOM: a batch of views, each under a transform of its own; then the fit of what is said of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.methods import method_of
from trainer.methods.base import Trained
from trainer.methods.geom.dirichlet import fitted
from trainer.methods.geom.networks import GeomNetworks
from trainer.methods.geom.terms import log_answers
from trainer.methods.geom.transforms import maps_on, transformed
from trainer.schedule import Phase
from trainer.training import random
from trainer.training.outlier_exposure import ExposedStep, Exposure
from trainer.training.sweep import find_once, swept

FITTED_TO = 2000
"""Training images, at most, that the Dirichlet distributions are fitted to, each under all transforms."""


class TransformLoss(nn.Module):
    """Cross entropy of the transform that each view went through; as an anomalous one a view has that to a guess.

    known: the share of the transforms' entropy that the classifier can tell; 0 for a guess, 1 where all is right.
    """

    def __init__(self, classifier: nn.Module, exposure: Exposure, bf16: bool = False) -> None:
        super().__init__()
        self.classifier, self.exposure, self.bf16 = classifier, exposure, bf16

    def forward(self, views: Tensor, transforms: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """views: N x C x r x r; transforms: N, int64. Returns the loss and its parts."""
        with torch.autocast(views.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.classifier(views)
        log_p = logits.log_softmax(dim=1)
        normal = -log_p.gather(1, transforms[:, None])[:, 0]
        loss, parts = self.exposure.joined(normal, -log_p.mean(dim=1))
        right = (logits.detach().argmax(dim=1) == transforms).float().mean()
        known = 1 - normal.detach().mean() / math.log(logits.shape[1])
        told = {"classifier/loss": loss.detach(), "classifier/accuracy": right, "classifier/known": known}
        return loss, told | parts


def transforms_of(seed: int, places: np.ndarray, samples: np.ndarray, images: int, count: int) -> Tensor:
    """Which of `count` transforms the view at each position is under; samples: whose image it is, of `images`.

    From pass to pass over the images each takes its next transform, from one that is its own: a view comes again when
    all have come.
    """
    u = random.uniforms(seed, random.FIRST_TRANSFORM, torch.from_numpy(samples), 4)[:, 0]
    return ((u * count).long() + torch.from_numpy(places // images)) % count


class GeomStep(ExposedStep):
    """One update of the classifier; or, in the second phase, none."""

    networks: GeomNetworks

    def objective(self, phase: Phase) -> nn.Module:
        options: Any = method_of(self.config)
        self.maps = maps_on(options.transforms, phase.resolution, self.device)
        return TransformLoss(self.networks.classifier, self.exposure, self.bf16)

    def inputs(self, images_seen: int) -> tuple[Tensor, ...]:
        places, positions = self._places(images_seen)
        samples = self.data.samples(places)
        transforms = transforms_of(self.config.seed, places, samples, len(self.data), len(self.maps)).to(self.device)
        return transformed(self._real(places, positions), self.maps[transforms]), transforms

    def begin(self, phase: Phase) -> None:
        super().begin(phase)
        if phase.kind == "fit":
            self.optimisers = {}
            usual = self.networks.usual
            find_once(self, phase, usual, lambda: usual.alphas.copy_(self._fit()))

    def run(self, images_seen: int) -> dict[str, Tensor]:
        if self.phase.kind == "fit":
            return {"usual/concentration": self.networks.usual.alphas.sum(dim=1).mean()}
        return super().run(images_seen)

    def _fit(self) -> Tensor:
        """Alphas of the training images' answers, T x T."""
        networks = {"classifier": self.networks.classifier}
        trained = Trained(self.config, networks, self.phase.resolution, None, self.device, self.contrast)
        return fitted(swept(self, self.phase, lambda images: log_answers(trained, images), FITTED_TO)).float()
