"""One step of the growing networks without an encoder."""

from __future__ import annotations

from torch import nn

from trainer.methods.proposed.step import GrowingStep
from trainer.networks.progressive import SearchNetworks
from trainer.training.losses import GeneratorLoss


class SearchStep(GrowingStep):
    """As the proposed method's, whose generator learns from the critic alone."""

    networks: SearchNetworks

    def generator_objective(self) -> nn.Module:
        return GeneratorLoss(self.networks.generator, self.networks.critic, self.bf16)
