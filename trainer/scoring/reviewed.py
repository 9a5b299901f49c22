"""`reviewed`: the sum of -log p again, its weights learned from what people decided about training images.

A logistic regression of junk against fine, whose weights are at least 0 and drawn to the label-free ones; how hard is
chosen by cross-validation, so that few decisions, or such as contradict one another, change little. What people look at
is the top of a list: that does not mislead a regression, which asks for the chance of junk given the terms.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

MIN_DECISIONS = 20
MIN_EACH = 4
"""Of junk and of fine; with fewer the label-free join is as good: tuning/results/reviewed.md."""
FREEDOMS = (0.0, 0.1, 0.3, 1.0)
"""Standard deviations of a weight about its label-free value that are tried; 0 leaves these as they are."""
FOLDS, REPEATS = 5, 4


def learned_weights(
    surprise: Mapping[str, np.ndarray], junk: np.ndarray, prior: Mapping[str, float]
) -> dict[str, float]:
    """The weight of each term, whose sum is that of `prior`.

    surprise: -log p of each term, float64 n; junk: bool n; prior: the label-free weights, at least 0; terms that
    have no say there get none. A function of these alone.
    """
    names = [name for name, weight in prior.items() if weight > 0]
    x = np.stack([surprise[name] for name in names], axis=1)
    start = np.array([prior[name] for name in names])
    start = start / start.sum()
    losses = np.array([_held_out(x, junk, start, freedom) for freedom in FREEDOMS])  # freedoms x repeats x images
    mean = losses.mean(axis=(1, 2))
    best = int(np.argmin(mean))
    apart = (losses - losses[best]).mean(axis=1)  # of each image, over repeats
    error = apart.std(axis=1) / np.sqrt(len(junk))
    chosen = next(i for i in range(len(FREEDOMS)) if mean[i] - mean[best] <= error[i])  # the least within one error
    weights, _, _ = _fitted(x, junk, start, FREEDOMS[chosen])
    weights = weights / weights.sum() * sum(prior.values())
    return dict.fromkeys(prior, 0.0) | dict(zip(names, weights.tolist()))


def _fitted(x: np.ndarray, junk: np.ndarray, start: np.ndarray, freedom: float) -> tuple[np.ndarray, float, float]:
    """Weights of terms, slope and intercept: the chance of junk is expit(slope x @ weights + intercept)."""
    from scipy.optimize import minimize
    from scipy.special import expit

    y = junk.astype(np.float64)
    free = freedom > 0

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        weights = v[2:] if free else start
        score = x @ weights
        logit = v[0] * score + v[1]
        off = expit(logit) - y
        value = np.logaddexp(0, np.where(y > 0, -logit, logit)).sum() + (v[0] - 1) ** 2 / 8
        slope = [off @ score + (v[0] - 1) / 4, off.sum()]
        if not free:
            return value, np.array(slope)
        apart = (weights - start) / freedom
        return value + (apart**2).sum() / 2, np.concatenate([slope, v[0] * (off @ x) + apart / freedom])

    first = np.concatenate([[1.0, -(x @ start).mean()], start if free else []])
    bounds = [(0.01, 20.0), (-50.0, 50.0), *([(0.0, None)] * len(start) if free else [])]
    v = minimize(loss, first, jac=True, bounds=bounds, method="L-BFGS-B").x
    weights = v[2:] if free else start
    return weights if weights.sum() > 0 else start, v[0], v[1]


def _held_out(x: np.ndarray, junk: np.ndarray, start: np.ndarray, freedom: float) -> np.ndarray:
    """The log loss of each image by a fit without it, repeats x n."""
    losses = np.zeros((REPEATS, len(junk)))
    for repeat in range(REPEATS):
        fold = _folds(junk, repeat)
        for held in range(FOLDS):
            out = fold == held
            weights, slope, intercept = _fitted(x[~out], junk[~out], start, freedom)
            logit = slope * (x[out] @ weights) + intercept
            losses[repeat, out] = np.logaddexp(0, np.where(junk[out], -logit, logit))
    return losses


def _folds(junk: np.ndarray, seed: int) -> np.ndarray:
    """Which fold each image is held out with, int64 n: both kinds in each as far as they go."""
    rng, fold = np.random.default_rng(seed), np.zeros(len(junk), np.int64)
    for kind in (False, True):
        some = rng.permutation(np.flatnonzero(junk == kind))
        fold[some] = np.arange(len(some)) % FOLDS
    return fold
