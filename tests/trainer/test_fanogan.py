"""f-AnoGAN's networks and loss against counts by hand, a plain float64 second implementation and worked numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.networks.residual import Critic, Encoder, Generator, ResidualBlock
from trainer.scoring.terms.feature_residual import izi_f

WIDTH, LATENT = 4, 6
Maker = Callable[[int, int], nn.Module]
MAKERS: dict[str, Maker] = {
    "generator": lambda resolution, channels: Generator(resolution, channels, WIDTH, LATENT),
    "critic": lambda resolution, channels: Critic(resolution, channels, WIDTH),
    "encoder": lambda resolution, channels: Encoder(resolution, channels, WIDTH, LATENT),
}
every_network = pytest.mark.parametrize("name", MAKERS)


def stirred(network: nn.Module) -> nn.Module:
    """In float64 with no bias at 0, no scale at 1 and no running statistic at its start."""
    torch.manual_seed(3)
    network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
        for buffer in network.buffers():
            if buffer.dtype == torch.float64:
                buffer.uniform_(0.5, 1.5)
    return network


def made(name: str, resolution: int = 8, channels: int = 2) -> nn.Module:
    torch.manual_seed(2)
    return stirred(MAKERS[name](resolution, channels))


def inputs(name: str, count: int = 5, resolution: int = 8, channels: int = 2) -> Tensor:
    shape = (LATENT,) if name == "generator" else (channels, resolution, resolution)
    return torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


# parameter counts


def counted(resolution: int, channels: int, width: int, latent: int) -> tuple[int, int, int]:
    """Parameters of G, D and E from the description: (inputs, outputs) of the blocks as the generator goes up."""
    maps = [min(8, resolution // 2**k) * width for k in range(2, int(math.log2(resolution)) + 1)]
    pairs = list(pairwise(maps))
    # two norms of 2 each a map; a 3x3 without bias, one with; a 1x1 with
    up = sum(2 * i + 9 * i * o + 2 * o + 9 * o * o + o + i * o + o for i, o in pairs)
    down = sum(4 * i + 9 * i * i + 9 * i * o + o + i * o + o for o, i in pairs)
    features = 16 * maps[0]
    generator = (latent + 1) * features + up + 2 * width + (9 * width + 1) * channels
    trunk = (9 * channels + 1) * width + down
    return generator, trunk + features + 1, trunk + (features + 1) * latent


def sizes(resolution: int, channels: int, width: int, latent: int) -> tuple[int, int, int]:
    with torch.device("meta"):
        networks = (
            Generator(resolution, channels, width, latent),
            Critic(resolution, channels, width),
            Encoder(resolution, channels, width, latent),
        )
    generator, critic, encoder = (sum(p.numel() for p in network.parameters()) for network in networks)
    return generator, critic, encoder


@pytest.mark.parametrize(
    ("resolution", "channels", "expected"),
    [(64, 1, (8_539_329, 7_490_689, 8_531_200)), (32, 3, (3_556_675, 2_508_033, 3_548_544))],
)
def test_parameter_counts_are_those_worked_out_by_hand(
    resolution: int, channels: int, expected: tuple[int, int, int]
) -> None:
    assert sizes(resolution, channels, 64, 128) == counted(resolution, channels, 64, 128) == expected


@pytest.mark.parametrize("resolution", [8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize(("channels", "width", "latent"), [(1, 64, 128), (3, 4, 7)])
def test_parameter_counts_follow_the_description(resolution: int, channels: int, width: int, latent: int) -> None:
    assert sizes(resolution, channels, width, latent) == counted(resolution, channels, width, latent)


# shapes, types and what an output may depend on


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("resolution", "channels", "maps"), [(8, 1, 2), (16, 3, 4), (32, 3, 8), (64, 1, 8)])
def test_shapes_types_and_ranges(resolution: int, channels: int, maps: int, bf16: bool) -> None:
    generator = Generator(resolution, channels, WIDTH, LATENT)
    critic, encoder = Critic(resolution, channels, WIDTH), Encoder(resolution, channels, WIDTH, LATENT)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        images = generator(100 * torch.randn(3, LATENT))
        outputs = images, critic(images), critic.features(images), encoder(100 * images)
    shapes = [(3, channels, resolution, resolution), (3,), (3, 16 * maps * WIDTH), (3, LATENT)]
    assert [tuple(output.shape) for output in outputs] == shapes
    assert all(output.dtype == torch.float32 for output in outputs)
    assert images.abs().max() <= 1 and outputs[3].abs().max() <= 1


def test_the_score_is_a_linear_function_of_the_features() -> None:
    critic, x = Critic(16, 1, WIDTH).double(), inputs("critic", 2 * 16 * 4 * WIDTH, 16, 1)
    features = torch.cat([critic.features(x), torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    scores = critic(x)
    fit = torch.linalg.lstsq(features, scores[:, None]).solution
    torch.testing.assert_close((features @ fit)[:, 0], scores)


def depends_on_its_batch(network: nn.Module, x: Tensor) -> bool:
    whole = network(x)
    assert not torch.allclose(whole[0], whole[1])  # or the comparison below would show nothing
    together = network(torch.cat([x[:2], 3 * x[2:]]))
    return not torch.allclose(together[:2], whole[:2], rtol=1e-10, atol=1e-12)


@every_network
@pytest.mark.parametrize("resolution", [8, 32])
def test_in_eval_mode_every_output_is_its_inputs_alone(name: str, resolution: int) -> None:
    network, x = made(name, resolution).eval(), inputs(name, 5, resolution)
    assert not depends_on_its_batch(network, x)
    torch.testing.assert_close(network(x.flip(0)).flip(0), network(x))
    torch.testing.assert_close(torch.cat([network(one[None]) for one in x]), network(x))


def test_in_train_mode_batch_norm_joins_a_batch_and_layer_norm_does_not() -> None:
    joined = {name: depends_on_its_batch(made(name).train(), inputs(name)) for name in MAKERS}
    assert joined == {"generator": True, "critic": False, "encoder": True}


# a second implementation: the networks at 8 x 8, one block each, from their weights in the order they are used


def plain_norm(x: Tensor, dims: tuple[int, ...], scale: Tensor, offset: Tensor) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    normal = centred / (centred.square().mean(dims, keepdim=True) + 1e-5).sqrt()
    return normal * scale[:, None, None] + offset[:, None, None]


BATCH, LAYER = (0, 2, 3), (1, 2, 3)


def plain_generator(weights: list[Tensor], z: Tensor) -> Tensor:
    dense, dense_b, s1, o1, conv1, s2, o2, conv2, conv2_b, short, short_b, s3, o3, last, last_b = weights
    x = (z @ dense.T + dense_b).reshape(len(z), -1, 4, 4)
    y = plain_norm(x, BATCH, s1, o1).relu().repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    y = plain_norm(F.conv2d(y, conv1, padding=1), BATCH, s2, o2).relu()
    y = F.conv2d(y, conv2, conv2_b, padding=1)
    y = y + F.conv2d(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), short, short_b)
    return F.conv2d(plain_norm(y, BATCH, s3, o3).relu(), last, last_b, padding=1).tanh()


def plain_trunk(weights: list[Tensor], images: Tensor, dims: tuple[int, ...]) -> Tensor:
    first, first_b, s1, o1, conv1, s2, o2, conv2, conv2_b, short, short_b = weights
    x = F.conv2d(images, first, first_b, padding=1)
    y = F.conv2d(plain_norm(x, dims, s1, o1).relu(), conv1, padding=1)
    y = F.conv2d(plain_norm(y, dims, s2, o2).relu(), conv2, conv2_b, padding=1)
    y = y + F.conv2d(x, short, short_b)
    return (y[..., ::2, ::2] + y[..., 1::2, ::2] + y[..., ::2, 1::2] + y[..., 1::2, 1::2]).flatten(1) / 4


def plain_critic(weights: list[Tensor], images: Tensor) -> Tensor:
    *inner, score, score_b = weights
    return plain_trunk(inner, images, LAYER) @ score[0] + score_b


def plain_encoder(weights: list[Tensor], images: Tensor) -> Tensor:
    *inner, dense, dense_b = weights
    return (plain_trunk(inner, images, BATCH) @ dense.T + dense_b).tanh()


PLAIN = {"generator": plain_generator, "critic": plain_critic, "encoder": plain_encoder}


def copies(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone().requires_grad_(True) for parameter in network.parameters()]


@every_network
def test_networks_and_their_gradients_agree_with_a_plain_second_derivation(name: str) -> None:
    network, x = made(name), inputs(name)
    weights, output = copies(network), network(x)
    expected = PLAIN[name](weights, x)
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-12)
    direction = torch.randn_like(output)
    gradients = torch.autograd.grad((output * direction).sum(), list(network.parameters()))
    for mine, other in zip(gradients, torch.autograd.grad((expected * direction).sum(), weights)):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)


def penalty(critic: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    x = images.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def test_the_gradient_penalty_of_the_critic_is_differentiated_twice() -> None:
    critic, x = made("critic"), inputs("critic")
    weights, used = copies(critic), list(critic.parameters())[:-1]  # the score's bias has no part in slopes
    gradients = torch.autograd.grad(penalty(critic, x), used, allow_unused=True)
    expected = torch.autograd.grad(
        penalty(lambda images: plain_critic(weights, images), x), weights[:-1], allow_unused=True
    )
    assert sum(gradient is not None and bool(gradient.abs().max() > 1e-3) for gradient in gradients) > len(used) / 2
    for parameter, mine, other in zip(used, gradients, expected):
        mine, other = (torch.zeros_like(parameter) if g is None else g for g in (mine, other))
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)


# first weights


@every_network
def test_first_weights_follow_he_inside_blocks_and_xavier_elsewhere(name: str) -> None:
    torch.manual_seed(5)
    wide = {"generator": Generator(16, 3, 32, 64), "critic": Critic(16, 3, 32), "encoder": Encoder(16, 3, 32, 64)}
    network = wide[name]
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    inside = {id(m) for b in blocks for m in b.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)}
    assert len(blocks) == 2 and len(inside) == 4 and len(layers) == 8
    for layer in layers:
        outputs, inputs, *kernel = layer.weight.shape
        fan_in, fan_out = inputs * math.prod(kernel), outputs * math.prod(kernel)
        deviation = math.sqrt(2 / fan_in if id(layer) in inside else 2 / (fan_in + fan_out))
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.05)
        assert abs(layer.weight.mean().item()) < 4 * deviation / math.sqrt(layer.weight.numel())
        assert layer.bias is None or not layer.bias.any()


# the loss and score


def test_izi_f_of_a_hand_made_example() -> None:
    queries = torch.tensor([[[[1.0, 0.0], [0.0, -1.0]]], [[[0.5, 0.5], [0.5, 0.5]]]])
    matches = torch.tensor([[[[0.0, 0.0], [1.0, -1.0]]], [[[0.5, 0.5], [0.5, -0.5]]]])

    def sum_and_first(images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return torch.stack([flat.sum(1), 3 * flat[:, 0]], dim=1)

    # pixels differ by (1, 0, -1, 0) and (0, 0, 0, 1): mean squares 2/4 and 1/4;
    # features are (0, 3) against (0, 0), and (2, 1.5) against (1, 1.5): mean squares 9/2 and 1/2
    expected = {0.0: [0.5, 0.25], 1.0: [5.0, 0.75], 2.0: [9.5, 1.25]}
    for kappa, values in expected.items():
        torch.testing.assert_close(izi_f(queries, matches, sum_and_first, kappa), torch.tensor(values))


def test_izi_f_carries_gradients_to_the_matches_through_pixels_and_features() -> None:
    torch.manual_seed(2)
    critic, (queries, matches) = Critic(8, 2, WIDTH).double(), inputs("critic", 6).split(3)
    matches = matches.clone().requires_grad_(True)
    parts = [torch.autograd.grad(izi_f(queries, matches, critic.features, k).sum(), matches)[0] for k in (0.0, 1.0)]
    torch.testing.assert_close(parts[0], 2 * (matches - queries).detach() / queries[0].numel())
    assert (parts[1] - parts[0]).flatten(1).norm(dim=1).min() > 1e-3
