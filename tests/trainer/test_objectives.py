"""The losses against a plain float64 second implementation, and their reduction over workers."""

from __future__ import annotations

import os
import socket

import pytest
import torch
import torch.nn.functional as F
from torch.multiprocessing.spawn import spawn

from tests.support.runs import leave_group
from trainer.config import Distance
from trainer.methods.proposed.losses import GeneratorEncoderLoss
from trainer.networks.progressive import Critic, Encoder, Generator, wake
from trainer.training import losses as objectives
from trainer.training.losses import CriticLoss

R, WIDTH, N = 8, 8, 8


def networks() -> tuple[Generator, Encoder, Critic]:
    torch.manual_seed(1)
    return Generator(R, 1, WIDTH).double(), Encoder(R, 1, WIDTH).double(), Critic(R, 1, WIDTH).double()


def gradient(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def inputs():
    torch.manual_seed(2)
    real, fake = torch.randn(2, N, 1, R, R, dtype=torch.float64)
    return real, fake, torch.rand(N, 1, 1, 1, dtype=torch.float64), torch.randn(N, WIDTH, dtype=torch.float64)


def plain_critic(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The 8x8 critic written down from Karras et al., appendix A, without fusing and without our layers."""

    def scaled(name, gain=2**0.5):
        weight = w[f"{name}.weight"]
        return weight * gain / weight[0].numel() ** 0.5

    def act(x, name):
        bias = w[f"{name}.bias"]
        x = x + (bias[:, None, None] if x.ndim == 4 else bias)
        return torch.where(x > 0, x, 0.2 * x)

    x = act(torch.einsum("nchw,oc->nohw", x, scaled("trunk.from_rgb.8")[:, :, 0, 0]), "trunk.from_rgb.8")
    x = act(F.conv2d(x, scaled("trunk.blocks.8.conv"), padding=1), "trunk.blocks.8.conv")
    x = F.conv2d(x, scaled("trunk.blocks.8.down"), padding=1)
    x = act((x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4, "trunk.blocks.8.down")
    maps = []
    for group in x.split(4):
        centred = group - group.mean(0)
        maps.append(((centred**2).mean(0) + 1e-8).sqrt().mean().expand(4, 1, 4, 4))
    x = act(F.conv2d(torch.cat([x, torch.cat(maps)], 1), scaled("trunk.conv"), padding=1), "trunk.conv")
    x = act(x.flatten(1) @ scaled("trunk.dense").T, "trunk.dense")
    return (x @ scaled("score", 1.0).T + w["score.bias"])[:, 0]


def test_critic_loss_and_gradients_agree_with_a_plain_second_derivation():
    critic = networks()[2]
    wake(critic, R, False)
    real, fake, u, _ = inputs()
    loss, parts = CriticLoss(critic, 10.0, 0.001)(real, fake, u, R, None)
    loss.backward()

    weights = {name: p.detach().clone().requires_grad_(True) for name, p in critic.named_parameters()}
    mixed = (real + u * (fake - real)).requires_grad_(True)
    slopes = torch.autograd.grad(plain_critic(weights, mixed).sum(), mixed, create_graph=True)[0]
    penalty = (((slopes**2).sum((1, 2, 3)) ** 0.5 - 1) ** 2).mean()
    on_real, on_fake = plain_critic(weights, real), plain_critic(weights, fake)
    expected = on_fake.mean() - on_real.mean() + 10 * penalty + 0.001 * (on_real**2).mean()
    expected.backward()

    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(parts["critic/penalty"], penalty.detach(), rtol=1e-10, atol=1e-12)
    for name, parameter in critic.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, weights[name].grad, rtol=1e-9, atol=1e-11, msg=name)


def test_gradient_of_the_penalty_agrees_with_finite_differences():
    critic = networks()[2]
    real, fake, u, _ = inputs()
    module = CriticLoss(critic, 10.0, 0.001)
    weight = critic.trunk.dense.weight
    module(real, fake, u, R, None)[0].backward()
    direction = torch.randn_like(weight)
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            weight += step * direction
        values.append(module(real, fake, u, R, None)[0].item())
        with torch.no_grad():
            weight -= step * direction
    assert (values[0] - values[1]) / 2e-6 == pytest.approx((gradient(weight) * direction).sum().item(), rel=1e-5)


@pytest.mark.parametrize("distance", ["image", "latent", "latent-squared"])
@pytest.mark.parametrize("coupling", ["joint", "encoder-only"])
def test_who_learns_from_the_distance(distance, coupling):
    generator, encoder, critic = networks()
    for network in (generator, encoder, critic):
        wake(network, R, False)
    z = inputs()[3]
    loss, parts = GeneratorEncoderLoss(generator, encoder, critic, distance, coupling, 2.0)(z, R, None)
    torch.testing.assert_close(loss.detach(), parts["generator/adversarial"] + 2 * parts["encoder/distance"])
    loss.backward()
    assert all(p.grad is None for p in critic.parameters())
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
    mine = [gradient(p) for p in generator.parameters() if p.requires_grad]
    adversarial_alone = torch.autograd.grad(
        -critic(generator(z, R), R).mean(), [p for p in generator.parameters() if p.requires_grad]
    )
    same = all(torch.allclose(a, b, atol=1e-12) for a, b in zip(mine, adversarial_alone))
    assert same == (coupling == "encoder-only")


def test_distances_by_hand():
    generator, encoder, critic = networks()
    z = inputs()[3]
    fake = generator(z, R)
    z_hat = encoder(fake, R)
    by_hand: dict[Distance, torch.Tensor] = {
        "image": (fake - generator(z_hat, R)).abs().mean(),
        "latent": (z / z.square().mean(1, keepdim=True).sqrt() - z_hat).abs().mean(),
        "latent-squared": 10 * (z / z.square().mean(1, keepdim=True).sqrt() - z_hat).square().mean(),
    }
    for distance, expected in by_hand.items():
        loss = GeneratorEncoderLoss(generator, encoder, critic, distance, "joint", 1.0)
        torch.testing.assert_close(loss(z, R, None)[1]["encoder/distance"], expected.detach(), rtol=1e-7, atol=1e-9)


def _gradients(rank: int, world: int) -> dict[str, torch.Tensor]:
    generator, encoder, critic = networks()
    for network in (generator, encoder, critic):
        wake(network, R, True)
    real, fake, u, z = (x.chunk(world)[rank] for x in inputs())
    alpha = torch.tensor(0.3, dtype=torch.float64)
    modules: list[torch.nn.Module] = [
        CriticLoss(critic, 10.0, 0.001),
        GeneratorEncoderLoss(generator, encoder, critic, "image", "joint", 1.0),
    ]
    if world > 1:
        modules = [torch.nn.parallel.DistributedDataParallel(m, gradient_as_bucket_view=True) for m in modules]
    modules[0](real, fake, u, R, alpha)[0].backward()
    modules[1](z, R, alpha)[0].backward()
    named = {"g": generator, "e": encoder, "c": critic}
    return {f"{k}.{n}": p.grad for k, m in named.items() for n, p in m.named_parameters() if p.grad is not None}


def _worker(rank: int, port: int, path: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(_gradients(rank, 2), f"{path}/{rank}.pt")
    leave_group()


def test_reduction_over_two_workers_equals_one_process_on_the_joined_batch(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_worker, args=(port, str(tmp_path)), nprocs=2)
    whole = _gradients(0, 1)
    for rank in range(2):
        parts = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert parts.keys() == whole.keys()
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, rtol=1e-9, atol=1e-9, msg=name)


def test_frozen_passes_gradients_to_inputs_only():
    critic = networks()[2]
    x = inputs()[0].requires_grad_(True)
    objectives.frozen(critic, x, R, None).sum().backward()
    assert x.grad is not None and all(p.grad is None for p in critic.parameters())
