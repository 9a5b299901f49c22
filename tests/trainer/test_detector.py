"""The detector against a plain float64 second implementation, and what a score may depend on."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from data_tools.errors import UserError
from trainer.networks.progressive import Networks
from trainer.presets import demo
from trainer.run.checkpoint import Snapshot, write_checkpoint
from trainer.scoring.inference import Inference, Values
from trainer.scoring.terms.normalised_residual import min_max

R, WIDTH = 16, 8
RNG = np.random.default_rng(11)
COLUMNS = ("L_n", "L_o", "L_r")


def noise(count: int, side: int, channels: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def detector(channels: int = 1, alpha: float | None = None, seed: int = 7) -> Inference:
    networks = Networks.build(R, channels, WIDTH, seed)
    config = dataclasses.replace(demo(), width=WIDTH)
    return Inference.of(config, {"ema": networks.ema, "encoder": networks.encoder}, R, channels, alpha, "cpu")


def column(scores: Values, name: str) -> np.ndarray:
    return scores[name]


def score(d: Inference, images: np.ndarray, batch: int = 64) -> Values:
    """What needs no critic."""
    return d.values(images, d.quick, batch)


def values(columns: np.ndarray) -> Values:
    return Values(dict(zip(COLUMNS, columns)), {}, None)


def scaled(image: np.ndarray) -> np.ndarray:
    low, high = image.min(), image.max()
    return np.zeros_like(image) if low == high else (image - low) / (high - low)


def prepared(images: np.ndarray, alpha: float | None) -> np.ndarray:
    """What the encoder should see, float64 N x R x R x C."""
    n, side, _, c = images.shape
    factor = side // R
    x = (images.astype(np.float64) / 127.5 - 1).reshape(n, R, factor, R, factor, c).mean(axis=(2, 4))
    if alpha is None:
        return x
    coarse = x.reshape(n, R // 2, 2, R // 2, 2, c).mean(axis=(2, 4)).repeat(2, axis=1).repeat(2, axis=2)
    return coarse + alpha * (x - coarse)


def plain_scores(d: Inference, images: np.ndarray, alpha: float | None = None) -> tuple[Values, np.ndarray]:
    """Scores by the formulas, and |w(Q) - w(R)| over channels, one query at a time; the networks alone are shared."""
    fade = None if alpha is None else torch.tensor(alpha)
    rows, maps = [], []
    for query in prepared(images, alpha):
        pixels = torch.from_numpy(query.transpose(2, 0, 1)[None].copy()).float()
        z_hat = d.networks["encoder"](pixels, R, fade, group=1)
        match = d.networks["ema"](z_hat, R, fade)[0].numpy().transpose(1, 2, 0).astype(np.float64)
        z = z_hat[0].numpy().astype(np.float64)
        difference = scaled(query) - scaled(match)
        l_n = np.sqrt((difference**2).sum()) / query.size
        rows.append((l_n, -np.sqrt((z**2).sum()) / np.sqrt(z.size), np.sqrt(((query - match) ** 2).sum())))
        maps.append(np.abs(difference).mean(axis=2))
    return values(np.array(rows).T), np.array(maps)


@settings(deadline=None)
@given(numpy_st.arrays(np.float32, (2, 3, 4, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_min_max_stays_in_the_unit_interval(images: np.ndarray) -> None:
    w = min_max(torch.from_numpy(images))
    assert w.shape == images.shape
    assert torch.isfinite(w).all() and w.min() >= 0 and w.max() <= 1


@settings(deadline=None)
@given(
    numpy_st.arrays(np.float64, (2, 3, 4, 4), elements=st.integers(0, 255)), st.floats(0.01, 100), st.floats(-100, 100)
)
def test_min_max_ignores_brightness_and_contrast_of_the_whole_image(x: np.ndarray, scale: float, shift: float) -> None:
    w = min_max(torch.from_numpy(x))
    torch.testing.assert_close(min_max(torch.from_numpy(scale * x + shift)), w, rtol=0, atol=1e-8)
    for image, mine in zip(x, w.numpy(), strict=True):
        np.testing.assert_allclose(mine, scaled(image), rtol=1e-12)
        if image.min() < image.max():
            assert (mine.min(), mine.max()) == (0, 1)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0, 1e-40, 3e38])
def test_min_max_of_a_constant_image_is_zero(value: float) -> None:
    assert torch.equal(min_max(torch.full((1, 3, 4, 4), value)), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("side", [R, 4 * R])
def test_scores_and_heat_maps_agree_with_a_plain_second_implementation(
    channels: int, alpha: float | None, side: int
) -> None:
    d, images = detector(channels, alpha), noise(5, side, channels)
    images[1] = 90  # constant
    images[2, :, : side // 2] = 255
    expected, maps = plain_scores(d, images, alpha)
    scores = score(d, images)
    for name in COLUMNS:
        assert column(scores, name).dtype == np.float64
        np.testing.assert_allclose(column(scores, name), column(expected, name), rtol=1e-5, err_msg=name)
    for lam in (0.0, 0.05, 0.9, 1.0):
        parts = np.stack([lam * column(expected, "L_n"), (1 - lam) * column(expected, "L_o")])
        assert (np.abs(scores.anomaly(lam) - parts.sum(axis=0)) <= 1e-5 * np.abs(parts).sum(axis=0)).all()
    np.testing.assert_allclose(scores.anomaly(), scores.anomaly(0.05), rtol=0)
    np.testing.assert_allclose(d.heatmap(images), maps, atol=1e-5)


def test_the_fade_is_applied() -> None:
    images = noise(6, R, 1)
    by_alpha = {alpha: score(detector(1, alpha), images) for alpha in (None, 0.0, 0.5, 1.0)}
    for name in COLUMNS:
        values = {alpha: column(scores, name) for alpha, scores in by_alpha.items()}
        np.testing.assert_allclose(values[1.0], values[None], rtol=1e-5)
        assert all(np.abs(values[a] / values[b] - 1).max() > 1e-3 for a, b in ((0.0, 0.5), (0.5, 1.0), (0.0, 1.0)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [None, 0.5])
def test_a_score_does_not_depend_on_the_other_queries(channels: int, alpha: float | None) -> None:
    d, images = detector(channels, alpha), noise(21, R, channels)
    images[3] = 0
    alone = [score(d, images[i : i + 1]) for i in range(len(images))]
    order = RNG.permutation(len(images))
    readings = {name: lambda scores, name=name: column(scores, name) for name in COLUMNS} | {"a": Values.anomaly}
    for name, reading in readings.items():
        expected = np.concatenate([reading(scores) for scores in alone])
        for batch in (1, 3, 4, 8, 64):
            for mine, places in ((score(d, images, batch), np.arange(21)), (score(d, images[order], batch), order)):
                error = np.abs(reading(mine) - expected[places])
                assert name == "L_r" or error.max() < 1e-6, (name, batch)  # L_r is of order 10
                assert (error / np.abs(expected[places])).max() < 5e-6, (name, batch)  # float32 rounds again


def test_the_encoder_sees_each_query_by_itself() -> None:
    """In float64, where rounding hides nothing: the neighbours of a query have no influence, near or far."""
    encoder = Networks.build(R, 1, WIDTH, 7).encoder.double()
    images = torch.from_numpy(RNG.normal(size=(9, 1, R, R)))
    together = encoder(images, R, group=1)
    alone = torch.cat([encoder(image[None], R, group=1) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("channels", [1, 3])
def test_constant_images_score_without_nan(channels: int) -> None:
    d = detector(channels)
    images = np.stack([np.full((R, R, channels), value, np.uint8) for value in (0, 127, 255)])
    scores = score(d, images)
    assert all(np.isfinite(column(scores, name)).all() for name in COLUMNS)
    assert np.isfinite(d.heatmap(images)).all() and np.isfinite(d.reconstruct(images)).all()
    for parameter in d.networks["ema"].parameters():
        parameter.zero_()  # now every closest match is constant too
    assert np.array_equal(score(d, images)["L_n"], np.zeros(3))


@pytest.mark.parametrize("channels", [1, 3])
def test_heat_maps_and_matches_have_the_detectors_size(channels: int) -> None:
    d, images = detector(channels), noise(5, 2 * R, channels)
    heat, matches = d.heatmap(images, batch=2), d.reconstruct(images, batch=2)
    assert (heat.shape, heat.dtype) == ((5, R, R), np.float32)
    assert heat.min() >= 0 and heat.max() <= 1 and heat.std() > 0
    assert (matches.shape, matches.dtype) == ((5, R, R, channels), np.float32)


def test_no_images_give_empty_answers() -> None:
    d, none = detector(3), np.zeros((0, R, R, 3), np.uint8)
    assert all(column(score(d, none), name).shape == (0,) for name in COLUMNS)
    assert d.heatmap(none).shape == (0, R, R)
    assert d.reconstruct(none).shape == (0, R, R, 3)


def test_read_only_images_are_scored_in_silence_and_stay_as_they_are() -> None:
    images = noise(4, R, 1)
    before = images.copy()
    images.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(detector(), images)
    assert np.array_equal(images, before)


@pytest.mark.parametrize(
    ("images", "named"),
    [
        (np.zeros((2, R, R, 1), np.float32), "float32"),
        (np.zeros((R, R, 1), np.uint8), r"\(16, 16, 1\)"),
        (np.zeros((2, R, R, 3), np.uint8), "3 channels"),
        (np.zeros((2, R // 2, R // 2, 1), np.uint8), "8x8"),
        (np.zeros((2, R, 2 * R, 1), np.uint8), "16x32"),
        (np.zeros((2, R + 8, R + 8, 1), np.uint8), "24x24"),
    ],
)
def test_images_that_do_not_fit_are_refused_in_one_line(images: np.ndarray, named: str) -> None:
    d = detector()
    for use in (lambda images: score(d, images), d.heatmap, d.reconstruct):
        with pytest.raises(UserError, match=rf"{named}.* - ") as caught:
            use(images)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_a_loaded_detector_scores_as_the_networks_in_memory(tmp_path: Path, alpha: float | None) -> None:
    networks = Networks.build(2 * R, 3, WIDTH, 7)
    for parameter in networks.ema.parameters():
        parameter += torch.randn_like(parameter)  # so that the average is not the generator
    config = dataclasses.replace(demo(), resolution=2 * R, width=WIDTH, minibatch={4: 8, 8: 8, 16: 8, 32: 8})
    snapshot = Snapshot(500, R, alpha, 3, "digest", config, networks.weights())
    write_checkpoint(str(tmp_path), snapshot)
    folder = tmp_path / "checkpoints" / snapshot.name
    images = noise(6, 2 * R, 3)
    by_name = {"ema": networks.ema, "encoder": networks.encoder}
    expected = score(Inference.of(config, by_name, R, 3, alpha, "cpu"), images)
    for place in (tmp_path, folder, str(folder)):
        loaded = Inference.load(place, "cpu")
        assert (loaded.resolution, loaded.channels) == (R, 3)
        for name in COLUMNS:
            assert np.array_equal(column(score(loaded, images), name), column(expected, name))


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_lies_between_its_two_parts(lam: float, seed: int) -> None:
    l_n, l_o = np.random.default_rng(seed).normal(size=(2, 10))
    a = values(np.stack([l_n, l_o, l_n])).anomaly(lam)
    assert (a <= np.maximum(l_n, l_o) + 1e-12).all() and (a >= np.minimum(l_n, l_o) - 1e-12).all()
