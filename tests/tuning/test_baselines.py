"""The plain baselines against direct formulas, on planted outliers, and on training sets that are tiny or flat."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.covariance import ShrunkCovariance
from sklearn.metrics import roc_auc_score

from tests.support.checks import refuses
from trainer.scoring.gaussian import SHRINKAGE
from trainer.scoring.terms.intensities import details
from tuning import baselines
from tuning.baselines import baseline_scores, compared_images, min_max

NAMES = {
    "minus_std",
    "minus_max",
    "minus_mean",
    "intensities",
    "neighbours",
    "pca",
    "pca_minmax",
    "rx",
    "kde",
    "isolation_forest",
    "one_class_svm",
}


def noise(count: int, side: int, channels: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def patterned(count: int, seed: int, side: int = 8, outlier: bool = False) -> np.ndarray:
    """Sums of six fixed smooth patterns on grey, with a little pixel noise; an outlier adds a strong chessboard."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side * np.pi
    patterns = np.stack([np.cos(a * y + b * x) for a, b in ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (1, -1))])
    weights = draw.normal(size=(count, 6)) * [20, 16, 12, 10, 8, 6]
    images = 128 + np.tensordot(weights, patterns, axes=1) + draw.normal(0, 2, (count, side, side))
    if outlier:
        images += 60 * np.where(np.indices((side, side)).sum(axis=0) % 2, 1, -1) * draw.choice([-1, 1], (count, 1, 1))
    return images.round().clip(0, 255).astype(np.uint8)[..., None]


def flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float64) / 255


def plain_min_max(images: np.ndarray) -> np.ndarray:
    """One image at a time."""
    rows = [(x - x.min()) / (x.max() - x.min()) if x.max() > x.min() else 0 * x for x in flat(images)]
    return np.array(rows)


