"""The step as plain public code has it, to compare with in speed and, in float32 and float64, in gradients.

Float32, NCHW, resampling apart from convolution, one pass each for real, fake and mixed images, weights of the critic
that take gradients from the generator's pass, Adam and moving average by a loop over parameters. The weights are those
of `Networks`, so that both compute the same function.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import TrainConfig
from trainer.networks.layers import EqualisedConv, EqualisedLinear
from trainer.networks.progressive import STDDEV_GROUP, Critic, Encoder, Generator, Networks, resolutions


def conv(layer: EqualisedConv, x: Tensor) -> Tensor:
    weight = layer.weight * layer.scale
    if layer.resample == "up":  # kept as a transposed convolution wants it
        weight = weight.transpose(0, 1).flip(2, 3)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
    x = F.conv2d(x, weight, layer.bias, padding=weight.shape[-1] // 2)
    return F.avg_pool2d(x, 2) if layer.resample == "down" else x


def linear(layer: EqualisedLinear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight * layer.scale, layer.bias)


def relu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def pixel_norm(x: Tensor) -> Tensor:
    return x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)


def generate(g: Generator, z: Tensor, resolution: int, alpha: Tensor | None) -> Tensor:
    x = linear(g.dense, pixel_norm(z)).view(len(z), -1, 4, 4) + g.dense_bias.view(1, -1, 1, 1)
    x = pixel_norm(relu(x))
    x = previous = pixel_norm(relu(conv(g.conv, x)))
    for r in resolutions(resolution)[1:]:
        block, previous = g.blocks[str(r)], x
        x = pixel_norm(relu(conv(block.up, x)))  # type: ignore[arg-type]
        x = pixel_norm(relu(conv(block.conv, x)))  # type: ignore[arg-type]
    images = conv(g.to_rgb[str(resolution)], x)  # type: ignore[arg-type]
    if alpha is None:
        return images
    low = F.interpolate(conv(g.to_rgb[str(resolution // 2)], previous), scale_factor=2)  # type: ignore[arg-type]
    return alpha * images + (1 - alpha) * low


def encode(e: Encoder, images: Tensor, resolution: int, alpha: Tensor | None) -> Tensor:
    x = relu(conv(e.from_rgb[str(resolution)], images))  # type: ignore[arg-type]
    for r in reversed(resolutions(resolution)[1:]):
        block = e.blocks[str(r)]
        x = relu(conv(block.down, relu(conv(block.conv, x))))  # type: ignore[arg-type]
        if alpha is not None and r == resolution:
            low = relu(conv(e.from_rgb[str(r // 2)], F.avg_pool2d(images, 2)))  # type: ignore[arg-type]
            x = alpha * x + (1 - alpha) * low
    groups = x.view(-1, STDDEV_GROUP, *x.shape[1:])
    deviation = torch.sqrt(((groups - groups.mean(1, keepdim=True)) ** 2).mean(1) + 1e-8).mean((1, 2, 3))
    statistic = deviation.repeat_interleave(STDDEV_GROUP).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    x = relu(conv(e.conv, torch.cat([x, statistic], 1)))
    return relu(linear(e.dense, x.flatten(1)))


def criticise(d: Critic, images: Tensor, resolution: int, alpha: Tensor | None) -> Tensor:
    return linear(d.score, encode(d.trunk, images, resolution, alpha)).squeeze(1)


class PlainStep:
    """One update of everything, given real images."""

    def __init__(self, networks: Networks, config: TrainConfig, resolution: int) -> None:
        self.networks, self.config, self.resolution = networks, config, resolution
        n, options = networks, {"lr": config.learning_rate, "betas": (0.0, 0.99), "foreach": False}
        self.critic_adam = torch.optim.Adam(n.critic.parameters(), **options)  # type: ignore[arg-type]
        self.generator_adam = torch.optim.Adam([*n.generator.parameters(), *n.encoder.parameters()], **options)  # type: ignore[arg-type]

    def critic_loss(self, real: Tensor, fake: Tensor, u: Tensor, alpha: Tensor | None) -> Tensor:
        d, c, r = self.networks.critic, self.config, self.resolution
        of_real, of_fake = criticise(d, real, r, alpha), criticise(d, fake, r, alpha)
        mixed = (real + u * (fake - real)).requires_grad_(True)
        (slope,) = torch.autograd.grad(criticise(d, mixed, r, alpha).sum(), mixed, create_graph=True)
        penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
        return of_fake.mean() - of_real.mean() + c.penalty * penalty + c.drift * (of_real**2).mean()

    def generator_loss(self, z: Tensor, alpha: Tensor | None) -> Tensor:
        n, r = self.networks, self.resolution
        fake = generate(n.generator, z, r, alpha)
        again = generate(n.generator, encode(n.encoder, fake, r, alpha), r, alpha)
        return -criticise(n.critic, fake, r, alpha).mean() + self.config.distance_weight * (fake - again).abs().mean()

    def update_critic(self, real: Tensor, z: Tensor, u: Tensor, alpha: Tensor | None) -> None:
        """And the moving average of the generator."""
        n = self.networks
        with torch.no_grad():
            fake = generate(n.generator, z, self.resolution, alpha)
        self.critic_adam.zero_grad()
        self.critic_loss(real, fake, u, alpha).backward()
        self.critic_adam.step()
        with torch.no_grad():
            for average, parameter in zip(n.ema.parameters(), n.generator.parameters(), strict=True):
                average.mul_(self.config.ema_decay).add_(parameter, alpha=1 - self.config.ema_decay)

    def update_generator(self, z: Tensor, alpha: Tensor | None) -> None:
        """And the encoder."""
        self.generator_adam.zero_grad()
        self.generator_loss(z, alpha).backward()
        self.generator_adam.step()
