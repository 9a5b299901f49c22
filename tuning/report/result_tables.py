"""The tables of the page: AUCs as mean and spread over seeds, beside the published ones and the plain baselines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.scoring.join import PAPER_LAMBDA
from tuning.report.blocks import BEATS, Block, number
from tuning.report.figure_style import gamma_title, title_of
from tuning.report.published import DATASETS, GAMMAS, PEERS_SOURCE, SOURCE, TABLE_1, published
from tuning.score_names import A, in_order, main_scores
from tuning.sweep_files import csv_text
from tuning.sweep_tables import Sweep, Variant

BASELINE = Variant("baseline", "")
PAPER, CHOSEN, BEST = f"a, λ {PAPER_LAMBDA:g}", "a, λ chosen without labels", "a, best λ (upper bound)"
LEGEND = (
    "Mean ± sample standard deviation over seeds; one seed has no spread. A cell of fewer seeds than the sweep plans "
    f"says how many. {BEATS} and bold: the mean is above that of every plain baseline of its column. The upper bound "
    "takes the λ of the greatest mean on the test labels themselves, so it is not a result and bears no mark."
)


@dataclass(frozen=True)
class Cell:
    """AUCs of the seeds (S), and λ where the score has one."""

    aucs: np.ndarray
    lam: float | None = None

    @property
    def mean(self) -> float:
        return float(self.aucs.mean())

    @property
    def spread(self) -> float:
        """The sample standard deviation; NaN with one seed."""
        return float(self.aucs.std(ddof=1)) if len(self.aucs) > 1 else np.nan


@dataclass(frozen=True)
class Row:
    """A line of Table 2: a score's cells by contamination."""

    variant: Variant
    score: str
    title: str
    cells: dict[float, Cell]


def score_row(sweep: Sweep, variant: Variant, score: str, title: str) -> Row:
    """AUCs of a variant's score; titles PAPER, CHOSEN and BEST say which λ the score "a" has."""
    cells = {}
    for gamma in sweep.gammas:
        files = [file for _, file in sweep.scored(variant, gamma, score)]
        lam = {PAPER: PAPER_LAMBDA, CHOSEN: sweep.chosen_lambda(variant, gamma)}.get(title)
        if title == BEST and files:
            curves = np.array([file.lambda_aucs(sweep.plan.lambdas) for file in files])
            lam = float(sweep.plan.lambdas[curves.mean(axis=0).argmax()])
        if files and (score != "a" or lam is not None):
            cells[gamma] = Cell(np.array([file.auc(score, lam) for file in files]), lam)
    return Row(variant, score, title, cells)


def baseline_rows(sweep: Sweep) -> list[Row]:
    """A row a plain baseline, with the AUCs of all its seeds."""
    names = dict.fromkeys(name for file in sweep.baselines.values() for name in file.columns)
    rows = []
    for name in names:
        by_gamma: dict[float, list[float]] = {}
        for (gamma, _), file in sorted(sweep.baselines.items(), key=lambda item: item[0]):
            if file.has(name):
                by_gamma.setdefault(gamma, []).append(file.auc(name))
        cells = {gamma: Cell(np.array(values)) for gamma, values in by_gamma.items()}
        rows.append(Row(BASELINE, name, name, cells))
    return rows


def best_baseline(rows: list[Row], gamma: float) -> tuple[str, Cell] | None:
    """The plain baseline of the greatest mean AUC at a contamination."""
    there = [(row.title, row.cells[gamma]) for row in rows if gamma in row.cells]
    return max(there, key=lambda item: item[1].mean, default=None)


def table_2(sweep: Sweep, name: str) -> Block:
    """Every method's scores, then the further terms, then the plain baselines, by contamination."""
    variants, baselines = sweep.variants, baseline_rows(sweep)
    groups = {title_of(v): _main_rows(sweep, v) for v in variants}
    groups |= {f"{title_of(v)}, further terms": _further_rows(sweep, v) for v in variants}
    groups["plain baselines"] = baselines
    beaten = {gamma: best[1].mean for gamma in sweep.gammas if (best := best_baseline(baselines, gamma))}
    columns = [(dataset, gamma) for dataset in DATASETS for gamma in GAMMAS]
    head = ["score", *map(gamma_title, sweep.gammas), *(f"{d} {g:.0%}, published" for d, g in columns)]
    shown: list[list[str]] = []
    lines = []
    for group, rows in groups.items():
        rows = [row for row in rows if row.cells]
        shown += [[group]] if rows else []
        for row in rows:
            known = published(row.variant.method, row.score) if row.title in (PAPER, row.score) else {}
            cells = [_shown(sweep, row, gamma, beaten) for gamma in sweep.gammas]
            shown.append([row.title, *cells, *(f"{known[c]:.2f}" if c in known else "" for c in columns)])
            for gamma, cell in row.cells.items():
                beats = int(_beats(row, cell, gamma, beaten))
                beside = [known.get((dataset, gamma)) for dataset in DATASETS]
                figures = (gamma, cell.lam, len(cell.aucs), cell.mean, cell.spread, beats, *beside)
                lines.append((row.variant.method, row.variant.options, row.title, *figures))
    keys = ("method", "options", "score", "gamma", "lambda", "seeds", "mean", "spread", "beats_baselines")
    data = csv_text((*keys, *(f"published_{dataset}" for dataset in DATASETS)), lines)
    caption = f"{LEGEND} Published figures: {SOURCE}, table 2; {PEERS_SOURCE}."
    return Block(name, "Table 2: AUC by method, score and contamination", caption, head, shown, data=data)


