"""All that a detector computes with networks, as one module that torch.export and ONNX can take."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from trainer.methods.table import scorer
from trainer.scoring.heat import blurred, difference_map
from trainer.scoring.inference import negated_norm, normalised_residual
from trainer.scoring.judge import Judge
from trainer.scoring.terms import direction_distance
from trainer.training.batches import faded

OUTPUTS = ("L_n", "L_o", "D", "L_k", "heat")


class ScoringGraph(nn.Module):
    """Images to the terms of their score and their calibrated heat maps, each image by itself."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        detector, heat = judge.detector, judge.calibration.heat
        self.networks = nn.ModuleDict({name: copy.deepcopy(each).cpu() for name, each in detector.networks.items()})
        self.alpha = None if detector.alpha is None else detector.alpha.cpu()
        named = dict(self.networks.items())
        self.scorer = scorer(detector.config, named, detector.resolution, self.alpha, torch.device("cpu"))
        self.directions = nn.Buffer(torch.from_numpy(judge.calibration.directions))
        self.middle, self.spread = nn.Buffer(torch.from_numpy(heat.middle)), nn.Buffer(torch.from_numpy(heat.spread))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: float32 N x r x r x C in [0, 255]. Returns OUTPUTS: four of length N, and N x r x r."""
        queries = faded(images.permute(0, 3, 1, 2) / 127.5 - 1, self.alpha)
        z_hat = self.scorer.encode(queries)
        matches = self.scorer.generate(z_hat)
        residual, norm = normalised_residual(queries, matches), negated_norm(z_hat)
        distance = direction_distance(z_hat, self.directions)
        heat = (blurred(difference_map(queries, matches)) - self.middle) / self.spread
        return residual, norm, -self.scorer.criticise(queries), distance, heat
