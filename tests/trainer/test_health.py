"""What is not a number stops a training run, which goes back once; and what else is wrong is said."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.multiprocessing.spawn import spawn

from data_tools.errors import run_command
from tests.support.runs import bits, config_of, cut_back, leave_group, lines, said, unhurried, words_of
from trainer.__main__ import main as trainer
from trainer.config import TrainConfig
from trainer.contrast import Contrast
from trainer.methods.proposed import step as growing
from trainer.networks.progressive import STDDEV_GROUP, Networks
from trainer.run.checkpoint import checkpoint_names, read_info
from trainer.run.folder import prepare
from trainer.run.weights import read_tensors
from trainer.schedule import Phase
from trainer.training import step as shared
from trainer.training.group import Group, check_agreement, fitting_size
from trainer.training.health import FiniteWatch, NotFiniteError, losing_warning, warnings
from trainer.training.loop import Hooks, train

NAN, INF = float("nan"), float("inf")
CPU = torch.device("cpu")


def poisoned_batch(monkeypatch: pytest.MonkeyPatch, at: int, times: int) -> list[int]:
    """One pixel of the batch at a count becomes no number, so many times; returns where steps ran."""
    seen: list[int] = []
    original, to_float = growing.GrowingStep.run, shared.to_float

    def run(step: growing.GrowingStep, images_seen: int) -> dict[str, torch.Tensor]:
        seen.append(images_seen)
        return original(step, images_seen)

    def one_pixel(images: torch.Tensor, contrast: Contrast) -> torch.Tensor:
        result = to_float(images, contrast).clone()
        if seen[-1] == at and seen.count(at) <= times:
            result[0, 0, 0, 0] = NAN
        return result

    monkeypatch.setattr(growing.GrowingStep, "run", run)
    monkeypatch.setattr(shared, "to_float", one_pixel)
    return seen


def poisoned_weight(monkeypatch: pytest.MonkeyPatch, at: int, times: int, value: float = INF) -> list[int]:
    """One weight of the generator is spoilt before the step at a count, so many times; returns where steps ran."""
    seen: list[int] = []
    original = growing.GrowingStep.run

    def run(step: growing.GrowingStep, images_seen: int) -> dict[str, torch.Tensor]:
        seen.append(images_seen)
        if images_seen == at and seen.count(at) <= times:
            with torch.no_grad():
                step.networks.generator.conv.bias[3] = value
        return original(step, images_seen)

    monkeypatch.setattr(growing.GrowingStep, "run", run)
    return seen


@pytest.mark.parametrize("poison", [poisoned_batch, pytest.param(poisoned_weight, marks=pytest.mark.slow)])
@pytest.mark.parametrize("at", [80, 112], ids=["between checkpoints", "just before one"])
def test_a_run_goes_back_once_and_ends_as_if_nothing_had_been(
    poison: Callable[..., list[int]],
    at: int,
    full: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The newest checkpoint is the one at 64, or at 96; the step at 112 ends at 128, where one would be."""
    out = cut_back(full, 48, tmp_path / "run")
    (out / "log.txt").unlink()
    newest = max(count for count in (64, 96) if count <= at)
    ran = poison(monkeypatch, at, 1)
    with unhurried():
        trainer(words_of(dataset, out, dataset.parent / "cache"))
    assert ran == [*range(48, at + 1, 16), *range(newest, 224, 16)], "stopped in that very step, and went back"
    log = (out / "log.txt").read_text().splitlines()
    (warned,) = [line for line in log if line.startswith("warning:")]
    assert f"after the step at {at} images" in warned and "going back to the newest checkpoint" in warned
    assert f"from {newest} images" in log[log.index(warned) + 1]
    assert bits(out) == bits(full) and said(out) == said(full)


@pytest.mark.parametrize("poison", [poisoned_batch, poisoned_weight])
def test_in_the_end_the_run_ends_with_advice_and_keeps_what_is_good(
    poison: Callable[..., list[int]],
    full: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = cut_back(full, 64, tmp_path / "run")
    ran = poison(monkeypatch, 112, 99)
    with unhurried():
        assert run_command(trainer, words_of(dataset, out, dataset.parent / "cache")) == 2
    assert ran == [64, 80, 96, 112, 96, 112, *[64, 80, 96, 112] * 2], "once at the same rate, then twice at lower ones"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "112 images" in line and "--learning-rate" in line and "--out" in line
    assert checkpoint_names(out) == [f"images-{count:09d}" for count in (48, 64, 96)]
    for name in checkpoint_names(out):
        info = read_info(f"{out}/checkpoints/{name}")
        for file in info.sha256:
            tensors = read_tensors(info, file.removesuffix(".safetensors"))
            assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert max(line["images_seen"] for line in lines(out)) <= 112


def test_weights_that_are_no_numbers_never_become_a_checkpoint(
    full: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line of defence: where a step's own look is blind, no checkpoint is written all the same."""
    out = cut_back(full, 64, tmp_path / "run")
    monkeypatch.setattr(FiniteWatch, "look", lambda *_: None)
    poisoned_weight(monkeypatch, 80, 99)
    assert run_command(trainer, words_of(dataset, out, dataset.parent / "cache")) == 2
    assert "--learning-rate" in capsys.readouterr().err
    assert checkpoint_names(out) == [f"images-{count:09d}" for count in (48, 64)]


def test_moments_that_are_no_finite_numbers_are_found_before_they_are_saved(
    full: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = growing.GrowingStep.run, []

    def run(step: growing.GrowingStep, images_seen: int) -> dict[str, torch.Tensor]:
        seen.append(images_seen)
        if seen.count(80) == 1 and images_seen == 80:
            state = next(iter(step.optimisers["critic_adam"].state.values()))
            state["exp_avg_sq"].fill_(INF)
        return original(step, images_seen)

    monkeypatch.setattr(growing.GrowingStep, "run", run)
    out = cut_back(full, 64, tmp_path / "run")
    with unhurried():
        trainer(words_of(dataset, out, dataset.parent / "cache"))
    assert bits(out) == bits(full)


def _poisoned_rank(rank: int, world: int, place: str, config: TrainConfig) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=world)
    with pytest.MonkeyPatch.context() as patch:
        poisoned_weight(patch, 80, 1)
        train(config, Hooks(log=lambda line: None))
    leave_group()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3], ids=["all train", "one stands by"])
