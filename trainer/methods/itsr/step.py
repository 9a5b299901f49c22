"""The step of ITSR: an adversarial autoencoder's, with weights of training images that a sweep finds before a phase."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.svm import OneClassSVM
from torch import Tensor

from trainer.methods.aae.step import AaeStep
from trainer.methods.ae.step import squared_errors
from trainer.schedule import Phase
from trainer.training.sweep import find_once, swept

FITTED_TO = 20_000
"""Codes, at most, that the one-class SVM is fitted to, drawn by the seed: its cost grows with their square."""
TOLERANCE = 1e-6
"""Of the SVM's fit: codes on its boundary are off it by about as much, and are not outside."""


def outside(codes: np.ndarray, nu: float, seed: int) -> np.ndarray:
    """Which codes, n x code size, lie outside a one-class SVM of them (RBF, Schoelkopf et al. 2001): bool n.

    At most a share nu of those that it is fitted to.
    """
    some = codes
    if len(codes) > FITTED_TO:
        some = codes[np.random.default_rng(seed).choice(len(codes), FITTED_TO, replace=False)]
    boundary = OneClassSVM(kernel="rbf", nu=nu, gamma="scale", tol=TOLERANCE).fit(some)
    return boundary.decision_function(codes) < -10 * TOLERANCE


def negated(rejected: np.ndarray, errors: np.ndarray, quantile: float, weight: float) -> np.ndarray:
    """Weights for the last phase, n: 1; of rejected images 0, or -weight times their share where errors are great."""
    great = errors > np.quantile(errors, quantile)
    return np.where(rejected, np.where(great, -weight * rejected.mean(), 0.0), 1.0)


class ItsrStep(AaeStep):
    """Three updates on one batch, each image by its weight."""

    def begin(self, phase: Phase) -> None:
        if phase.kind != "all":
            find_once(self, phase, self.networks.weights_of_images, lambda: self._weigh(phase))
        super().begin(phase)

    def _weigh(self, phase: Phase) -> None:
        options, weights = self.options, self.networks.weights_of_images.of_samples
        rows = swept(self, phase, self._codes_and_errors).double().cpu().numpy()
        codes, errors = rows[:, :-1], rows[:, -1]
        places = self.data.samples(np.arange(len(rows)))
        before = weights.cpu().numpy()[places] != 1
        if phase.kind == "last":
            new = negated(before, errors, options.error_quantile, options.negative_weight)
        else:
            rejected = outside(codes, options.nu, self.config.seed)
            new = np.where(rejected | before if options.adds_up else rejected, 0.0, 1.0)
        weights[torch.from_numpy(places)] = torch.from_numpy(new).to(weights)

    def _codes_and_errors(self, images: Tensor) -> Tensor:
        codes = self.networks.encoder(images)
        errors = squared_errors(images, self.networks.decoder(codes))
        return torch.cat([codes, errors[:, None]], dim=1)
