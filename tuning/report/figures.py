"""Curves: from arrays to figures. AUC against contamination and lambda, label-free figures, terms, ROC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.scoring import PAPER_LAMBDA
from tuning.report.figure_style import (
    BEST_LINE,
    CHOSEN_LINE,
    GRAY,
    METHOD_LINES,
    ORANGE,
    PAPER_LINE,
    Band,
    panels,
    shared_legend,
)

LAMBDA_TICKS = [0.05, 0.99, 0.9999]
MEASURE_LINES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-"},
    {"color": "#E69F00", "linestyle": "--"},
    {"color": "#56B4E9", "linestyle": "-."},
    {"color": "#CC79A7", "linestyle": ":"},
)


@dataclass(frozen=True)
class Measure:
    """A row of the label-free figure. curves: title -> values over lambda (K), a panel each."""

    title: str
    curves: Sequence[dict[str, np.ndarray]]


@dataclass(frozen=True)
class LambdaMarks:
    """The lambdas a panel of the label-free figure marks; None where there is none."""

    title: str
    chosen: float | None
    best: float | None


@dataclass(frozen=True)
class RocLine:
    """ROC curves of S seeds on one grid of false positive rates: rates S x F."""

    title: str
    line: dict[str, Any]
    rates: np.ndarray


def gamma_figure(parts: dict[str, list[Band]]) -> Figure:
    """AUC against contamination, a panel a score; the bands' x is gamma."""
    figure, all_axes = panels(len(parts), 3, 1.9, 0.45, sharex=True, sharey=True)
    for axes, (title, bands) in zip(all_axes, parts.items()):
        for band in bands:
            band.draw(axes)
        gammas = sorted({float(x) for band in bands for x in band.x})
        axes.set(title=title, xticks=gammas, xticklabels=_apart(gammas))
    for axes in all_axes:
        _label_edges(axes, len(all_axes), all_axes.index(axes), "γ, share of anomalies in training", "AUC")
    shared_legend(figure, all_axes, 3)
    return figure


def lambda_figure(parts: dict[str, list[Band]]) -> Figure:
    """AUC of a against lambda in (0, 1), a panel a contamination; a star stands at a band's mark."""
    figure, all_axes = panels(len(parts), 3, 2.1, 0.5, sharex=True, sharey=True)
    for axes, (title, bands) in zip(all_axes, parts.items()):
        axes.axvline(PAPER_LAMBDA, label=f"λ {PAPER_LAMBDA:g} (paper)", **PAPER_LINE)
        for band in bands:
            band.draw(axes, marker="")
        for band in bands:
            if band.mark is not None and 0 < band.mark < 1:
                height = np.interp(band.mark, band.x, band.mean)
                look = {"markersize": 9, "color": band.line["color"], "markeredgecolor": "black", "linestyle": ""}
                axes.plot([band.mark], [height], marker="*", markeredgewidth=0.6, zorder=4, **look)
        axes.set_title(title)
        _logit(axes)
    all_axes[0].plot([], [], "*", color="white", markeredgecolor="black", markersize=9, label="λ chosen without labels")
    for place, axes in enumerate(all_axes):
        _label_edges(axes, len(all_axes), place, "λ", "AUC of a")
    shared_legend(figure, all_axes, 3)
    return figure


