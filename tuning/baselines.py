"""What a user would try first: plain scores of the same images, by one number of an image or by scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import KernelDensity, NearestNeighbors
from sklearn.svm import OneClassSVM

from data_tools.errors import UserError
from trainer.scoring.gaussian import gaussian
from trainer.scoring.terms.intensities import TERM as L_I
from trainer.scoring.terms.intensities import statistics

MIN_IMAGES = 8
MAX_COMPARED = 5000  # training images for the baselines that compare each query with each of them
COMPONENTS, DENSITY_COMPONENTS = 64, 16
NEIGHBOURS = 5

# The variance of a coordinate, pixels in [0, 1]: below a hundredth of a grey level it is rounding, not data.
MIN_VARIANCE = 1e-9


def min_max(images: np.ndarray) -> np.ndarray:
    """w of the score L_n: uint8 N x ... -> float64 of the same shape, each image in [0, 1]; 0 for a constant image."""
    axes = tuple(range(1, images.ndim))
    low, high = images.min(axis=axes, keepdims=True), images.max(axis=axes, keepdims=True)
    return (images - low) / np.maximum(high - low, 1)


@dataclass(frozen=True)
class PrincipalSpace:
    """Principal components of a set of images.

    Directions without variance are left out. Where all the images are alike one axis stays, and it is all zeros.
    """

    mean: np.ndarray  # D
    axes: np.ndarray  # K x D, orthonormal rows, greatest variance first
    deviations: np.ndarray  # K, standard deviations of the coordinates, above 0

    @classmethod
    def fitted(cls, images: np.ndarray, components: int) -> PrincipalSpace:
        """The first `components` directions, or as many as N x ... float64 images in [0, 1] span."""
        pixels = images.reshape(len(images), -1)
        count, size = pixels.shape
        # Both solvers are exact and draw nothing at random; which is quicker depends on the shape.
        solver = "covariance_eigh" if 2 * count > size else "full"
        with np.errstate(invalid="ignore"):  # identical images: the share of variance, unused here, is 0 / 0
            fit = PCA(min(components, count, size), svd_solver=solver).fit(pixels)
        spans = fit.explained_variance_ > MIN_VARIANCE
        kept = max(1, int(spans.sum()))
        axes = (fit.components_ * spans[:, None])[:kept]
        return cls(fit.mean_, axes, np.sqrt(np.where(spans, fit.explained_variance_, 1))[:kept])

    def coordinates(self, images: np.ndarray) -> np.ndarray:
        """N x ... -> N x K, not whitened."""
        return images.reshape(len(images), -1) @ self.axes.T - self.mean @ self.axes.T

    def images(self, coordinates: np.ndarray) -> np.ndarray:
        """N x K -> N x D, the points of the space with these coordinates."""
        return self.mean + coordinates @ self.axes

    def residual(self, images: np.ndarray) -> np.ndarray:
        """Euclidean distance of each image to the space: N x ... -> N."""
        pixels = images.reshape(len(images), -1)
        return np.linalg.norm(pixels - self.images(self.coordinates(images)), axis=1)


def compared_images(count: int, seed: int) -> np.ndarray:
    """Ascending indices of the training images that queries are compared with: all, or a draw of 5,000."""
    if count <= MAX_COMPARED:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, MAX_COMPARED, replace=False))


def image_statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    """One number of each image (uint8 N x H x W x C, 0 to 255), negated: dark and flat images are anomalous."""
    flat = images.reshape(len(images), -1)
    return {
        "minus_std": -flat.std(axis=1, dtype=np.float64),
        "minus_max": -flat.max(axis=1).astype(np.float64),
        "minus_mean": -flat.mean(axis=1, dtype=np.float64),
    }


def intensity_distance(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The term L_i of test images, which takes no training: uint8 N x H x W x C each."""
    pixels = (torch.from_numpy(images / 255).permute(0, 3, 1, 2) for images in (train, test))
    known, queries = (statistics(each).numpy() for each in pixels)
    return L_I.distances(queries, gaussian(known).astype(np.float64))


def neighbour_distance(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Mean Euclidean distance of each test image to its 5 nearest training images, N x ... each."""
    search = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(train.reshape(len(train), -1))
    distances, _ = search.kneighbors(test.reshape(len(test), -1))
    return distances.mean(axis=1)


def negated_log_density(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Gaussian kernel density of whitened coordinates (N x K each), bandwidth n^(-1 / (K + 4)) (Scott 1992)."""
    # One leaf: a tree of several loses densities far from the data to rounding (scikit-learn's issue 7492).
    count, dimensions = train.shape
    density = KernelDensity(kernel="gaussian", bandwidth=count ** (-1 / (dimensions + 4)), leaf_size=count)
    return -density.fit(train).score_samples(test)


def baseline_scores(train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Scores of the test images by baselines that see the training images; greater = more anomalous.

    Both are uint8 N x H x W x C; the values are float64, one a test image, always finite. The same arguments give
    the same scores. Above 5,000 training images `neighbours`, `kde` and `one_class_svm` use 5,000 of them, drawn by
    the seed. UserError for fewer than 8 training images.

    minus_std, minus_max, minus_mean: standard deviation, largest and mean pixel, negated.
    intensities: the term L_i, the Mahalanobis distance of brightness, contrast, quantiles and detail of the
    pixels.
    neighbours: mean distance to the 5 nearest training images, pixels after min-max per image.
    pca, pca_minmax: distance to the first 64 principal components, pixels in [0, 1] and after min-max.
    rx: Mahalanobis distance in the space of those components (Reed and Yu 1990).
    kde: negated log density over the first 16 components, whitened.
    isolation_forest, one_class_svm: in the space of the 64 components, not whitened (Liu et al. 2008; Schölkopf et al.
    2001).
    """
    if len(train) < MIN_IMAGES:
        raise UserError(f"training set: {len(train)} images are too few for the baselines - give at least 8")
    compared = compared_images(len(train), seed)
    space = PrincipalSpace.fitted(train / 255, COMPONENTS)
    known, queries = space.coordinates(train / 255), space.coordinates(test / 255)
    white_known, white_queries = known / space.deviations, queries / space.deviations
    # scikit-learn takes seeds of 32 bits
    forest = IsolationForest(n_estimators=200, random_state=seed % 2**32).fit(known)
    support = OneClassSVM(kernel="rbf", gamma="scale", nu=0.1).fit(known[compared])
    return image_statistics(test) | {
        "intensities": intensity_distance(train, test),
        "neighbours": neighbour_distance(min_max(train[compared]), min_max(test)),
        "pca": space.residual(test / 255),
        "pca_minmax": PrincipalSpace.fitted(min_max(train), COMPONENTS).residual(min_max(test)),
        "rx": np.linalg.norm(white_queries, axis=1),
        "kde": negated_log_density(white_known[compared, :DENSITY_COMPONENTS], white_queries[:, :DENSITY_COMPONENTS]),
        "isolation_forest": -forest.score_samples(queries),
        "one_class_svm": -support.decision_function(queries),
    }
