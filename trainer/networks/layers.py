"""Layers of the progressively grown networks (Karras et al. 2018, section 4 and appendix A)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GAIN_RELU = math.sqrt(2)
SLOPE = 0.2
"""Of the leaky ReLU, below zero."""


def at_least_float32(x: Tensor) -> Tensor:
    """Bring half precision up to float32; leave float32 and float64 alone."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def leaky_relu(x: Tensor) -> Tensor:
    """Slope 0.2. x is a layer's own output: where no gradient is wanted it is overwritten, which saves a tenth."""
    return F.leaky_relu(x, SLOPE, inplace=not torch.is_grad_enabled())


def pixel_norm(x: Tensor) -> Tensor:
    """Scale every feature vector (dimension 1) to a mean square of one, eps 1e-8."""
    wide = at_least_float32(x)
    return (wide * _to_unit(wide)).to(x.dtype)


def pixel_norm_of_layer(x: Tensor) -> Tensor:
    """The same of a layer's own output, overwritten where no gradient is wanted."""
    if torch.is_grad_enabled() or at_least_float32(x) is not x:
        return pixel_norm(x)
    return x.mul_(_to_unit(x))


def _to_unit(x: Tensor) -> Tensor:
    return torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def upsample(images: Tensor) -> Tensor:
    """Nearest-neighbour, N x C x H x W to N x C x 2H x 2W."""
    return F.interpolate(images, scale_factor=2, mode="nearest")


def downsample(images: Tensor, factor: int = 2) -> Tensor:
    """Average over squares, N x C x H x W to N x C x H/factor x W/factor."""
    n, c, h, w = images.shape
    if c == 1:  # as a stack of planes, and back to channels last, where pooling of one channel goes number by number
        return F.avg_pool2d(images.reshape(n, h, w), factor).unsqueeze(-1).permute(0, 3, 1, 2)
    return F.avg_pool2d(images, factor)


def minibatch_stddev(x: Tensor, group: int) -> Tensor:
    """Append one map: the standard deviation over each run of `group` samples, averaged over all features.

    x: N x C x H x W with N a multiple of `group`. Computed in float32, eps 1e-8. With group 1 the map is a
    constant, so that a sample's output depends on that sample alone: that is how queries are scored.
    """
    n, c, h, w = x.shape
    groups = at_least_float32(x).reshape(n // group, group, c, h, w)
    deviation = (groups - groups.mean(dim=1, keepdim=True)).square().mean(dim=1).add(1e-8).sqrt()
    statistic = deviation.mean(dim=(1, 2, 3)).repeat_interleave(group)
    return torch.cat([x, statistic.to(x.dtype).view(n, 1, 1, 1).expand(n, 1, h, w)], dim=1)


class EqualisedConv(nn.Module):
    """Convolution whose weights are drawn N(0, 1) and scaled at run time by gain / sqrt(fan in); leaky: then the ReLU.

    resample "up" is nearest x2 followed by the convolution, "down" the convolution followed by 2 x 2 averages;
    both fused into one convolution with stride 2 whose 4 x 4 kernel sums four shifted copies of the 3 x 3 one
    (the same function with fewer operations; "up" holds its kernel mirrored, as a transposed convolution wants it).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        gain: float = GAIN_RELU,
        resample: str = "",
        leaky: bool = False,
    ) -> None:
        super().__init__()
        shape = (inputs, outputs) if resample == "up" else (outputs, inputs)
        self.weight = nn.Parameter(torch.randn(*shape, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / math.sqrt(inputs * kernel * kernel)
        self.resample, self.leaky = resample, leaky
        self.stride, self.padding = (2, 1) if resample else (1, kernel // 2)

    @property
    def kernel(self) -> Tensor:
        """The weights that convolve: scaled, and summed where it resamples."""
        weight = self.weight * self.scale
        if not self.resample:
            return weight
        means = F.avg_pool2d(weight, 2, stride=1, padding=1)
        return means * 4 if self.resample == "up" else means

    def forward(self, x: Tensor) -> Tensor:
        return self.convolved(x, self.kernel)

    def convolved(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Its output by a kernel that is known already."""
        convolve = F.conv_transpose2d if self.resample == "up" else F.conv2d
        result = convolve(x, kernel, self.bias, stride=self.stride, padding=self.padding)
        return leaky_relu(result) if self.leaky else result


class EqualisedLinear(nn.Module):
    """Dense layer, weights scaled at run time by gain / sqrt(fan in); N x inputs to N x outputs."""

    def __init__(self, inputs: int, outputs: int, gain: float = GAIN_RELU, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)
