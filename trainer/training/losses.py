"""Objectives of adversarial training, as modules that own the whole computation (Berg et al. 2019, eq. 1).

Data parallel training wraps these modules, not the networks: a call that went past the wrapper to an inner network
would silently skip the reduction of its gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainer.training.timing import CRITIC_FORWARD, PENALTY, part

Where = Tensor | int | None
"""What networks take besides images or latents: growing ones resolution and alpha, others nothing."""


def frozen(network: nn.Module, *args: Where) -> Tensor:
    """Run a network with its weights held constant: gradients reach its inputs, never its parameters."""
    constants = {name: parameter.detach() for name, parameter in network.named_parameters()}
    return functional_call(network, constants, args)


def _slope(score: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The gradient of a sum of scores at images, which has gradients of its own."""
    if torch.compiler.is_compiling():  # which has no double backward, yet traces through this
        return torch.func.grad(score)(images)
    images.requires_grad_(True)
    (slope,) = torch.autograd.grad(score(images), images, create_graph=True)
    return slope


class CriticLoss(nn.Module):
    """E[D(fake)] - E[D(real)] + penalty E[(|grad D(x_hat)| - 1)^2] + drift E[D(real)^2].

    x_hat = real + u (fake - real), u uniform in [0, 1], one a sample.
    """

    def __init__(self, critic: nn.Module, penalty: float, drift: float, bf16: bool = False) -> None:
        super().__init__()
        self.critic = critic
        self.penalty, self.drift, self.bf16 = penalty, drift, bf16

    def forward(self, real: Tensor, fake: Tensor, u: Tensor, *where: Where) -> tuple[Tensor, dict[str, Tensor]]:
        """real, fake: N x C x r x r, N a multiple of 4; u: N x 1 x 1 x 1. Returns the loss and its parts."""
        with torch.autocast(real.device.type, torch.bfloat16, enabled=self.bf16):
            # One pass for both kinds: minibatch-stddev groups are runs of 4, so the two never share one.
            with part(CRITIC_FORWARD):
                real_scores, fake_scores = self.critic(torch.cat([real, fake]), *where).chunk(2)
            with part(PENALTY):
                mixed = torch.lerp(real, fake, u).detach()
                slope = _slope(lambda images: self.critic(images, *where).sum(), mixed)
        norm = slope.flatten(1).norm(dim=1)
        penalty = (norm - 1).square().mean()
        wasserstein = real_scores.mean() - fake_scores.mean()
        drift = real_scores.square().mean()
        loss = -wasserstein + self.penalty * penalty + self.drift * drift
        parts = {
            "critic/loss": loss,
            "critic/wasserstein": wasserstein,
            "critic/losing": (wasserstein < 0).float(),  # its mean is a share of steps
            "critic/penalty": penalty,
            "critic/slope": norm.mean(),
            "critic/drift": drift,
            "critic/score_real": real_scores.mean(),
            "critic/score_fake": fake_scores.mean(),
            "critic/spread_real": real.std(dim=0).mean(),
        }
        return loss, {name: part.detach() for name, part in parts.items()}


class GeneratorLoss(nn.Module):
    """-E[D(G(z))], of a generator trained without an encoder."""

    def __init__(self, generator: nn.Module, critic: nn.Module, bf16: bool = False) -> None:
        super().__init__()
        self.generator = generator
        self._critic = (critic,)  # in a tuple, so that the critic's parameters are not this module's
        self.bf16 = bf16

    def forward(self, z: Tensor, *where: Where) -> tuple[Tensor, dict[str, Tensor]]:
        """z: N x latent size, N a multiple of 4. Returns the loss and its parts."""
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.bf16):
            fake = self.generator(z, *where)
            loss = -frozen(self._critic[0], fake, *where).mean()
        return loss, {"generator/loss": loss.detach(), "generator/spread": fake.detach().std(dim=0).mean()}
