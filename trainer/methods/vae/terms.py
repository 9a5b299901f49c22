"""What a variational autoencoder says of an image, as terms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.methods.vae.networks import Normal
from trainer.methods.vae.step import divergence, drawn, negative_log_likelihood
from trainer.scoring.terms.base import Response, Term
from trainer.training import random


def _latent(response: Response) -> Normal:
    return response.shared(lambda: response.trained.networks["encoder"](response.queries), "latent")


def _unlikely(response: Response) -> Tensor:
    """-1/L sum over l of log p(x | z_l), z_l of q(z | x); the same L draws of noise for every query."""
    config, queries, latent = response.trained.config, response.queries, _latent(response)
    options: Any = getattr(config, "vae")  # noqa: B009
    numbers = torch.arange(options.draws, device=queries.device)
    noise = random.latents(config.seed, random.NOISE_AT_TEST, numbers, latent[0].shape[1])
    decoder = response.trained.networks["decoder"]
    result = [negative_log_likelihood(queries, decoder(drawn(latent, each))) for each in noise.unbind()]
    return torch.stack(result).mean(dim=0)


LIKELIHOOD = Term("nll", "negative log likelihood of an image, given latent vectors drawn for it, in nats", _unlikely)
DIVERGENCE = Term(
    "kl",
    "divergence of an image's latent distribution from the normal one, in nats",
    lambda response: divergence(_latent(response)),
)
