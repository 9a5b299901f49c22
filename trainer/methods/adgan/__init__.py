"""ADGAN (Deecke et al. 2018): a search in which each query bends a generator of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.methods.base import Method, check_at_most
from trainer.methods.search import Search

if TYPE_CHECKING:
    from trainer.config import TrainConfig
    from trainer.scoring.terms.base import Term


@dataclass(frozen=True)
class Adgan(Method):
    """A search at test time, from several starts, for the latent vector and the generator's weights together; the mean
    distance that remains says how unusual an image is (ADGAN, Deecke et al. 2018).

    Its scoring of the growing networks without encoder, those of `search`. Step sizes and counts are the authors'.
    """

    starts: int = 8
    """Starting points of each query."""
    steps: int = 5
    """Updates of latent vector and weights."""
    latent_rate: float = 0.25
    """Adam's step size for the latent vector."""
    weight_rate: float = 5e-5
    """Adam's step size for the weights."""

    title = "ADGAN"
    known_by = "adgan"
    ablation = True  # the proposed method's networks, less the encoder
    scores_with = ("ema", "critic")

    minibatches = Search.minibatches
    schedule = Search.schedule
    z_size = Search.z_size
    networks = Search.networks
    step = Search.step
    ready = Search.ready
    generate = Search.generate
    criticise = Search.criticise
    features = Search.features

    def check(self, config: TrainConfig) -> None:
        super().check(config)
        check_at_most("--adgan.steps", self.steps, 10**6)
        check_at_most("--adgan.starts", self.starts, 2**12)

    def own_terms(self) -> tuple[Term, ...]:
        from trainer.methods.adgan.terms import ADGAN

        return (ADGAN,)
