"""Packed networks compute what the plain ones do, and share their weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.networks.packed import PackedConv, packed
from trainer.networks.progressive import Networks

NETWORKS = Networks.build(16, 3, 12, seed=1)
FADE = torch.tensor(0.3)


def of_images(network: nn.Module, images: torch.Tensor, resolution: int, alpha: torch.Tensor | None) -> torch.Tensor:
    return network(images, resolution, alpha, group=1)


@pytest.mark.parametrize("resolution, alpha", [(16, None), (16, FADE), (8, None), (8, FADE), (4, None)])
@pytest.mark.parametrize("count", [1, 5, 64])
def test_packed_networks_compute_the_same(resolution: int, alpha: torch.Tensor | None, count: int) -> None:
    torch.manual_seed(0)
    z, images = torch.randn(count, 12), torch.randn(count, 3, resolution, resolution)
    with torch.no_grad():
        for network in (NETWORKS.critic, NETWORKS.encoder):
            before = images.clone()
            ours = of_images(packed(network), images, resolution, alpha)
            torch.testing.assert_close(ours, of_images(network, images, resolution, alpha), rtol=1e-4, atol=1e-5)
            assert torch.equal(images, before)
        before = z.clone()
        ours = packed(NETWORKS.ema)(z, resolution, alpha)
        torch.testing.assert_close(ours, NETWORKS.ema(z, resolution, alpha), rtol=1e-4, atol=1e-5)
        assert torch.equal(z, before)


def test_every_convolution_is_packed_and_no_weight_is_copied() -> None:
    result = packed(NETWORKS.critic)
    convolutions = [each for each in NETWORKS.critic.modules() if type(each).__name__ == "EqualisedConv"]
    assert sum(isinstance(each, PackedConv) for each in result.modules()) == len(convolutions)
    assert {id(p) for p in result.parameters()} == {id(p) for p in NETWORKS.critic.parameters()}
    assert not any(isinstance(each, PackedConv) for each in NETWORKS.critic.modules())


def test_gradients_flow_as_through_the_plain_one() -> None:
    def slope(network: nn.Module) -> torch.Tensor:
        images = torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8).requires_grad_(True)
        (result,) = torch.autograd.grad(of_images(network, images, 8, None).sum(), images)
        return result

    assert torch.equal(slope(packed(NETWORKS.critic)), slope(NETWORKS.critic))


def test_what_cannot_be_packed_stays_as_it_is() -> None:
    double = Networks.build(8, 1, 4, seed=0).critic.double()
    assert packed(double) is double
    other = nn.Linear(2, 2)
    assert packed(other) is other
