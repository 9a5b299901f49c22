"""Test images with their closest matches and heat maps (P figure 5), drawn with the trials' own detectors."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuning.report.figure_style import WIDTH


def matches_figure(columns: list[str], rows: dict[str, np.ndarray]) -> Figure:
    """Images side by side: rows of name -> float N x r x r x C in [-1, 1]; columns: a heading each, or ""."""
    count = len(columns)
    figure = Figure(figsize=(WIDTH, WIDTH / count * len(rows) + 0.1), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)  # pyright: ignore
    grid = figure.subplots(len(rows), count, squeeze=False)
    for all_axes, (name, images) in zip(grid, rows.items()):
        for axes, image in zip(all_axes, images):
            _show(axes, image)
        all_axes[0].set_ylabel(name, fontsize=7)
    for axes, title in zip(grid[0], columns):
        axes.set_title(title, fontsize=7, pad=2, loc="left")
    return figure


def extremes_figure(blocks: dict[str, tuple[list[str], np.ndarray, np.ndarray, np.ndarray]], top: float) -> Figure:
    """Blocks of name -> (headings N, queries and matches N x r x r x C in [-1, 1], heat maps N x r x r in [0, top])."""
    count = max(len(titles) for titles, *_ in blocks.values())
    figure = Figure(figsize=(WIDTH, len(blocks) * (WIDTH / count * 3 * 0.88 + 0.42)), layout="constrained")
    parts = figure.subfigures(len(blocks), 1, squeeze=False, hspace=0.03)[:, 0]
    for part, (name, (titles, queries, matches, heat)) in zip(parts, blocks.items()):
        grid = part.subplots(3, count, squeeze=False)
        part.suptitle(name)
        for axes in grid.flat:
            _bare(axes)
        for i, title in enumerate(titles):
            _show(grid[0, i], queries[i])
            _show(grid[1, i], matches[i])
            grid[2, i].imshow(heat[i], cmap="magma", vmin=0, vmax=top)
            grid[0, i].set_title(title, fontsize=7, pad=2)
        for axes, row in zip(grid[:, 0], ("image", "closest match", "heat map")):
            axes.set_ylabel(row, fontsize=7)
    return figure


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(
        np.clip((image.squeeze(-1) if image.shape[-1] == 1 else image) / 2 + 0.5, 0, 1), cmap="gray", vmin=0, vmax=1
    )
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