def test_several_workers_go_back_together(dataset: Path, tmp_path: Path, world: int) -> None:
    config = config_of([*words_of(dataset, tmp_path / "run", dataset.parent / "cache"), "--patience", "60"])
    prepare(config)
    group = spawn(_poisoned_rank, args=(world, str(tmp_path / "meeting"), config), nprocs=world, join=False)
    assert group
    try:
        deadline = time.monotonic() + 120
        while not group.join(timeout=1):
            assert time.monotonic() < deadline, "they wait for one another"
    finally:
        for process in group.processes:
            if process:
                process.kill()
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "warning: the weights are NaN or infinite after the step at 80 images" in log
    assert checkpoint_names(config.out)[-1] == "images-000000224"


def test_a_new_run_that_fails_before_its_first_checkpoint_says_so_again(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = poisoned_batch(monkeypatch, 16, 99)
    assert run_command(trainer, words_of(dataset, tmp_path / "run", dataset.parent / "cache")) == 2
    said_first = capsys.readouterr().err
    assert ran == [0, 16] * 4 and "16 images" in said_first
    assert run_command(trainer, words_of(dataset, tmp_path / "run", dataset.parent / "cache")) == 2
    assert ran == [0, 16] * 4 and capsys.readouterr().err == said_first


# What a watch finds

SHAPES = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@settings(max_examples=150, deadline=None)
@given(SHAPES, st.sampled_from([NAN, INF, -INF]), st.data())
def test_any_value_that_is_no_finite_number_is_found(sizes: list[int], bad: float, data: st.DataObject) -> None:
    tensors = [torch.linspace(-1, 1, size) for size in sizes]
    chosen = data.draw(st.integers(0, len(sizes) - 1))
    tensors[chosen][data.draw(st.integers(0, sizes[chosen] - 1))] = bad
    watch = FiniteWatch(CPU)
    with pytest.raises(NotFiniteError, match="1,234 images"):
        watch.look(tensors, 1234)
    with pytest.raises(NotFiniteError, match="1,234 images"):
        watch.check_all(tensors, 1234)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-(2.0**50), 2.0**50, width=32), min_size=1, max_size=20),
        min_size=1,
        max_size=5,
    )
)
def test_finite_numbers_are_never_complained_of(rows: list[list[float]]) -> None:
    """Up to 1e15: weights of a network are of order 1, and a sum of squares above 3e38 is infinite."""
    watch = FiniteWatch(CPU)
    tensors = [torch.tensor(row, dtype=torch.float32) for row in rows]
    watch.look(tensors, 0)
    watch.check_all(tensors, 0)
    watch.settle()


# What is said of a line of metrics


def healthy(run: Path) -> dict[str, float]:
    return [line for line in lines(run) if "critic/loss" in line][-1]


def test_nothing_is_said_of_a_healthy_run(run: Path) -> None:
    assert all(warnings(line, 8) == {} for line in lines(run) if "critic/loss" in line)
    assert "warning" not in (run / "log.txt").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"critic/slope": 0.0}, ("critic is dead", "--learning-rate", "--penalty")),
        ({"critic/slope": 0.009}, ("critic is dead",)),
        ({"generator/spread": 0.0}, ("generator has collapsed", "--learning-rate")),
        ({"generator/spread": 0.01, "critic/spread_real": 0.5}, ("0.01", "0.5")),
        ({"encoder/z_hat_norm": 100.0}, ("||z_hat|| drifts", "35", "--distance-weight")),
        ({"encoder/z_hat_norm": 0.01}, ("||z_hat|| drifts",)),
        ({"encoder/z_hat_norm": NAN}, ("||z_hat|| drifts",)),
    ],
)
def test_each_trouble_is_named_alone_with_a_remedy(run: Path, changes: dict[str, float], words: tuple[str]) -> None:
    (said,) = warnings(healthy(run) | changes, 8).values()
    assert all(word in said for word in words) and " - " in said and "\n" not in said


