"""Generator, critic and encoder against the paper's parameter counts and the definition of growth."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trainer.networks.layers import EqualisedConv, downsample, leaky_relu, minibatch_stddev, pixel_norm, upsample
from trainer.networks.progressive import Critic, Encoder, Generator, feature_maps, used_parameters, wake


@pytest.mark.parametrize(
    ("network", "resolution", "channels", "parameters"),
    [
        (Generator, 64, 1, 22_485_765),
        (Critic, 64, 1, 22_493_441),
        (Encoder, 64, 1, 22_492_928),
        (Generator, 32, 3, 20_719_628),
        (Critic, 32, 3, 20_726_785),
        (Encoder, 32, 3, 20_726_272),
    ],
)
def test_parameter_counts_are_the_papers(network, resolution, channels, parameters):
    with torch.device("meta"):
        built = network(resolution, channels, 512)
    assert sum(p.numel() for p in built.parameters()) == parameters


def test_feature_maps_follow_the_papers_formula():
    for s in range(1, 9):
        assert feature_maps(2 ** (s + 1), 512) == min(8192 // 2**s, 512)


def small(network, resolution=16, channels=2, width=8):
    torch.manual_seed(3)
    return network(resolution, channels, width).double()


ZERO, ONE, HALF = (torch.tensor(x, dtype=torch.float64) for x in (0.0, 1.0, 0.5))


@pytest.mark.parametrize("resolution", [8, 16])
def test_generator_fade(resolution):
    g, z = small(Generator), torch.randn(4, 8, dtype=torch.float64)
    torch.testing.assert_close(g(z, resolution, ZERO), upsample(g(z, resolution // 2)))
    torch.testing.assert_close(g(z, resolution, ONE), g(z, resolution))
    middle = (upsample(g(z, resolution // 2)) + g(z, resolution)) / 2
    torch.testing.assert_close(g(z, resolution, HALF), middle)


@pytest.mark.parametrize("network", [Critic, Encoder])
@pytest.mark.parametrize("resolution", [8, 16])
def test_critic_and_encoder_fade(network, resolution):
    net = small(network)
    x = torch.randn(8, 2, resolution, resolution, dtype=torch.float64)
    torch.testing.assert_close(net(x, resolution, ZERO), net(downsample(x), resolution // 2))
    torch.testing.assert_close(net(x, resolution, ONE), net(x, resolution))


@pytest.mark.parametrize("network", [Generator, Critic, Encoder])
def test_at_alpha_one_the_old_branch_has_no_influence(network):
    net = small(network)
    x = torch.randn(4, 8) if network is Generator else torch.randn(4, 2, 16, 16)
    before = net(x.double(), 16, ONE)
    ends = net.to_rgb if network is Generator else (net.trunk if network is Critic else net).from_rgb
    with torch.no_grad():
        for parameter in ends["8"].parameters():
            parameter.normal_(0, 100)
    torch.testing.assert_close(net(x.double(), 16, ONE), before)


@pytest.mark.parametrize("network", [Generator, Critic, Encoder])
@pytest.mark.parametrize(("resolution", "alpha"), [(4, None), (8, HALF), (8, None), (16, HALF), (16, None)])
def test_exactly_the_woken_parameters_receive_gradients(network, resolution, alpha):
    """Data parallel training needs this: a sleeping parameter with a gradient, or the reverse, would hang it."""
    net = small(network)
    woken = wake(net, resolution, fading=alpha is not None)
    x = torch.randn(4, 8) if network is Generator else torch.randn(4, 2, resolution, resolution)
    net(x.double(), resolution, alpha).square().sum().backward()
    assert {id(p) for p in net.parameters() if p.grad is not None} == {id(p) for p in woken}
    assert [id(p) for p in used_parameters(net, resolution, alpha is not None)] == [id(p) for p in woken]


def test_fused_resampling_is_the_plain_composition():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    up, down = (EqualisedConv(3, 5, 3, resample=way).double() for way in ("up", "down"))
    mirrored = (up.weight * up.scale).transpose(0, 1).flip(2, 3)
    torch.testing.assert_close(up(x), F.conv2d(upsample(x), mirrored, up.bias, padding=1))
    plain = F.avg_pool2d(F.conv2d(x, down.weight * down.scale, down.bias, padding=1), 2)
    torch.testing.assert_close(down(x), plain)


def test_initial_activations_have_unit_scale():
    """What the run-time scaling is for: a N(0, 1) input comes out with a mean square near one."""
    torch.manual_seed(0)
    conv = EqualisedConv(64, 64, 3)
    assert leaky_relu(conv(torch.randn(8, 64, 16, 16))).square().mean().item() == pytest.approx(1, rel=0.15)


def test_pixel_norm_gives_mean_square_one():
    x = torch.randn(3, 16, 4, 4, dtype=torch.float64) * 7
    torch.testing.assert_close(pixel_norm(x).square().mean(1), torch.ones(3, 4, 4, dtype=torch.float64))


def test_stddev_groups_are_runs_of_consecutive_samples():
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    statistic = minibatch_stddev(x, 4)[:, 3]
    for group in (slice(0, 4), slice(4, 8)):
        expected = (x[group].var(dim=0, correction=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(statistic[group], expected.expand(4, 4, 4))
    torch.testing.assert_close(minibatch_stddev(x, 1)[:, 3], torch.full((8, 4, 4), 1e-4, dtype=torch.float64))


def test_generator_ignores_the_norm_of_its_latent():
    g, z = small(Generator), torch.randn(2, 8, dtype=torch.float64)
    torch.testing.assert_close(g(5 * z, 16), g(z, 16), rtol=1e-6, atol=1e-6)
