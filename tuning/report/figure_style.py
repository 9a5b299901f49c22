"""How figures look: a fixed colour, line and marker for each method and score, sizes for a printed column."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.methods import VARIANTS
from trainer.scoring import PAPER_LAMBDA
from tuning.score_names import title_of_method
from tuning.sweep_tables import Variant

WIDTH = 6.5  # inches
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "figure.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "axes.axisbelow": True,
    "svg.hashsalt": "stratagan",
}
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = (  # Okabe and Ito's colours, told apart by colour-blind people
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GRAY = "0.5"
COLOURS = (GREEN, BLUE, VERMILLION, PURPLE, "#8B5A2B", "#808000", "#1F3A93", "#B03060")  # none of those of ROC_LINES
DASHES = ("-.", "-", "--", ":")
MARKERS = "^osDvP*Xph"
METHOD_LINES: dict[str, dict[str, Any]] = {
    called: {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": DASHES[(place + place // len(COLOURS)) % len(DASHES)],
        "marker": MARKERS[place % len(MARKERS)],
    }
    for place, called in enumerate(VARIANTS)
}
"""By what sweeps call methods, in the registry's order: one that is added last changes no other's."""
OPTION_LINES = ((0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2, 1, 2)), (0, (2, 2)))
NORMAL, ANOMALOUS = SKY, BLACK  # apart in gray too
PAPER_LINE: dict[str, Any] = {"color": GRAY, "linestyle": ":", "linewidth": 1}
CHOSEN_LINE: dict[str, Any] = {"color": BLACK, "linestyle": "--", "linewidth": 1}
BEST_LINE: dict[str, Any] = {"color": GRAY, "linestyle": "-.", "linewidth": 1}


@dataclass(frozen=True)
class Band:
    """A curve over x (K): mean, least and greatest value over seeds. mark: an x that is marked on it."""

    title: str
    line: dict[str, Any]
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mark: float | None = None

    def draw(self, axes: Axes, **changes: Any) -> None:
        line = self.line | changes
        axes.plot(self.x, self.mean, label=self.title, **line)
        if (self.low < self.high).any():
            axes.fill_between(self.x, self.low, self.high, color=line["color"], alpha=0.15, linewidth=0)


def title_of(variant: Variant) -> str:
    """ "proposed (d_I), learning_rate=0.002"."""
    title = title_of_method(variant.method)
    return f"{title}, {variant.options}" if variant.options else title


def line_of(variant: Variant, variants: list[Variant]) -> dict[str, Any]:
    """A method's colour and marker; further options of a method have dashes of their own."""
    place = [other for other in variants if other.method == variant.method].index(variant)
    line = METHOD_LINES[variant.method]
    return line if place == 0 else line | {"linestyle": OPTION_LINES[(place - 1) % len(OPTION_LINES)]}


def score_title(score: str) -> str:
    return f"a, λ {PAPER_LAMBDA:g}" if score == "a" else score


def gamma_title(gamma: float) -> str:
    return f"γ {gamma:g}"


def panels(count: int, columns: int, height: float, extra: float = 0.0, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of full width with `count` panels in rows of at most `columns`, each row `height` inches tall.

    extra: inches for a legend outside the panels.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    width = min(WIDTH, 3.6 * columns)
    figure = Figure(figsize=(width, rows * height + extra), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **options)
    for axes in grid.flat[count:]:
        axes.remove()
    return figure, list(grid.flat[:count])


def shared_legend(figure: Figure, all_axes: list[Axes], columns: int = 4) -> None:
    """One legend below all panels, each entry once, in as many columns as there is room for and no more than given."""
    entries = {}
    for axes in all_axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= {label: handle for handle, label in zip(handles, labels) if label not in entries}
    widest = 0.4 + 0.05 * max(map(len, entries))  # inches: a sample of the line, and letters of 7 points
    columns = max(1, min(columns, len(entries), int(figure.get_figwidth() / widest)))
    rows = math.ceil(len(entries) / columns)
    figure.set_figheight(figure.get_figheight() + 0.16 * max(0, rows - 2))  # two rows are reckoned with already
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)