def test_several_troubles_are_all_named(run: Path) -> None:
    changes = {"critic/slope": 0.0, "generator/spread": 0.0, "encoder/z_hat_norm": 0.0}
    assert len(warnings(healthy(run) | changes, 8)) == 3


def test_a_warning_reaches_the_log(full: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator whose images are all alike: nothing of its latents gets through."""
    original = growing.GrowingStep.run

    def run(step: growing.GrowingStep, images_seen: int) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            step.networks.generator.dense.weight.zero_()
        return original(step, images_seen)

    monkeypatch.setattr(growing.GrowingStep, "run", run)
    out = cut_back(full, 192, tmp_path / "run")
    trainer(words_of(dataset, out, dataset.parent / "cache"))
    log = (out / "log.txt").read_text()
    assert "warning: the generator has collapsed" in log.split("from 192 images")[1]


# Who trains


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(1, 64), min_size=1, max_size=5))
def test_as_many_workers_train_as_divide_every_batch_into_whole_groups(workers: int, groups: list[int]) -> None:
    batches = [STDDEV_GROUP * count for count in groups]
    fits = [
        size
        for size in range(1, workers + 1)
        if all(batch % size == 0 and (batch // size) % STDDEV_GROUP == 0 for batch in batches)
    ]
    assert fitting_size(workers, batches) == fits[-1]


def _agree(rank: int, world: int, place: str, folder: str) -> None:
    """Compare weights as they are, then with one bit of one of them altered on the second worker."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=world)
    group = Group(rank, world, world, torch.distributed.group.WORLD, node=f"node-{rank}")
    networks = Networks.build(8, 1, 8, 1)
    check_agreement(group, networks, 4000)
    said: dict[str, Any] = {}
    for name, number in (("generator", 0), ("critic", -1), ("encoder", 3), ("ema", 5)):
        words = networks.by_name()[name].state_dict()
        word = list(words.values())[number].view(torch.int32).view(-1)
        for bit in (0, 31):
            if rank == 1:
                word[-1] ^= -(2**31) if bit == 31 else 1
            try:
                check_agreement(group, networks, 4000)
            except RuntimeError as error:
                said[f"{name} {bit}"] = str(error)
            if rank == 1:
                word[-1] ^= -(2**31) if bit == 31 else 1
    check_agreement(group, networks, 4000)
    try:
        check_agreement(group, networks, 4000 + rank)
    except RuntimeError as error:
        said["count"] = str(error)
    Path(folder, f"{rank}.json").write_text(json.dumps(said))
    leave_group()


@pytest.mark.slow
def test_workers_whose_weights_differ_in_one_bit_stop_and_name_each_other(tmp_path: Path) -> None:
    spawn(_agree, args=(2, str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    for rank in range(2):
        said = json.loads((tmp_path / f"{rank}.json").read_text())
        assert len(said) == 9, said.keys()
        for message in said.values():
            assert "worker 1 (node-1) differs from worker 0 (node-0)" in message and "after 4,00" in message


def _hang(rank: int, world: int, place: str, config: TrainConfig, folder: str) -> None:
    """The second worker stops in the middle of the fade, for much longer than the first has patience."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=world)
    asked = itertools.count(1)

    def stopped() -> bool:
        if next(asked) == 6 and rank == 1:
            time.sleep(120)
        return False

    try:
        train(config, Hooks(log=lambda line: None, stopped=stopped, node=f"node-{rank}"))
    except RuntimeError as error:
        Path(folder, f"said by {rank}").write_text(str(error))


@pytest.mark.slow
def test_a_worker_that_hangs_is_waited_for_no_longer_than_patience(dataset: Path, tmp_path: Path) -> None:
    config = config_of([*words_of(dataset, tmp_path / "run", dataset.parent / "cache"), "--patience", "15"])
    prepare(config)
    group = spawn(_hang, args=(2, str(tmp_path / "meeting"), config, str(tmp_path)), nprocs=2, join=False)
    assert group
    try:
        first, second = group.processes
        assert first and second
        first.join(90)
        assert second.is_alive(), "the error comes before the hanging one goes on"
    finally:
        for process in group.processes:
            if process:
                process.kill()
    said = (tmp_path / "said by 0").read_text()
    assert said.startswith("worker 0 (node-0) waited 15 s for the others - ") and "--patience" in said


def test_a_critic_that_lost_a_phase_is_said_with_a_remedy_that_is_left() -> None:
    phase = Phase(1, 8, "stable", 1000, 5000, 32, 0.004)
    metrics = [{"images_seen": seen, "critic/losing": 0.1 if seen <= 1000 else 0.9} for seen in range(500, 5001, 500)]
    warning = losing_warning(metrics, phase, False)
    assert "90%" in warning and warning.endswith("lower --generator-rate, or give --contrast learned")
    assert losing_warning(metrics, phase, True).endswith("lower --generator-rate")
    assert not losing_warning(metrics[:2], phase, False)
