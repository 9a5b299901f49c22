"""Generator, critic and encoder: progressively grown, all levels present from the start.

A network is built for its final resolution and run at any resolution from 4 up. `alpha` is the fade factor:
None outside a fade, else a scalar tensor in [0, 1] that blends the newest level in (Berg et al. 2019, appendix A;
Karras et al. 2018, figure 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.networks.base import NetworkSet
from trainer.networks.layers import (
    GAIN_RELU,
    EqualisedConv,
    EqualisedLinear,
    at_least_float32,
    downsample,
    leaky_relu,
    minibatch_stddev,
    pixel_norm,
    pixel_norm_of_layer,
    upsample,
)
from trainer.private import channels_last
from trainer.schedule import STDDEV_GROUP, resolutions


def feature_maps(resolution: int, width: int) -> int:
    """Number of feature maps at a resolution: `width` up to 32 x 32, then halved with each doubling.

    At width 512 this is min(8192 / 2^s, 512) for resolution 2^(s+1).
    """
    return min(32 * width // resolution, width)


class GeneratorBlock(nn.Module):
    """One level of the generator: x2, two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = EqualisedConv(inputs, outputs, 3, resample="up", leaky=True)
        self.conv = EqualisedConv(outputs, outputs, 3, leaky=True)

    def forward(self, x: Tensor) -> Tensor:
        return pixel_norm_of_layer(self.conv(pixel_norm_of_layer(self.up(x))))


