"""What every method of one loss keeps, through the front door: resume to the bit, scores of its own, terms, exports."""

from __future__ import annotations

import dataclasses
import math
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from tests.support.checks import refuses
from tests.support.runs import bits, cut_back, said, words_of
from tests.support.tables import read_csv
from trainer.__main__ import main as trainer
from trainer.config import TrainConfig
from trainer.methods import METHODS
from trainer.scoring.inference import Inference

COMMON = "--preset demo --resolution 8 --log-images 32 --precision float32 --checkpoint-images 48 --keep 99"
AUTOENCODER = "--{0}.width 4 --{0}.code-size 8 --{0}.images 128 --{0}.minibatch 16"
AAE = "--{0}.width 8 --{0}.code-size 4 --{0}.discriminator-width 8 --{0}.images 64 --{0}.minibatch 16"
SIZES = {
    "aae": AAE + " --aae.layers dense --aae.images 128",
    "itsr": AAE + " --itsr.rounds 2 --itsr.round-images 16 --itsr.last-images 32 --itsr.nu 0.2",
    "ae": AUTOENCODER,
    "drae": AUTOENCODER,
    "egbad": AUTOENCODER + " --egbad.layers digits",
    "alad": AUTOENCODER,
    "fence_gan": AUTOENCODER + " --{0}.first-images 32 --{0}.images 96",
    "ganomaly": AUTOENCODER,
    "skip_ganomaly": AUTOENCODER,
    "geom": "--geom.width 1 --geom.transforms turns --geom.views 128 --geom.minibatch 16",
    "vae": AUTOENCODER + " --vae.draws 2",
    "svdd": "--svdd.width 4 --svdd.code-size 16 --svdd.autoencoder-images 64 --svdd.images 64 --svdd.minibatch 16"
    " --svdd.boundary soft",
}
SAVED = {method: [48, 96, 128] for method in SIZES} | {"geom": [48, 128, 144]}
"""Where each saves first, and at its end."""
Trained = tuple[str, Path]
QUICK = ("aae", "ae", "geom", "svdd", "ganomaly")
"""One of each kind of step; the others take as long and are marked slow."""
TRAINED = [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in SIZES]
every_method = pytest.mark.parametrize("method", SIZES)


def train(method: str, dataset: Path, out: Path, *more: str) -> Path:
    sizes = shlex.split(f"{COMMON} {SIZES[method].format(method.replace('_', '-'))}")
    trainer([*words_of(dataset, out, dataset.parent / "cache", sizes), "--method", method, *more])
    return out


