"""Every method in a line: AUC by contamination, what contamination costs, minutes and parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from trainer.methods import VARIANTS
from tuning.report.blocks import BEATS, Block, drawn, number
from tuning.report.figure_style import BLACK, BLUE, GRAY, ORANGE, VERMILLION, gamma_title, panels, title_of
from tuning.report.trial_rows import BASELINE, TrialRow, text_of
from tuning.score_names import FUSED, known_by
from tuning.sweep_tables import Variant

GAMMA_COLOURS = (BLUE, ORANGE, VERMILLION, BLACK)
LINE = 0.155  # inches a method in the figure


@dataclass(frozen=True)
class Line:
    """A method, or a plain baseline, on a dataset: AUCs over seeds by contamination, of its two scores."""

    title: str
    fused: dict[float, np.ndarray]
    score: str
    own: dict[float, np.ndarray]  # of the score that it is known by
    minutes: float | None = None
    parameters: int | None = None
    plain: bool = False  # a number of the image, which needs no training

    @property
    def first(self) -> dict[float, np.ndarray]:
        """Of the score that it is ranked by: fused where there is one."""
        return self.fused or self.own

    @property
    def lost(self) -> float | None:
        """Of the first score, from the least contamination to the greatest; None with one."""
        gammas = sorted(self.first)
        return float(self.first[gammas[0]].mean() - self.first[gammas[-1]].mean()) if len(gammas) > 1 else None


def method_lines(rows: list[TrialRow]) -> dict[str, list[Line]]:
    """By dataset the methods, the best first: by the mean over the contaminations of their first score.

    Trials at several resolutions are as many datasets.
    """
    result = {}
    for name, side in dict.fromkeys((row.dataset, row.resolution) for row in rows):
        sides = {row.resolution for row in rows if row.dataset == name}
        dataset = name if len(sides) == 1 else f"{name}, {side}x{side}"
        own = [row for row in rows if (row.dataset, row.resolution) == (name, side)]
        variants = dict.fromkeys((row.method, row.options) for row in own if row.method != BASELINE)
        lines = [_line(Variant(*variant), own) for variant in variants]
        plain = dict.fromkeys(row.score for row in own if row.method == BASELINE)
        lines += [Line(name, {}, name, _aucs(own, Variant(BASELINE, ""), name), plain=True) for name in plain]
        lines = [line for line in lines if line.first]
        result[dataset] = sorted(lines, key=lambda line: -_overall(line))
    return result


def _line(variant: Variant, rows: list[TrialRow]) -> Line:
    of = [row for row in rows if (row.method, row.options) == variant]
    score = known_by(variant.method) if variant.method in VARIANTS else FUSED
    minutes = [row.minutes for row in of if row.minutes is not None]
    sizes = [row.parameters for row in of if row.parameters is not None]
    costs = (float(np.mean(minutes)) if minutes else None, sizes[0] if sizes else None)
    return Line(title_of(variant), _aucs(of, variant, FUSED), score, _aucs(of, variant, score), *costs)


def _aucs(rows: list[TrialRow], variant: Variant, score: str) -> dict[float, np.ndarray]:
    of = [row for row in rows if (row.method, row.options) == variant and row.score == score]
    gammas = sorted({row.gamma for row in of})
    return {gamma: np.array([row.auc for row in of if row.gamma == gamma]) for gamma in gammas}


def answers(rows: list[TrialRow]) -> list[str]:
    """By dataset, what the table of methods says in a sentence or two; none where nothing has labels."""
    return [_answer(dataset, lines) for dataset, lines in method_lines(rows).items()] if rows else []


def _answer(dataset: str, lines: list[Line]) -> str:
    methods, plain = [line for line in lines if not line.plain], [line for line in lines if line.plain]
    if not methods:
        return f"{dataset}: no method has an AUC."
    best, several = methods[0], len(methods) > 1
    gammas = sorted(best.first)
    where = gamma_title(gammas[0]) + (f" to {gammas[-1]:g}" if len(gammas) > 1 else "")
    seeds = max(len(values) for values in best.first.values())
    score = FUSED if best.fused else best.score
    who = f"the best of {len(methods)} methods, {best.title}," if several else best.title
    count = f"{seeds} seed{'s' * (seeds > 1)}"
    said = f"{dataset}: {who} has an AUC of {number(_overall(best))} by {score} ({where}, {count})."
    if best.lost is not None:
        verb = "loses" if best.lost >= 0 else "gains"
        said += f" From the least to the greatest contamination it {verb} {abs(best.lost):.3f}."
    if plain:
        said += f" The best plain baseline, {plain[0].title}, has {number(_overall(plain[0]))}."
    return said


def _overall(line: Line) -> float:
    return float(np.mean([values.mean() for values in line.first.values()]))


def method_blocks(rows: list[TrialRow]) -> list[Block]:
    """The table, with every row behind it as CSV, and the figure; none where nothing has labels."""
    if not rows:
        return []
    by_dataset = method_lines(rows)
    gammas = sorted({row.gamma for row in rows})
    head = ["method", *(f"fused {gamma_title(g)}" for g in gammas), "own score", *map(gamma_title, gammas)]
    head += ["lost", "minutes", "parameters"]
    shown: list[list[str]] = []
    for dataset, lines in by_dataset.items():
        shown.append([dataset])
        bars = {gamma: max((_mean(line.own, gamma) for line in lines if line.plain), default=1.0) for gamma in gammas}
        for line in lines:
            cells = [_cell(line.fused, gamma, bars[gamma]) for gamma in gammas]
            bar = 1.0 if line.plain else 0.0
            own = [_cell(line.own, gamma, max(bars[gamma], bar)) for gamma in gammas]
            title = f"{line.title}: no training" if line.plain else line.title
            costs = [number(line.lost), "" if line.minutes is None else f"{line.minutes:.1f}"]
            shown.append([title, *cells, line.score, *own, *costs, f"{line.parameters:,}" if line.parameters else ""])
    caption = (
        "AUC, mean over seeds ± half their range, the best method first: by the mean of fused over contaminations. own "
        f"score: what the method's paper judges by. {BEATS} and bold: above every plain baseline at that γ. "
        "lost: from the least contamination to the greatest, of the first score. Minutes are of training, one trial."
    )
    table = Block("trials", "Every method in a line", caption, head, shown, data=text_of(rows))
    several = {dataset: lines for dataset, lines in by_dataset.items() if len(lines) > 1}
    return [table, *([_figure(several, gammas)] if several else [])]


def _mean(aucs: dict[float, np.ndarray], gamma: float) -> float:
    return float(aucs[gamma].mean()) if gamma in aucs else 0.0


def _cell(aucs: dict[float, np.ndarray], gamma: float, bar: float) -> str:
    if gamma not in aucs:
        return ""
    values = aucs[gamma]
    spread = f" ± {(values.max() - values.min()) / 2:.3f}" if len(values) > 1 else ""
    return f"{number(float(values.mean()))}{spread}{f' {BEATS}' if values.mean() > bar else ''}"


def _figure(by_dataset: dict[str, list[Line]], gammas: list[float]) -> Block:
    tallest = max(len(lines) for lines in by_dataset.values())
    figure, axes = panels(len(by_dataset), 2, 0.9 + LINE * tallest)
    for panel, (dataset, lines) in zip(axes, by_dataset.items()):
        _draw(panel, dataset, lines, gammas)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    caption = (
        "AUC of each method's first score (fused where it has one), the best above. Large marks are means, small ones "
        "seeds, a line joins the contaminations. Gray: plain baselines, numbers of the image that need no training."
    )
    return Block("methods", "Every method, by contamination", caption, picture=drawn(figure, "svg"))


def _draw(panel: Axes, dataset: str, lines: list[Line], gammas: list[float]) -> None:
    for place, line in enumerate(reversed(lines)):
        means = [float(values.mean()) for values in line.first.values()]
        panel.plot([min(means), max(means)], [place, place], color=GRAY, linewidth=0.8, zorder=1)
        for gamma, values in line.first.items():
            colour = GAMMA_COLOURS[gammas.index(gamma) % len(GAMMA_COLOURS)]
            panel.plot(values, np.full(len(values), place), "|", color=colour, markersize=3.5, zorder=2)
            panel.plot(values.mean(), place, "o", color=colour, markersize=3.5, zorder=3)
    for gamma in gammas:
        colour = GAMMA_COLOURS[gammas.index(gamma) % len(GAMMA_COLOURS)]
        panel.plot([], [], "o", color=colour, markersize=3.5, label=gamma_title(gamma))
    panel.set_yticks(range(len(lines)), [line.title for line in reversed(lines)], fontsize=6)
    for label, line in zip(panel.get_yticklabels(), reversed(lines)):
        label.set_color(GRAY if line.plain else BLACK)
    panel.axvline(0.5, color=GRAY, linewidth=0.6, linestyle=":")
    panel.set_ylim(-0.7, len(lines) - 0.3)
    panel.set(title=dataset, xlabel="AUC")
