"""The peers through the front door: the same loop, data, checkpoints and wiring as the method's own training runs."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from tests.support.checks import refuses
from tests.support.runs import bits, cut_back, lines, said, words_of
from tests.support.tables import read_csv
from trainer.__main__ import main as trainer
from trainer.run.checkpoint import chosen_checkpoint
from trainer.scoring.inference import Inference

SHORT = shlex.split(
    "--preset demo --resolution 8 --width 8 --fade-images 64 --stable-images 64 --final-images 96 --minibatch.4 16"
    " --minibatch.8 16 --log-images 32 --precision float32 --checkpoint-images 80 --keep 99"
    " --fanogan.width 4 --fanogan.latent-size 8 --fanogan.minibatch 8 --fanogan.gan-images 160"
    " --fanogan.encoder-images 96 --search.steps 10"
)
PEERS = {"fanogan": [80, 160, 240, 256], "search": [64, 80, 128, 160, 224]}
"""Where each saves: f-AnoGAN's steps of five batches end at 40, 80, ... 160, then its encoder's at 168, 176, ..."""


def train(method: str, dataset: Path, out: Path, *more: str) -> Path:
    trainer([*words_of(dataset, out, dataset.parent / "cache", SHORT), "--method", method, *more])
    return out


@pytest.fixture(scope="module", params=PEERS)
def peer(request: pytest.FixtureRequest, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, train(request.param, dataset, tmp_path_factory.mktemp("peer") / request.param)


def weights(checkpoint: Path, network: str) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / f"{network}.safetensors")


def test_a_peers_checkpoints_lie_where_the_schedule_says(peer: tuple[str, Path]) -> None:
    method, run = peer
    assert sorted(int(path.name[-9:]) for path in (run / "checkpoints").iterdir()) == PEERS[method]
    assert (run / "finished.json").exists() and "critic/wasserstein" in (run / "metrics.jsonl").read_text()


@pytest.mark.parametrize("back_to", [0, 1, 2])
def test_a_peer_that_was_interrupted_ends_as_one_that_was_not(
    peer: tuple[str, Path], back_to: int, dataset: Path, tmp_path: Path
) -> None:
    """In f-AnoGAN's case with what batch norm has learned, in its first phase, at its end, and in its second one."""
    method, run = peer
    again = cut_back(run, PEERS[method][back_to], tmp_path / "run")
    train(method, dataset, again)
    assert bits(again) == bits(run)
    assert [line for line in said(again) if "critic" in line] == [line for line in said(run) if "critic" in line]


@pytest.mark.slow
def test_two_workers_of_a_peer_go_on_to_the_same_bits(dataset: Path, tmp_path: Path) -> None:
    whole = train("fanogan", dataset, tmp_path / "whole", "--workers", "2")
    parts = cut_back(whole, 80, tmp_path / "parts")
    train("fanogan", dataset, parts, "--workers", "2")
    assert bits(parts) == bits(whole)


def test_training_the_encoder_leaves_generator_and_critic_as_they_were(
    dataset: Path, peer: tuple[str, Path], tmp_path: Path
) -> None:
    if peer[0] != "fanogan":
        pytest.skip("has no encoder")
    before, after = (peer[1] / "checkpoints" / f"images-{count:09d}" for count in (160, 256))
    for network in ("generator", "critic"):
        old, new = weights(before, network), weights(after, network)
        assert all(torch.equal(old[name], new[name]) for name in old), network  # batch norm's averages included
    old, new = weights(before, "encoder"), weights(after, "encoder")
    assert not any(torch.equal(old[name], new[name]) for name in old if name.endswith("weight"))


def test_the_first_phase_leaves_the_encoder_as_it_was_drawn(peer: tuple[str, Path]) -> None:
    if peer[0] != "fanogan":
        pytest.skip("has no encoder")
    first, second = (weights(peer[1] / "checkpoints" / f"images-{count:09d}", "encoder") for count in (80, 160))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_checkpoint_is_validated_only_where_an_encoder_has_been_trained(peer: tuple[str, Path]) -> None:
    method, run = peer
    validated = [line["images_seen"] for line in lines(run) if "validation/L_n" in line]
    assert validated and set(validated) <= {240, 256} if method == "fanogan" else validated == []
    if method == "search":
        refuses(lambda: chosen_checkpoint(str(run), best=True), "best.json")


def test_a_peers_scores_are_each_querys_own(peer: tuple[str, Path], dataset: Path) -> None:
    detector = Inference.load(peer[1])
    images = open_dataset(str(dataset), open_cache(str(dataset.parent / "cache"))).images("test-normal")[:6]
    together, shuffled = detector.values(images), detector.values(images[::-1].copy(), batch=4)
    for name, column in together.terms.items():
        np.testing.assert_allclose(shuffled[name][::-1], column, rtol=1e-3, atol=1e-5, err_msg=name)
    again = Inference.load(peer[1]).values(images)
    assert all(np.array_equal(again[name], column) for name, column in together.terms.items())


@pytest.mark.slow
def test_a_peers_report_has_its_terms(peer: tuple[str, Path], dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(peer[1], run)
    trainer(["evaluate", str(run), "--cache", str(dataset.parent / "cache")])
    rows = read_csv(run / "evaluation" / "scores.csv")
    assert len(rows) == 24 and {"L_n", "L_o", "L_r", "A", "D"} <= set(rows[0])
    assert (run / "evaluation" / "index.html").exists()


def test_options_of_peers_that_are_out_of_range_are_named(dataset: Path, tmp_path: Path) -> None:
    for method, words in {
        "fanogan": ["--fanogan.critic-steps", "0"],
        "search": ["--search.restarts", "0"],
    }.items():
        refuses(lambda: train(method, dataset, tmp_path / "run", *words), words[0])  # noqa: B023
    refuses(lambda: train("fanogan", dataset, tmp_path / "run", "--resolution", "4"), "--resolution 4", "8")
    refuses(lambda: train("fanogan", dataset, tmp_path / "run", "--fanogan.minibatch", "6"), "--fanogan.minibatch 6")
    assert not (tmp_path / "run").exists()