@pytest.fixture(scope="module", params=TRAINED)
def trained(request: pytest.FixtureRequest, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return request.param, train(request.param, dataset, tmp_path_factory.mktemp("trained") / request.param)


def images_of(dataset: Path, count: int = 6) -> np.ndarray:
    return open_dataset(str(dataset), open_cache(str(dataset.parent / "cache"))).images("test-normal")[:count]


@pytest.mark.parametrize("back_to", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_what_was_interrupted_ends_as_what_was_not(
    trained: Trained, back_to: int, dataset: Path, tmp_path: Path
) -> None:
    method, run = trained
    again = cut_back(run, SAVED[method][back_to], tmp_path / "run")
    train(method, dataset, again)
    assert bits(again) == bits(run)
    assert [line for line in said(again) if "/loss" in line] == [line for line in said(run) if "/loss" in line]


def test_scores_are_each_querys_own(trained: Trained, dataset: Path) -> None:
    detector, images = Inference.load(trained[1]), images_of(dataset)
    together, shuffled = detector.values(images), detector.values(images[::-1].copy(), batch=4)
    alone = [detector.values(one[None]) for one in images]
    for name, column in together.terms.items():
        np.testing.assert_allclose(shuffled[name][::-1], column, rtol=1e-3, atol=1e-5, err_msg=name)
        np.testing.assert_allclose([each[name][0] for each in alone], column, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_the_report_has_the_methods_terms(trained: Trained, dataset: Path, tmp_path: Path) -> None:
    method, run = trained
    shutil.copytree(run, tmp_path / "run")
    trainer(["evaluate", str(tmp_path / "run"), "--cache", str(dataset.parent / "cache")])
    rows = read_csv(tmp_path / "run" / "evaluation" / "scores.csv")
    assert len(rows) == 24 and {term.name for term in METHODS[method].terms()} <= set(rows[0])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_it_is_exported_with_its_parity_gate(trained: Trained, form: str, dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx" if form == "onnx" else "torch")
    trainer(["export", str(trained[1]), "--out", str(tmp_path / "out"), "--format", form])
    assert (tmp_path / "out").exists()


@every_method
def test_presets_are_in_range(method: str) -> None:
    for preset, options in METHODS[method].presets().items():
        config = dataclasses.replace(TrainConfig(preset=preset, resolution=32), method=method, **{method: options})
        assert METHODS[method].chosen(config.validated()) == options


SMALL = {
    "width": 2,
    "code_size": 16,
    "discriminator_width": 4,
    "starts": 2,
    "steps": 1,
    "restarts": 1,
    "latent_size": 4,
}
SHAPES = [(16, 1), (64, 3)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("resolution", "channels"), SHAPES)
def test_grey_and_colour_from_16_to_64_pixels(method: str, resolution: int, channels: int) -> None:
    """Networks as drawn score images of any of these shapes by every term."""
    options = METHODS[method]
    small = {each.name: SMALL[each.name] for each in dataclasses.fields(options) if each.name in SMALL}
    if method == "geom":
        small |= {"width": 1, "transforms": "turns"}
    options = dataclasses.replace(options, **small)
    own = {method: options} if dataclasses.fields(options) else {}
    config = dataclasses.replace(TrainConfig(width=8), method=method, resolution=resolution, **own).validated()
    networks = options.networks(config, channels, 3).by_name()
    inference = Inference.of(config, networks, resolution, channels, None, "cpu")
    images = np.random.default_rng(0).integers(0, 256, (3, resolution, resolution, channels), dtype=np.uint8)
    found = inference.values(images)
    assert all(np.isfinite(column).all() and len(column) == 3 for column in found.terms.values())
    assert set(found.terms) | set(found.rows) == {term.name for term in options.terms()}


NUMBERS = [
    (name, option.name)
    for name, method in METHODS.items()
    for option in dataclasses.fields(method)
    if not isinstance(getattr(method, option.name), str)
]


@pytest.mark.parametrize(("method", "option"), NUMBERS)
def test_numbers_out_of_range_are_named(method: str, option: str) -> None:
    for value in (-1, 0, math.inf):
        options = dataclasses.replace(METHODS[method], **{option: value})
        config = dataclasses.replace(TrainConfig(resolution=32), method=method, **{method: options})
        if value or option not in METHODS[method].may_be_0:
            refuses(config.validated, f"{METHODS[method].option(option)} {value}")
        else:
            config.validated()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["drae", "geom", "alad", "fence_gan", "itsr"])
def test_two_workers_go_on_to_the_same_bits(method: str, dataset: Path, tmp_path: Path) -> None:
    """One of each kind: statistics of the batch, a fit, averages and spectral norm, two phases, weights of images."""
    whole = train(method, dataset, tmp_path / "whole", "--workers", "2")
    parts = cut_back(whole, SAVED[method][0], tmp_path / "parts")
    train(method, dataset, parts, "--workers", "2")
    assert bits(parts) == bits(whole)


def test_itsr_is_the_adversarial_autoencoder_until_it_rejects(dataset: Path, tmp_path: Path) -> None:
    runs = (
        train("aae", dataset, tmp_path / "aae", "--aae.layers", "convolutions"),
        train("itsr", dataset, tmp_path / "itsr"),
    )
    saved = [run / "checkpoints" / "images-000000048" for run in runs]
    for name in ("encoder", "decoder", "discriminator"):
        one, other = ((folder / f"{name}.safetensors").read_bytes() for folder in saved)
        assert one == other, name