def by_svd(train: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, axes and standard deviations of N x D pixels, by numpy's SVD."""
    mean = train.mean(axis=0)
    _, singular, axes = np.linalg.svd(train - mean, full_matrices=False)
    return mean, axes[:components], singular[:components] / np.sqrt(len(train) - 1)


# by shape: 12 pixels (covariance, all of them), 300 pixels with many and with few images (covariance, then SVD)
SHAPES = [(400, 2, 3), (400, 10, 3), (40, 10, 3)]


@pytest.mark.parametrize(("count", "side", "channels"), SHAPES)
def test_statistics_neighbours_and_residuals_are_what_they_say(count: int, side: int, channels: int) -> None:
    train, test = noise(count, side, channels, 1), noise(30, side, channels, 2)
    test[3], test[4] = 77, 254 + test[4] % 2
    scores = baseline_scores(train, test, 0)
    assert set(scores) == NAMES
    assert all(s.dtype == np.float64 and s.shape == (30,) for s in scores.values())
    for i, image in enumerate(test.astype(np.float64)):
        assert scores["minus_std"][i] == pytest.approx(-np.sqrt(((image - image.mean()) ** 2).mean()))
        assert scores["minus_max"][i] == -image.max()
        assert scores["minus_mean"][i] == pytest.approx(-image.mean())
    np.testing.assert_allclose(min_max(test).reshape(30, -1), plain_min_max(test), atol=1e-12)
    nearest = np.sort(cdist(plain_min_max(test), plain_min_max(train)), axis=1)[:, :5]
    np.testing.assert_allclose(scores["neighbours"], nearest.mean(axis=1), rtol=1e-6)
    for name, prepare in (("pca", flat), ("pca_minmax", plain_min_max)):
        mean, axes, _ = by_svd(prepare(train), min(64, count - 1))
        centred = prepare(test) - mean
        residual = np.sqrt(((centred - centred @ axes.T @ axes) ** 2).sum(axis=1))
        np.testing.assert_allclose(scores[name], residual, atol=1e-8)


@pytest.mark.parametrize(("side", "channels"), [(2, 1), (2, 3), (4, 1)])
def test_rx_is_the_mahalanobis_distance(side: int, channels: int) -> None:
    mixed = np.random.default_rng(3).normal(size=(side * side * channels,) * 2)
    train, test = (
        (128 + 12 * (noise(n, side, channels, seed).reshape(n, -1) / 128 - 1) @ mixed).clip(0, 255).astype(np.uint8)
        for n, seed in ((500, 1), (40, 2))
    )
    shape = (-1, side, side, channels)
    inverse = np.linalg.inv(np.cov(flat(train).T))
    expected = cdist(flat(test), flat(train).mean(axis=0)[None], "mahalanobis", VI=inverse)[:, 0]
    np.testing.assert_allclose(baseline_scores(train.reshape(shape), test.reshape(shape), 0)["rx"], expected, rtol=1e-8)


def test_with_fewer_images_than_components_rx_is_the_distance_in_their_span() -> None:
    train, test = noise(20, 6, 1, 1), noise(15, 6, 1, 2)
    mean, axes, deviations = by_svd(flat(train), 19)
    expected = np.linalg.norm((flat(test) - mean) @ axes.T / deviations, axis=1)
    np.testing.assert_allclose(baseline_scores(train, test, 0)["rx"], expected, rtol=1e-8)


def test_the_density_is_the_sum_of_gaussians_near_the_data_and_far_from_it() -> None:
    train = patterned(300, 1)
    test = np.concatenate([patterned(20, 2), patterned(20, 3, outlier=True), noise(20, 8, 1, 4), train[:5]])
    mean, axes, deviations = by_svd(flat(train), 16)
    known, queries = (((flat(x) - mean) @ axes.T) / deviations for x in (train, test))
    width = 300 ** (-1 / 20)
    terms = -cdist(queries, known, "sqeuclidean") / (2 * width**2) - 8 * np.log(2 * np.pi * width**2)
    np.testing.assert_allclose(
        baseline_scores(train, test, 0)["kde"], np.log(300) - logsumexp(terms, axis=1), rtol=1e-7
    )


def test_planted_outliers_score_highest() -> None:
    """A few training images show the chessboard too, or PCA space would not hold it."""
    train = np.concatenate([patterned(400, 1, side=4), patterned(6, 2, side=4, outlier=True)])
    test = np.concatenate([patterned(100, 3, side=4), patterned(100, 4, side=4, outlier=True)])
    scores = baseline_scores(train, test, 0)
    for name in ("neighbours", "rx", "kde", "isolation_forest", "one_class_svm"):
        assert roc_auc_score(np.arange(200) >= 100, scores[name]) > 0.9, name


def statistics(images: np.ndarray) -> np.ndarray:
    """Mean, deviation and seven quantiles of each channel, by numpy; and their detail."""
    pixels = images.reshape(len(images), -1, images.shape[-1]) / 255
    quantiles = np.quantile(pixels, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1), axis=1)
    detail = details(torch.from_numpy(images / 255).permute(0, 3, 1, 2)).numpy()  # see test_image_terms.py
    return np.concatenate([pixels.mean(axis=1), pixels.std(axis=1), *quantiles, detail], axis=1)


def test_intensities_are_scikit_learns_mahalanobis_distance() -> None:
    train, test = noise(300, 8, 3, 1) // 2 + 60, noise(50, 8, 3, 2)
    fit = ShrunkCovariance(shrinkage=SHRINKAGE).fit(statistics(train))  # divides by n, where L_i has n - 2
    expected = np.sqrt(fit.mahalanobis(statistics(test)) * 298 / 300)
    np.testing.assert_allclose(baseline_scores(train, test, 0)["intensities"], expected, rtol=1e-3)