class TrunkBlock(nn.Module):
    """One level of the critic or the encoder: two convolutions, /2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = EqualisedConv(inputs, inputs, 3, leaky=True)
        self.down = EqualisedConv(inputs, outputs, 3, resample="down", leaky=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.conv(x))


class Generator(nn.Module):
    """z (N x width) to images (N x channels x r x r), linear output, trained towards [-1, 1]."""

    def __init__(self, resolution: int, channels: int, width: int) -> None:
        super().__init__()
        maps = {r: feature_maps(r, width) for r in resolutions(resolution)}
        self.latent_size = width
        self.dense = EqualisedLinear(width, maps[4] * 16, gain=GAIN_RELU / 4, bias=False)
        self.dense_bias = nn.Parameter(torch.zeros(maps[4]))  # one bias a feature map, not one a pixel
        self.conv = EqualisedConv(maps[4], maps[4], 3, leaky=True)
        self.blocks = nn.ModuleDict({str(r): GeneratorBlock(maps[r // 2], maps[r]) for r in maps if r > 4})
        self.to_rgb = nn.ModuleDict({str(r): EqualisedConv(maps[r], channels, 1, gain=1.0) for r in maps})

    def forward(self, z: Tensor, resolution: int, alpha: Tensor | None = None) -> Tensor:
        x = self.dense(pixel_norm(z)).view(z.shape[0], -1, 4, 4) + self.dense_bias.view(1, -1, 1, 1)
        x = pixel_norm_of_layer(leaky_relu(channels_last(x)))
        x = previous = pixel_norm_of_layer(self.conv(x))
        for r in resolutions(resolution)[1:]:
            previous, x = x, self.blocks[str(r)](x)
        images = at_least_float32(self.to_rgb[str(resolution)](x))
        if alpha is None:
            return images
        low = at_least_float32(self.to_rgb[str(resolution // 2)](previous))
        return torch.lerp(upsample(low), images, alpha)


class Encoder(nn.Module):
    """Images (N x channels x r x r) to z_hat (N x width): the critic without its last dense layer.

    group: the size of the minibatch-stddev groups; 1 makes each output a function of its own image alone.
    """

    def __init__(self, resolution: int, channels: int, width: int) -> None:
        super().__init__()
        maps = {r: feature_maps(r, width) for r in resolutions(resolution)}
        self.from_rgb = nn.ModuleDict({str(r): EqualisedConv(channels, maps[r], 1, leaky=True) for r in maps})
        self.blocks = nn.ModuleDict({str(r): TrunkBlock(maps[r], maps[r // 2]) for r in maps if r > 4})
        self.conv = EqualisedConv(maps[4] + 1, maps[4], 3, leaky=True)
        self.dense = EqualisedLinear(maps[4] * 16, width)

    def forward(
        self, images: Tensor, resolution: int, alpha: Tensor | None = None, group: int = STDDEV_GROUP
    ) -> Tensor:
        x = self.features(images, resolution, alpha)
        x = self.conv(minibatch_stddev(x, group))
        return at_least_float32(leaky_relu(self.dense(x.flatten(1))))

    def features(self, images: Tensor, resolution: int, alpha: Tensor | None = None) -> Tensor:
        """What is known of each image by itself at 4x4, before the minibatch-stddev: N x width x 4 x 4."""
        x = self.from_rgb[str(resolution)](images)
        for r in reversed(resolutions(resolution)[1:]):
            x = self.blocks[str(r)](x)
            if alpha is not None and r == resolution:
                low = self.from_rgb[str(r // 2)](downsample(images))
                x = torch.lerp(low, x, alpha.to(x.dtype))
        return x


class Critic(nn.Module):
    """Images (N x channels x r x r) to scores (N), float32."""

    def __init__(self, resolution: int, channels: int, width: int) -> None:
        super().__init__()
        self.trunk = Encoder(resolution, channels, width)
        self.score = EqualisedLinear(width, 1, gain=1.0)

    def forward(
        self, images: Tensor, resolution: int, alpha: Tensor | None = None, group: int = STDDEV_GROUP
    ) -> Tensor:
        features = self.trunk(images, resolution, alpha, group)
        with torch.autocast(images.device.type, enabled=False):
            return self.score(features).squeeze(1)


def used_parameters(network: nn.Module, resolution: int, fading: bool) -> Iterator[nn.Parameter]:
    """The parameters that take part at this resolution, in a fixed order.

    Blocks above the resolution sleep, as do all ToRGB and FromRGB layers but the newest (and, in a fade, the one
    below it).
    """
    awake = {str(resolution)} | ({str(resolution // 2)} if fading else set())
    for name, parameter in network.named_parameters():
        parts = name.split(".")
        if "blocks" in parts and int(parts[parts.index("blocks") + 1]) > resolution:
            continue
        ends = [part for part in ("to_rgb", "from_rgb") if part in parts]
        if ends and parts[parts.index(ends[0]) + 1] not in awake:
            continue
        yield parameter


def wake(network: nn.Module, resolution: int, fading: bool) -> list[nn.Parameter]:
    """Let gradients flow to `used_parameters` and to no others; return them."""
    network.requires_grad_(False)
    used = list(used_parameters(network, resolution, fading))
    for parameter in used:
        parameter.requires_grad_(True)
    return used


@dataclass(frozen=True)
class Networks(NetworkSet):
    """Of the method itself; `ema` is the generator's moving average, the one that scores."""

    generator: Generator
    critic: Critic
    encoder: Encoder
    ema: Generator

    @staticmethod
    def build(resolution: int, channels: int, width: int, seed: int) -> Networks:
        """Freshly drawn networks, a function of the seed alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            sizes = (resolution, channels, width)
            generator, critic, encoder, ema = Generator(*sizes), Critic(*sizes), Encoder(*sizes), Generator(*sizes)
        ema.load_state_dict(generator.state_dict())
        ema.requires_grad_(False)
        return Networks(generator, critic, encoder, ema)


@dataclass(frozen=True)
class SearchNetworks(NetworkSet):
    """The same without an encoder, for AnoGAN's iterative search."""

    generator: Generator
    critic: Critic
    ema: Generator

    @staticmethod
    def build(resolution: int, channels: int, width: int, seed: int) -> SearchNetworks:
        """Freshly drawn networks: those of `Networks.build` at the same seed, but for the encoder."""
        n = Networks.build(resolution, channels, width, seed)
        return SearchNetworks(n.generator, n.critic, n.ema)