def label_free_figure(lambdas: list[np.ndarray], marks: list[LambdaMarks], measures: list[Measure]) -> Figure:
    """Label-free figures against lambda (K values in (0, 1) a column): a row a measure, a column a contamination."""
    count = len(marks)
    figure, _ = panels(1, 1, 1.0)
    figure.clear()
    figure.set_size_inches(6.5 if count > 1 else 4.2, 1.25 * len(measures) + 0.8)
    grid = figure.subplots(len(measures), count, squeeze=False, sharex=True, sharey="row")
    for row, measure in zip(grid, measures):
        for axes, x, mark, curves in zip(row, lambdas, marks, measure.curves):
            axes.axvline(PAPER_LAMBDA, label=f"λ {PAPER_LAMBDA:g} (paper)", **PAPER_LINE)
            for value, title, line in ((mark.chosen, "chosen λ", CHOSEN_LINE), (mark.best, "best λ", BEST_LINE)):
                if value is not None and 0 < value < 1:
                    axes.axvline(value, label=title, **line)
            for (title, values), line in zip(curves.items(), MEASURE_LINES):
                axes.plot(x, values, label=title, **line)
            _logit(axes)
        row[0].set_ylabel(measure.title)
        if list(measure.curves[-1]) != [measure.title]:
            lines = [line for line in row[-1].get_lines() if line.get_label() in measure.curves[-1]]
            row[-1].legend(lines, [line.get_label() for line in lines], loc="center left", bbox_to_anchor=(1, 0.5))
    figure.align_ylabels(grid[:, 0])
    for axes, mark in zip(grid[0], marks):
        axes.set_title(mark.title)
    for axes in grid[-1]:
        axes.set_xlabel("λ")
    handles = {line.get_label(): line for axes in grid[0] for line in axes.get_lines() if "λ" in str(line.get_label())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def terms_figure(
    parts: dict[str, dict[str, np.ndarray]], baselines: dict[str, dict[str, np.ndarray]], line: dict[str, Any]
) -> Figure:
    """AUCs of terms, a dot a seed (arrays S) and a bar at the mean; plain baselines as ticks; a panel a gamma."""
    rows = list(dict.fromkeys(name for part in parts.values() for name in part))
    plain = list(dict.fromkeys(name for part in baselines.values() for name in part))
    height = 0.17 * (len(rows) + len(plain)) + 0.5
    figure, all_axes = panels(len(parts), 3, height, 0.35, sharex=True, sharey=True)
    for position, (axes, title) in enumerate(zip(all_axes, parts)):
        _label_edges(axes, len(parts), position, "AUC", "")
        axes.axvline(0.5, color="0.85", linewidth=0.8, zorder=0)
        for name, values in parts[title].items():
            place = np.full(len(values), rows.index(name))
            axes.plot(
                values, place, "o", color=line["color"], markeredgecolor="white", markeredgewidth=0.4, label="a seed"
            )
            axes.plot(values.mean(), place[0], "|", color="black", markersize=9, label="mean")
        for name, values in baselines.get(title, {}).items():
            place = np.full(len(values), len(rows) + plain.index(name))
            axes.plot(values, place, "|", color="0.35", markersize=6, label="plain baseline, a seed")
        if plain:
            axes.axhline(len(rows) - 0.5, color="0.7", linewidth=0.6)
        axes.set(title=title, yticks=range(len(rows) + len(plain)), yticklabels=rows + plain)
        axes.set_ylim(len(rows) + len(plain) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", color="0.93")
    shared_legend(figure, all_axes)
    return figure


def roc_figure(grid: np.ndarray, parts: dict[str, list[RocLine]]) -> Figure:
    """ROC curves over false positive rates (F): thin lines a seed, a thick one their mean; a panel a gamma."""
    figure, all_axes = panels(len(parts), 3, 2.5, 0.5, sharex=True, sharey=True)
    for place, (axes, (title, lines)) in enumerate(zip(all_axes, parts.items())):
        axes.plot([0, 1], [0, 1], color="0.85", linewidth=0.8, zorder=0)
        for roc in lines:
            if len(roc.rates) > 1:
                axes.plot(grid, roc.rates.T, color=roc.line["color"], linewidth=0.4, alpha=0.3)
            axes.plot(grid, roc.rates.mean(axis=0), label=roc.title, **roc.line)
        axes.set(title=title, xlim=(0, 1), ylim=(0, 1.01))
        axes.set_box_aspect(1)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        _label_edges(axes, len(parts), place, "false positive rate", "true positive rate")
    shared_legend(figure, all_axes, 3)
    return figure


def baseline_band(title: str, gammas: np.ndarray, mean: np.ndarray) -> Band:
    """The best plain baselines as a dotted gray line without a band."""
    line = {"color": GRAY, "linestyle": ":", "marker": "x"}
    return Band(title, line, gammas, mean, mean, mean)


ROC_LINES: dict[str, dict[str, Any]] = {
    "a": {"linestyle": "-", "linewidth": 2.6, "alpha": 0.7},  # below L_o, in the method's own colour
    "L_n": {"color": "#56B4E9", "linestyle": "--"},
    "L_o": {"color": ORANGE, "linestyle": (0, (3, 2)), "linewidth": 1},
    "fused": {"color": "#000000", "linestyle": "-"},
    "baseline": {"color": GRAY, "linestyle": ":"},
}


def roc_line(called: str, score: str) -> dict[str, Any]:
    """The line of a score in the figure of ROC curves; scores that have none of their own take the method's."""
    own = {name: value for name, value in METHOD_LINES.get(called, {}).items() if name != "marker"}
    return own | ROC_LINES.get(score, {})


def _logit(axes: Axes) -> None:
    axes.set_xscale("logit")
    axes.set_xticks(LAMBDA_TICKS, [f"{tick:g}" for tick in LAMBDA_TICKS])
    axes.minorticks_off()


def _apart(values: list[float]) -> list[str]:
    """Tick labels for ascending values; empty where one would run into the label before it."""
    labels, last, least = [], -np.inf, (values[-1] - values[0]) * 0.13
    for value in values:
        shown = value - last >= least
        labels.append(f"{value:g}" if shown else "")
        last = value if shown else last
    return labels


def _label_edges(axes: Axes, count: int, place: int, x: str, y: str) -> None:
    """Labels only at the lower and the left edge of panels in rows of three."""
    if place >= count - 3:
        axes.set_xlabel(x)
        axes.tick_params(labelbottom=True)
    if place % 3 == 0:
        axes.set_ylabel(y)