def test_the_residual_shows_what_the_training_images_lack() -> None:
    train = patterned(300, 1, side=16)
    test = np.concatenate([patterned(100, 3, side=16), patterned(100, 4, side=16, outlier=True)])
    scores = baseline_scores(train, test, 0)
    for name in ("pca", "pca_minmax", "neighbours"):
        assert roc_auc_score(np.arange(200) >= 100, scores[name]) > 0.95


@settings(max_examples=6, deadline=None)
@given(st.permutations(range(12)), st.integers(0, 2**63 - 1))
def test_permuted_test_images_get_permuted_scores_and_a_subset_the_same_ones(order: list[int], seed: int) -> None:
    train, test = patterned(60, 1), np.concatenate([patterned(6, 2), noise(6, 8, 1, 3)])
    whole = baseline_scores(train, test, seed)
    for part in (order, order[:5]):
        for name, scores in baseline_scores(train, test[part], seed).items():
            np.testing.assert_allclose(scores, whole[name][part], rtol=1e-7, atol=1e-9, err_msg=name)


def test_the_same_arguments_give_the_same_bytes_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_COMPARED", 50)
    train, test = noise(80, 6, 3, 1), noise(20, 6, 3, 2)
    before = train.tobytes(), test.tobytes()
    first, second, other = (baseline_scores(train, test, seed) for seed in (2**63 - 1, 2**63 - 1, 6))
    assert all(first[name].tobytes() == second[name].tobytes() for name in NAMES)
    assert before == (train.tobytes(), test.tobytes())
    depends = {name for name in NAMES if first[name].tobytes() != other[name].tobytes()}
    assert depends == {"neighbours", "kde", "isolation_forest", "one_class_svm"}


def test_queries_are_compared_with_a_drawn_part_of_a_large_training_set() -> None:
    np.testing.assert_array_equal(compared_images(5000, 3), np.arange(5000))
    drawn = compared_images(12_000, 3)
    assert len(drawn) == 5000 and (np.diff(drawn) > 0).all()
    assert drawn.max() < 12_000 and abs(drawn.mean() - 6000) < 200
    np.testing.assert_array_equal(drawn, compared_images(12_000, 3))
    assert not np.array_equal(drawn, compared_images(12_000, 4))


@pytest.mark.filterwarnings("error")
@settings(max_examples=25, deadline=None)
@given(st.integers(8, 20), st.sampled_from([1, 3]), st.sampled_from([0, 1, 200]), st.data())
def test_scores_are_finite_whatever_the_images(count: int, channels: int, base: int, data: st.DataObject) -> None:
    """Training images that differ in a pixel or so, or not at all, and any test images."""
    train = np.full((count, 4, 4, channels), base, np.uint8)
    for _ in range(data.draw(st.integers(0, 3))):
        image, y, x = (data.draw(st.integers(0, n - 1)) for n in (count, 4, 4))
        train[image, y, x] = data.draw(st.integers(0, 255))
    test = data.draw(numpy_st.arrays(np.uint8, (6, 4, 4, channels)))
    test[0], test[1] = base, train[0]
    for name, scores in baseline_scores(train, test, 0).items():
        assert np.isfinite(scores).all(), name


@pytest.mark.filterwarnings("error")
def test_where_all_training_images_are_alike_another_is_told_by_its_residual() -> None:
    like = noise(1, 8, 1, 1)
    scores = baseline_scores(np.repeat(like, 9, axis=0), np.concatenate([like, noise(5, 8, 1, 2)]), 0)
    assert scores["pca"][0] == pytest.approx(0, abs=1e-7) and (scores["pca"][1:] > 1).all()
    for name in ("rx", "kde", "isolation_forest", "one_class_svm"):
        np.testing.assert_allclose(scores[name], scores[name][0], err_msg=name)


def test_too_few_training_images_are_refused() -> None:
    test = noise(3, 8, 1, 2)
    assert set(baseline_scores(noise(8, 8, 1, 1), test, 0)) == NAMES
    refuses(lambda: baseline_scores(noise(7, 8, 1, 1), test, 0), "7 images", "at least 8")
