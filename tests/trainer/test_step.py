"""The step against plain code that computes the same: gradients, several passes, bf16, several workers."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from tests.benchmarks.hardware_bf16 import HardwareBf16
from tests.support.plain import PlainStep
from tests.support.runs import leave_group
from trainer.bench.made_up import MadeUpImages
from trainer.config import TrainConfig
from trainer.contrast import FULL
from trainer.methods.proposed import step as growing
from trainer.methods.proposed.step import GrowingStep
from trainer.networks.progressive import Networks
from trainer.schedule import Phase
from trainer.training import random as counter_random
from trainer.training import step as shared
from trainer.training.group import Group, form_group

CPU = torch.device("cpu")
R, WIDTH, BATCH = 16, 8, 16


def phase_of(kind: str) -> Phase:
    return Phase(0, R, kind, 0, 1000, BATCH, 0.001)  # type: ignore[arg-type]


def step_of(kind: str, group: Group | None = None, double: bool = False, **options: object) -> GrowingStep:
    config = TrainConfig(resolution=R, width=WIDTH, **{"precision": "float32", **options})  # type: ignore[arg-type]
    networks = Networks.build(R, 1, WIDTH, 0).to(CPU)
    if double:
        for network in networks.by_name().values():
            network.double()
    step = GrowingStep(config, networks, MadeUpImages(R, 1), CPU, group or Group())
    step.begin(phase_of(kind))
    return step


def gradients(networks: Networks) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": parameter.grad.clone()
        for part, network in networks.by_name().items()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step's images and random numbers come in double precision."""
    to_float = shared.to_float
    monkeypatch.setattr(shared, "to_float", lambda images, contrast=FULL: to_float(images, contrast).double())
    monkeypatch.setattr(GrowingStep, "_drawn", lambda self, positions: drawn_in_float64(positions))


def drawn_in_float64(positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    z, again, u = counter_random.drawn(0, positions, WIDTH)
    return z.double(), again.double(), u.double()


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("kind", ["fade", "stable"])
def test_a_step_has_the_gradients_of_plain_code(kind: str) -> None:
    step, plain = step_of(kind, double=True), PlainStep(step_of(kind, double=True).networks, TrainConfig(), R)  # type: ignore[arg-type]
    at, phase = 500, step.phase
    step.run(at)
    alpha = torch.tensor(phase.alpha(at)) if phase.fading else None
    positions = torch.arange(at, at + BATCH)
    real = growing.faded(shared.to_float(torch.from_numpy(step.data.at(positions.numpy()))), alpha)
    z, again, u = drawn_in_float64(positions)
    plain.update_critic(real, z, u, alpha)
    theirs = gradients(plain.networks)
    plain.update_generator(again, alpha)
    theirs |= {name: g for name, g in gradients(plain.networks).items() if not name.startswith("critic")}
    ours = gradients(step.networks)  # type: ignore[arg-type]
    assert len(ours) > 20
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-7, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("kind", ["fade", "stable"])
@pytest.mark.parametrize("microbatch", [4, 12])
def test_several_passes_have_the_gradients_of_one(kind: str, microbatch: int) -> None:
    whole, parts = step_of(kind, double=True), step_of(kind, double=True, microbatch=microbatch)
    seen, also = whole.run(500), parts.run(500)
    for name, gradient in gradients(whole.networks).items():  # type: ignore[arg-type]
        torch.testing.assert_close(gradients(parts.networks)[name], gradient, rtol=1e-6, atol=1e-12)  # type: ignore[arg-type]
    for name in ("critic/loss", "critic/penalty", "generator/loss", "encoder/distance"):
        torch.testing.assert_close(also[name], seen[name], rtol=1e-6, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("in_float64")
def test_compiled_losses_have_the_gradients_of_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as one graph, gradient penalty included; what a backend makes of the graph is its own affair."""
    monkeypatch.setattr(growing, "BACKEND", "aot_eager")
    eager, compiled = step_of("fade", double=True), step_of("fade", double=True, compile=True)
    for at in (500, 500 + BATCH):  # with another alpha, by the same graph
        seen, also = eager.run(at), compiled.run(at)
    for name, gradient in gradients(eager.networks).items():  # type: ignore[arg-type]
        torch.testing.assert_close(gradients(compiled.networks)[name], gradient, rtol=1e-7, atol=1e-10)  # type: ignore[arg-type]
    for name, value in seen.items():
        torch.testing.assert_close(also[name], value, rtol=1e-7, atol=1e-10)


def test_bf16_gradients_point_where_those_of_float32_do() -> None:
    """As hardware rounds, so that this says the same on a machine with bf16 and on one without."""
    exact, fast = step_of("fade"), step_of("fade", precision="bf16")
    exact.run(500)
    with HardwareBf16():
        fast.run(500)
    ours, theirs = gradients(fast.networks), gradients(exact.networks)  # type: ignore[arg-type]
    for network in ("critic", "generator", "encoder"):
        names = [name for name in theirs if name.startswith(network)]
        a, b = (torch.cat([found[name].flatten() for name in names]) for found in (theirs, ours))
        assert torch.cosine_similarity(a, b, dim=0) > 0.98
        assert 0.95 < b.norm() / a.norm() < 1.05


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_hardware_rounds_a_product_once(format: torch.memory_format) -> None:
    x, weight, slope = torch.randn(8, 16, 8, 8), torch.randn(16, 16, 3, 3), torch.randn(8, 16, 8, 8)
    narrow = [each.bfloat16().to(memory_format=format).requires_grad_() for each in (x, weight)]
    wide = [each.detach().double().requires_grad_() for each in narrow]
    with HardwareBf16():
        found = F.conv2d(narrow[0], narrow[1], padding=1)
        found.backward(slope.bfloat16())
    expected = F.conv2d(wide[0], wide[1], padding=1)
    expected.backward(slope.bfloat16().double())
    for ours, theirs in ((found, expected), *((n.grad, w.grad) for n, w in zip(narrow, wide))):
        assert ours is not None and theirs is not None and ours.dtype == torch.bfloat16
        assert (ours.double() - theirs).norm() / theirs.norm() < 2**-9  # half a unit of 8 bits, and less on average


def _worker(rank: int, port: int, place: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    step = step_of("fade", form_group({BATCH}, 60), microbatch=4)
    for count in range(2):
        step.run(500 + count * BATCH)
    if rank == 0:
        torch.save(gradients(step.networks), f"{place}/gradients.pt")  # type: ignore[arg-type]
    leave_group()


def test_two_workers_in_two_passes_each_do_what_one_does_in_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_worker, (port, str(tmp_path)), nprocs=2)
    alone = step_of("fade")
    for count in range(2):
        alone.run(500 + count * BATCH)
    together = torch.load(tmp_path / "gradients.pt", weights_only=True)
    for name, gradient in gradients(alone.networks).items():  # type: ignore[arg-type]
        np.testing.assert_allclose(together[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()) + 1e-7)
