"""adgan: what is left of the distance between an image and what a bent generator makes, the mean over starts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from trainer.methods.adgan.descent import distances_left
from trainer.scoring.terms.base import Response, Term
from trainer.training.random import SEARCH_START, latents

QUERIES = 8
"""Searched for at a time: each start of each has weights of its own."""


def _adgan(response: Response) -> Tensor:
    trained, queries = response.trained, response.queries
    options: Any = getattr(trained.config, "adgan")  # noqa: B009
    generator = trained.networks["ema"]

    def generate(weights: dict[str, Tensor], z: Tensor) -> Tensor:
        where = (trained.resolution, trained.alpha)
        return functional_call(generator, weights, (z[None], *where))[0]  # type: ignore[no-any-return]

    weights = {name: p.detach() for name, p in generator.named_parameters()}
    starts = latents(trained.config.seed, SEARCH_START, torch.arange(options.starts), trained.config.width)
    rates = (options.latent_rate, options.weight_rate)
    parts = [
        distances_left(some, generate, weights, starts.to(queries.device), options.steps, *rates)
        for some in queries.split(QUERIES)
    ]
    return torch.cat(parts).mean(dim=1)


ADGAN = Term(
    "adgan", "distance to the closest match of a generator fitted to the image itself, mean over starts", _adgan
)
