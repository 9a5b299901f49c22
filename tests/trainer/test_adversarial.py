"""GANomaly, Skip-GANomaly, EGBAD, ALAD and Fence GAN against counts from the literature and closed forms."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.methods import METHODS
from trainer.methods.alad.networks import AladNetworks, BiganNetworks
from trainer.methods.alad.step import DiscriminatorsLoss
from trainer.methods.alad.terms import PAIR
from trainer.methods.base import Trained
from trainer.methods.egbad.networks import of_digits
from trainer.methods.egbad.step import BiganLoss, JointLoss
from trainer.methods.egbad.terms import BIGAN
from trainer.methods.fence_gan.networks import FenceNetworks
from trainer.methods.fence_gan.step import FenceLoss, LabelLoss, dispersion_of, encirclement_loss
from trainer.methods.ganomaly import Ganomaly
from trainer.methods.ganomaly.networks import GanomalyNetworks
from trainer.methods.ganomaly.step import GanomalyLoss
from trainer.methods.skip_ganomaly import SkipGanomaly
from trainer.methods.skip_ganomaly.networks import SkipNetworks
from trainer.methods.skip_ganomaly.step import SkipLoss
from trainer.networks.base import NetworkSet
from trainer.scoring.terms.base import Response
from trainer.training.averages import average_of, follow
from trainer.training.group import Group

COUNTS = {
    ("ganomaly", 32, 3): {
        "encoder": 1_068_800,
        "decoder": 1_068_928,
        "encoder_again": 1_068_800,
        "discriminator": 663_296,
    },
    ("ganomaly", 64, 1): {"encoder": 3_574_528, "decoder": 3_574_656, "discriminator": 2_763_520},
    ("skip_ganomaly", 32, 3): {"generator": 16_659_075, "discriminator": 1_069_700},
    ("skip_ganomaly", 64, 1): {"generator": 29_237_889, "discriminator": 3_575_428},
    ("alad", 32, 3): {
        "encoder": 3_449_572,
        "generator": 3_449_475,
        "discriminator": 11_859_329,
        "of_images": 226_177,
        "of_latents": 14_977,
    },
    ("egbad", 32, 3): {"encoder": 3_449_572, "generator": 3_449_475, "discriminator": 11_859_329},
    ("fence_gan", 32, 3): {"generator": 1_341_955, "discriminator": 1_079_553},
}


@pytest.mark.parametrize(("method", "resolution", "channels"), COUNTS)
def test_parameter_counts(method: str, resolution: int, channels: int) -> None:
    config = dataclasses.replace(TrainConfig(), method=method, resolution=resolution)
    networks = METHODS[method].networks(config, channels, 0).by_name()
    found = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    expected = COUNTS[method, resolution, channels]
    assert {name: found[name] for name in expected} == expected


def test_parameter_counts_of_egbad_on_mnist() -> None:
    networks = of_digits(28, 1, 32, 200, 0)
    three = networks.encoder, networks.generator, networks.discriminator
    assert [sum(p.numel() for p in each.parameters()) for each in three] == [1_347_656, 6_781_505, 3_907_329]
    images = networks.generator(torch.randn(2, 200))
    assert images.shape == (2, 1, 28, 28) and images.abs().max() <= 1
    features, logits = networks.discriminator(images, networks.encoder(images))
    assert features.shape == (2, 1024) and logits.shape == (2,)


SMALL = (8, 1, 4, 6, 0)
"""Resolution, channels, width, code size, seed."""
MAKERS = {
    "ganomaly": lambda: GanomalyNetworks.build(*SMALL),
    "skip_ganomaly": lambda: SkipNetworks.build(*SMALL),
    "egbad": lambda: BiganNetworks.build(*SMALL),
    "egbad, digits": lambda: of_digits(*SMALL),
    "alad": lambda: AladNetworks.build(*SMALL),
    "fence_gan": lambda: FenceNetworks.build(*SMALL),
}
real = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)).tanh()
z = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))


def learns(networks: Iterable[nn.Module]) -> list[bool]:
    return [any(p.grad is not None and bool(p.grad.any()) for p in each.parameters()) for each in networks]


def test_generators_learn_from_judges_that_stay_as_they_are() -> None:
    """Gradients of a discriminator's features must not reach the discriminator in the generator's turn."""
    losses = {
        "ganomaly": lambda n: GanomalyLoss(n, Ganomaly())(real),
        "skip_ganomaly": lambda n: SkipLoss(n, SkipGanomaly())(real),
        "egbad": lambda n: BiganLoss(n)(real, z),
        "egbad, digits": lambda n: BiganLoss(n)(real, z),
        "fence_gan": lambda n: FenceLoss(n, 0.5, 10.0, Group(), False)(z),
    }
    for method, loss in losses.items():
        networks: NetworkSet = MAKERS[method]()
        loss(networks)[0].backward()
        named = networks.by_name()
        judges = [each for name, each in named.items() if "discriminator" in name]
        makers = [each for name, each in named.items() if "discriminator" not in name and "average" not in name]
        assert not any(learns(judges)) and all(learns(makers)), method


def test_at_a_guess_losses_are_known() -> None:
    """Where every discriminator says 1/2, each has the loss 2 ln 2."""
    networks = AladNetworks.build(*SMALL)
    for judge in (networks.discriminator.head, networks.of_images.head, networks.of_latents.layers[-1]):
        for parameter in judge.parameters():
            nn.init.zeros_(parameter)
    guess = 2 * math.log(2)
    _, parts = DiscriminatorsLoss(networks)(real, z, real, z, real, z)
    assert [float(each) for each in parts.values()] == pytest.approx([guess] * 3)
    joint, _ = JointLoss(networks.discriminator)(real, z, real, z)
    assert float(joint.detach()) == pytest.approx(guess)


@pytest.mark.parametrize(("method", "term"), [("alad", PAIR), ("egbad", BIGAN), ("egbad, digits", BIGAN)])
def test_a_perfect_reconstruction_scores_0(method: str, term: object) -> None:
    networks = {name: network.eval() for name, network in MAKERS[method]().by_name().items()}
    trained = Trained(TrainConfig(), networks, 8, None, torch.device("cpu"))
    response = Response(METHODS[method.partition(",")[0]], trained, real)
    with torch.no_grad():
        assert float(term.of(response).min()) > 0  # type: ignore[attr-defined]
        again = Response(response.method, response.trained, real)
        again.__dict__["matches"] = real
        torch.testing.assert_close(term.of(again), torch.zeros(len(real)))  # type: ignore[attr-defined]


def test_averages_follow_their_networks_and_nothing_else() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = average_of(network)
    assert not any(p.requires_grad for p in average.parameters())
    before = [p.clone() for p in average.parameters()]
    network(torch.randn(8, 3))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    follow(average, network, 0.9)
    for old, new, target in zip(before, average.parameters(), network.parameters()):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * target)
    for mine, theirs in zip(average.buffers(), network.buffers()):
        torch.testing.assert_close(mine, theirs)


# Fence GAN (Ngo et al. 2019)


@pytest.mark.parametrize(("level", "least"), [(0.5, 0.6931), (0.1, 0.3251)])
def test_the_least_encirclement_loss_lies_on_the_fence(level: float, least: float) -> None:
    there = torch.logit(torch.tensor([level]))
    assert float(encirclement_loss(there, level)) == pytest.approx(least, abs=1e-4)
    assert all(float(encirclement_loss(there + shift, level)) > least for shift in (-1.0, -0.1, 0.1, 1.0))


@given(st.integers(0, 2**31), st.floats(-5, 5), st.floats(0.1, 10))
@settings(deadline=None, max_examples=30)
def test_dispersion_ignores_shifts_and_grows_with_contrast(seed: int, shift: float, scale: float) -> None:
    images = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    spread = float(dispersion_of(images))
    assert float(dispersion_of(scale * images + shift)) == pytest.approx(scale * spread)
    plain = sum(float((image - images.mean(0)).norm()) for image in images) / 6
    assert spread == pytest.approx(plain)


@pytest.mark.slow
def test_on_the_toy_the_generator_rings_the_data() -> None:
    """Points about (20, 20): the discriminator's score falls outwards, and generated points lie around them."""
    torch.manual_seed(0)

    class Plane(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(inputs, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2))
            self.head = nn.Linear(32, outputs)

        def forward(self, x: Tensor) -> Tensor:
            y = self.head(self.layers(x))
            return y[:, 0] if y.shape[1] == 1 else y

    @dataclasses.dataclass(frozen=True)
    class Toy(NetworkSet):
        generator: nn.Module
        discriminator: nn.Module

    networks = Toy(Plane(2, 2), Plane(2, 1))
    judge = torch.optim.Adam(networks.discriminator.parameters(), 2e-3)
    maker = torch.optim.Adam(networks.generator.parameters(), 2e-3)
    labels = [LabelLoss(networks.discriminator, *each) for each in ((1.0, 1.0), (0.0, 0.5))]  # type: ignore[arg-type]
    fence = FenceLoss(networks, 0.5, 3.0, Group(), False)  # type: ignore[arg-type]
    for step in range(1500):
        points = torch.randn(128, 2)  # in units of the data's spread, about its mean
        with torch.no_grad():
            fake = networks.generator(torch.randn(128, 2))
        for loss, batch in zip(labels, (points, fake)):
            judge.zero_grad()
            loss(batch)[0].backward()
            judge.step()
        if step > 100:
            maker.zero_grad()
            fence(torch.randn(128, 2))[0].backward()
            maker.step()
    with torch.no_grad():
        near, far = torch.randn(500, 2), 5 * nn.functional.normalize(torch.randn(500, 2))
        scores = networks.discriminator(near), networks.discriminator(far)
        order = (scores[0][:, None] > scores[1][None]).float().mean()
        radius = networks.generator(torch.randn(500, 2)).norm(dim=1).mean()
    assert float(order) > 0.9 and float(radius) > 1.0
