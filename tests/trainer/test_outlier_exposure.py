"""Latent outlier exposure against plain code, its own equivalences, and one process against two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from tests.support.checks import refuses
from tests.support.runs import leave_group
from trainer.config import TrainConfig
from trainer.methods import METHODS, VARIANTS
from trainer.methods.ae import Ae
from trainer.training.group import Group, form_group
from trainer.training.outlier_exposure import Exposure, exposed

losses = st.lists(st.integers(0, 100).map(lambda n: n / 4), min_size=1, max_size=40)
alphas = st.floats(0, 0.99)
HOW = ("hard", "soft", "refine")
ALONE = Group()


def float64(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def plain(normal: np.ndarray, anomalous: np.ndarray, how: str, alpha: float) -> float:
    """One image after the other, as the definition says."""
    ranks = normal if how == "refine" else normal - anomalous
    taken = set(np.argsort(-ranks, kind="stable")[: int(alpha * len(normal))])
    found = []
    for i, (l_n, l_a) in enumerate(zip(normal, anomalous)):
        if i not in taken:
            found.append(l_n)
        elif how != "refine":
            found.append(l_a if how == "hard" else (l_n + l_a) / 2)
    return float(np.mean(found))


@given(losses, st.integers(0, 2**31), alphas, st.sampled_from(HOW))
@settings(deadline=None)
def test_it_is_the_definition(values: list[float], seed: int, alpha: float, how: str) -> None:
    normal = float64(values)
    anomalous = torch.rand(len(values), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 10
    loss, chosen = exposed(normal, anomalous, how, alpha, ALONE)
    assert int(chosen.sum()) == int(alpha * len(values))
    assert float(loss) == pytest.approx(plain(normal.numpy(), anomalous.numpy(), how, alpha))


@given(losses, alphas)
@settings(deadline=None)
def test_where_both_losses_agree_hard_and_soft_are_blind(values: list[float], alpha: float) -> None:
    normal = float64(values)
    found = [float(exposed(normal, normal, how, alpha, ALONE)[0]) for how in ("blind", "hard", "soft")]
    assert found == pytest.approx([float(normal.mean())] * 3)


@given(losses, st.sampled_from(HOW))
@settings(deadline=None)
def test_a_share_of_0_is_blind_to_the_bit(values: list[float], how: str) -> None:
    normal = torch.tensor(values)
    assert torch.equal(exposed(normal, normal + 1, how, 0.0, ALONE)[0], normal.mean())


def test_nothing_is_taken_before_the_first_passes_are_over() -> None:
    exposure, normal = Exposure("hard", 0.5, ALONE), torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert float(exposure.joined(normal, torch.zeros(4))[0]) == 2.5
    exposure.is_on = True
    loss, parts = exposure.joined(normal, torch.zeros(4))
    assert float(loss) == 0.75 and float(parts["outliers/share"]) == 0.5


def test_anomalous_images_are_pushed_the_other_way() -> None:
    normal = torch.tensor([1.0, 2.0, 3.0, 9.0], requires_grad=True)
    exposed(normal, 1 / normal, "hard", 0.25, ALONE)[0].backward()
    torch.testing.assert_close(normal.grad, torch.tensor([0.25, 0.25, 0.25, -0.25 / 81]))


def gradient(normal: Tensor, how: str, group: Group) -> Tensor:
    normal = normal.clone().requires_grad_(True)
    exposed(normal, 1 / normal, how, 0.3, group)[0].backward()
    assert normal.grad is not None
    return normal.grad


def batch() -> Tensor:
    return torch.rand(16, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + torch.arange(16) / 8


def _worker(rank: int, place: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=2)
    group = form_group({16}, 60)
    torch.save({how: gradient(batch().chunk(2)[rank], how, group) for how in HOW}, f"{place}/{rank}")
    leave_group()


@pytest.mark.slow
def test_two_workers_take_those_that_one_takes(tmp_path: Path) -> None:
    spawn(_worker, args=(str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2)]
    for how in HOW:
        both = torch.cat([each[how] for each in found]) / 2  # reduction takes the mean over workers
        torch.testing.assert_close(both, gradient(batch(), how, ALONE), rtol=1e-10, atol=1e-12)


def test_options_out_of_range_are_named() -> None:
    for options, words in (
        ({"outliers": "none"}, "--ae.outliers none"),
        ({"outliers": "hard", "alpha": 1.0}, "--ae.alpha 1.0"),
        ({"outliers": "hard", "alpha": 0.001}, "--ae.alpha 0.001 of a batch of 128"),
    ):
        refuses(lambda: Ae(**options).check(TrainConfig()), words)  # type: ignore[arg-type] # noqa: B023
    Ae(alpha=0.001).check(TrainConfig())


def test_a_sweep_knows_each_way_by_a_name() -> None:
    for name in ("ae", "svdd", "geom"):
        for how in HOW:
            method, variant = VARIANTS[f"{name}-{how}"]
            assert method == name and variant.options == {f"{name}.outliers": how}
    assert not any(how in "".join(METHODS["vae"].variants()) for how in HOW)