def table_1(sweep: Sweep, name: str) -> Block | None:
    """d_I against d_z without contamination; None where one of them was not swept there."""
    variants = [sweep.first(called) for called in dict.fromkeys(called for called, _ in TABLE_1)]
    scores = {"L_n": "L_n", "L_o": "L_o", "a": PAPER}
    rows = [[score_row(sweep, v, score, title) for score, title in scores.items()] for v in variants if v]
    if len(rows) < 2 or not all(0.0 in row.cells for part in rows for row in part):
        return None
    head = ["distance", *(f"{title} {kind}" for title in scores.values() for kind in ("here", "published, KTH"))]
    shown, lines = [], []
    for part in rows:
        cells = [row.cells[0.0] for row in part]
        known = [TABLE_1[part[0].variant.method, score] for score in scores]
        shown.append(
            [title_of(part[0].variant), *(text for c, p in zip(cells, known) for text in (_text(c), f"{p:.2f}"))]
        )
        for row, cell, value in zip(part, cells, known):
            lines.append((*row.variant, row.title, len(cell.aucs), cell.mean, cell.spread, value))
    keys = ("method", "options", "score", "seeds", "mean", "spread", "published_KTH")
    caption = f"AUC at γ 0: mean ± sample standard deviation over seeds. Published figures: {SOURCE}, table 1."
    title = "Table 1: the encoder's distance in image space (d_I) and in latent space (d_z)"
    return Block(name, title, caption, head, shown, data=csv_text(keys, lines))


def choice_table(sweep: Sweep, name: str) -> Block | None:
    """The λ chosen without labels, and what it costs against the paper's and the best; None without choices."""
    if not sweep.choices:
        return None
    head = ["method", "γ", "chosen λ", "by", *(["AUC there", f"AUC at λ {PAPER_LAMBDA:g}", "best AUC", "at λ"])]
    head = head if sweep.labelled else head[:4]
    keys = (
        "method",
        "options",
        "gamma",
        "chosen_lambda",
        "criterion",
        "auc_chosen",
        "auc_paper",
        "auc_best",
        "lambda_best",
    )
    rows = []
    for c in sweep.choices:
        title = title_of(Variant(c["method"], c["options"]))
        aucs = [number(c[key]) for key in ("auc_chosen", "auc_paper", "auc_best")]
        row = [title, f"{c['gamma']:g}", _lambda(c["chosen_lambda"]), c["criterion"], *aucs, _lambda(c["lambda_best"])]
        rows.append(row[: len(head)])
    note = " The best AUC is found with the test labels: an upper bound." if sweep.labelled else ""
    caption = f"λ as the label-free figures choose it, by method and contamination.{note}"
    data = csv_text(keys, [[c[key] for key in keys] for c in sweep.choices])
    return Block(name, "The choice of λ without labels", caption, head, rows, data=data)


def _main_rows(sweep: Sweep, variant: Variant) -> list[Row]:
    mixed = [score_row(sweep, variant, A, title) for title in (PAPER, CHOSEN, BEST)]
    return [score_row(sweep, variant, score, score) for score in main_scores(variant.method)] + mixed


def _further_rows(sweep: Sweep, variant: Variant) -> list[Row]:
    names = {name for trial in sweep.trials if trial.variant == variant for name in trial.scores.columns}
    further = in_order(names - set(main_scores(variant.method)), variant.method)
    return [score_row(sweep, variant, score, score) for score in further]


def _beats(row: Row, cell: Cell, gamma: float, beaten: dict[float, float]) -> bool:
    return row.variant != BASELINE and row.title != BEST and cell.mean > beaten.get(gamma, np.inf)


def _text(cell: Cell) -> str:
    return number(cell.mean) + (f" ± {cell.spread:.3f}" if len(cell.aucs) > 1 else "")


def _shown(sweep: Sweep, row: Row, gamma: float, beaten: dict[float, float]) -> str:
    cell = row.cells.get(gamma)
    if cell is None:
        return "–"
    few = f" ({len(cell.aucs)} seed{'s' * (len(cell.aucs) > 1)})" if len(cell.aucs) < len(sweep.plan.seeds) else ""
    return _text(cell) + few + (f" {BEATS}" if _beats(row, cell, gamma, beaten) else "")


def _lambda(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.7g}"
