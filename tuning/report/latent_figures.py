"""Where the encoder puts normal and anomalous images: t-SNE maps and histograms (P figures 2 to 4)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from tuning.report.figure_style import ANOMALOUS, NORMAL, panels, shared_legend

PERPLEXITY = 30
TSNE_IMAGES = 1000  # of more, a subset drawn with a fixed seed: t-SNE takes seconds then, not minutes
MIN_VECTORS = 5
MIN_BINS, MAX_BINS = 10, 50


def subset(count: int) -> np.ndarray:
    """Which of `count` images a t-SNE map shows: all, or TSNE_IMAGES of them, sorted."""
    if count <= TSNE_IMAGES:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, TSNE_IMAGES, replace=False))


def embedding(latents: np.ndarray) -> np.ndarray:
    """t-SNE of N x N_z to N x 2, started from PCA; the perplexity is lowered where N < 91. N >= 5, N_z >= 2."""
    perplexity = min(PERPLEXITY, (len(latents) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(latents.astype(np.float64))


def maps_figure(
    rows: list[str], columns: list[str], maps: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]
) -> Figure:
    """t-SNE maps (N x 2 with labels N) in a grid of named rows and columns; a missing one says so."""
    figure, grid = _grid(rows, columns, 2.05)
    for (row, column), axes in grid.items():
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=True, color="0.8")
        if (row, column) not in maps:
            _missing(axes)
            continue
        points, labels = maps[row, column]
        size = 9 if len(points) <= 700 else 5
        axes.scatter(*points[~labels].T, s=size, marker="o", color=NORMAL, linewidths=0, alpha=0.8, label="normal")
        look = {"marker": "x", "color": ANOMALOUS, "linewidths": 0.6, "alpha": 0.8}
        axes.scatter(*points[labels].T, s=size, label="anomalous", **look)
    shared_legend(figure, list(grid.values()))
    return figure


def histograms_figure(
    rows: list[str], columns: list[str], values: dict[tuple[str, str], tuple[np.ndarray, np.ndarray | None]]
) -> Figure:
    """Histograms of values (N or N x K with labels N, K pooled; or without labels), each panel on its own axis."""
    figure, grid = _grid(rows, columns, 1.6)
    for (row, column), axes in grid.items():
        axes.set(yticks=[])
        if (row, column) not in values:
            axes.set(xticks=[])
            _missing(axes)
            continue
        shown, labels = values[row, column]
        count = int(np.clip(np.sqrt(shown.size), MIN_BINS, MAX_BINS))
        bins = np.histogram_bin_edges(shown, bins=count).tolist()
        axes.locator_params(axis="x", nbins=3)
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 4))
        if labels is None:
            axes.hist(shown.ravel(), bins=bins, density=True, histtype="stepfilled", color=NORMAL, label="images")
            continue
        axes.hist(shown[~labels].ravel(), bins, density=True, histtype="stepfilled", color=NORMAL, label="normal")
        outline = {"histtype": "step", "color": ANOMALOUS, "linewidth": 0.9}
        axes.hist(shown[labels].ravel(), bins=bins, density=True, label="anomalous", **outline)
    shared_legend(figure, list(grid.values()))
    return figure


def _grid(rows: list[str], columns: list[str], height: float) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    figure, all_axes = panels(len(rows) * len(columns), len(columns), height, 0.3)
    for axes, column in zip(all_axes, columns):
        axes.set_title(column)
    for axes, row in zip(all_axes[:: len(columns)], rows):
        axes.set_ylabel(row)
    return figure, {
        (row, column): all_axes[i * len(columns) + j] for i, row in enumerate(rows) for j, column in enumerate(columns)
    }


def _missing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not finished", ha="center", va="center", transform=axes.transAxes, color="0.4", fontsize=7)
