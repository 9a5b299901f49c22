"""ADGAN's search against torch's own Adam, start by start, and worked cases."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from tests.support.checks import refuses
from tests.support.runs import words_of
from tests.support.tables import read_csv
from trainer.__main__ import main as trainer
from trainer.methods.adgan.descent import BETAS, distances_left
from trainer.networks.progressive import Generator

R, WIDTH = 8, 8
torch.manual_seed(1)
GENERATOR = Generator(R, 1, WIDTH).double()
WEIGHTS = {name: p.detach() for name, p in GENERATOR.named_parameters()}


def generate(weights: dict[str, Tensor], z: Tensor) -> Tensor:
    return functional_call(GENERATOR, weights, (z[None], R))[0]


def latents(count: int, seed: int) -> Tensor:
    return torch.randn(count, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made(z: Tensor) -> Tensor:
    with torch.no_grad():
        return GENERATOR(z, R)


def left(queries: Tensor, starts: Tensor, steps: int = 5, rates: tuple[float, float] = (0.25, 1e-3)) -> Tensor:
    return distances_left(queries, generate, WEIGHTS, starts, steps, *rates)


def plain(query: Tensor, start: Tensor, steps: int, rates: tuple[float, float]) -> float:
    """One start of one query, by torch's optimisers and a copy of the generator."""
    own, z = copy.deepcopy(GENERATOR), start.clone().requires_grad_(True)
    adams = [torch.optim.Adam([z], rates[0], BETAS), torch.optim.Adam(own.parameters(), rates[1], BETAS)]
    for _ in range(steps):
        for adam in adams:
            adam.zero_grad()
        (own(z[None], R)[0] - query).square().mean().backward()
        for adam in adams:
            adam.step()
    with torch.no_grad():
        return float((own(z[None], R)[0] - query).square().mean())


def test_it_is_the_definition_start_by_start() -> None:
    queries, starts = made(latents(2, 2)) + 0.3, latents(3, 3)
    found = left(queries, starts)
    expected = [[plain(query, start, 5, (0.25, 1e-3)) for start in starts] for query in queries]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)


def test_what_a_start_makes_already_is_no_distance_away() -> None:
    starts = latents(3, 4)
    found = left(made(starts[:1]), starts, steps=0)
    assert float(found[0, 0]) == pytest.approx(0, abs=1e-12) and bool((found[0, 1:] > 0.001).all())


def test_without_steps_it_is_the_distance_to_random_images() -> None:
    queries, starts = made(latents(2, 5)), latents(4, 6)
    expected = (queries[:, None] - made(starts)[None]).square().mean(dim=(2, 3, 4))
    torch.testing.assert_close(left(queries, starts, steps=0), expected)


def test_a_query_is_searched_for_by_itself_and_the_generator_stays() -> None:
    before = {name: p.clone() for name, p in GENERATOR.named_parameters()}
    queries, starts = made(latents(3, 7)) - 0.2, latents(2, 8)
    together = left(queries, starts)
    torch.testing.assert_close(torch.cat([left(query[None], starts) for query in queries]), together)
    torch.testing.assert_close(left(queries.flip(0), starts).flip(0), together)
    assert bool((together < left(queries, starts, steps=0)).all())
    assert all(torch.equal(p, before[name]) for name, p in GENERATOR.named_parameters())


def test_through_the_front_door(dataset: Path, tmp_path: Path) -> None:
    """It is trained and evaluated as any method; that it cannot be exported is said in one line."""
    sizes = shlex.split(
        "--preset demo --resolution 8 --width 8 --fade-images 32 --stable-images 32 --final-images 32 --minibatch.4 16"
        " --minibatch.8 16 --log-images 32 --precision float32 --adgan.starts 2 --adgan.steps 2 --method adgan"
    )
    trainer(words_of(dataset, tmp_path / "run", dataset.parent / "cache", sizes))
    trainer(["evaluate", str(tmp_path / "run"), "--cache", str(dataset.parent / "cache")])
    scores = [float(row["adgan"]) for row in read_csv(tmp_path / "run" / "evaluation" / "scores.csv")]
    assert len(scores) == 24 and min(scores) > 0
    refuses(lambda: trainer(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]), "adgan", "one pass")
    assert not (tmp_path / "out").exists()
