"""The page's curves: what each figure draws is gathered here from a sweep, with its caption and its CSV."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from trainer.scoring.join import PAPER_LAMBDA, WEIGHTED
from tuning.report import figures
from tuning.report.blocks import Block, drawn, listed
from tuning.report.figure_style import METHOD_LINES, Band, gamma_title, line_of, score_title, title_of
from tuning.report.figures import LambdaMarks, Measure, RocLine, baseline_band, roc_line
from tuning.report.result_tables import BEST, baseline_rows, best_baseline, score_row
from tuning.score_names import FUSED, A, headline_scores, in_order, known_by, rivals
from tuning.sweep_files import ScoreFile, csv_text
from tuning.sweep_tables import MEASURES, SEPARATIONS, Sweep, Variant

ROC_GRID = np.linspace(0, 1, 201)
COLUMNS = 3  # contaminations side by side in the label-free figure


def auc_over_gamma(sweep: Sweep, name: str) -> Block | None:
    """AUC against contamination; None with one contamination or without labels."""
    parts, lines = {}, []
    for score in headline_scores():
        bands = []
        for variant in sweep.variants:
            row = score_row(sweep, variant, score, score_title(score))
            if len(row.cells) > 1:
                values = [cell.aucs for cell in row.cells.values()]
                mean, low, high = (np.array([f(v) for v in values]) for f in (np.mean, np.min, np.max))
                line = line_of(variant, sweep.variants)
                bands.append(Band(title_of(variant), line, np.array(list(row.cells)), mean, low, high))
                lines += [(*variant, score, *figures) for figures in zip(row.cells, mean, low, high)]
        if bands:
            parts[score_title(score)] = bands
    if not parts:
        return None
    plain = baseline_rows(sweep)
    best = {gamma: baseline for gamma in sweep.gammas if (baseline := best_baseline(plain, gamma))}
    if best:
        names = list(dict.fromkeys(title for title, _ in best.values()))
        title = f"best plain baseline ({', '.join(names)})"
        means = np.array([cell.mean for _, cell in best.values()])
        for bands in parts.values():
            bands.append(baseline_band(title, np.array(list(best)), means))
        lines += [("baseline", "", title, gamma, cell.mean, None, None) for gamma, (title, cell) in best.items()]
    caption = (
        f"AUC against the share of anomalies in the training set, {_seeds(sweep)}. Lines are means over seeds, bands "
        "run from the least to the greatest seed. Dotted gray: at each γ the plain baseline of the greatest mean."
    )
    data = csv_text(("method", "options", "score", "gamma", "mean", "least", "greatest"), lines)
    return Block(
        name, "AUC against contamination", caption, picture=drawn(figures.gamma_figure(parts), "svg"), data=data
    )


def auc_over_lambda(sweep: Sweep, name: str) -> Block | None:
    """AUC of a against lambda, a panel a contamination; None without labels or lambdas in (0, 1)."""
    inside = (sweep.plan.lambdas > 0) & (sweep.plan.lambdas < 1)
    parts, lines = {}, []
    for gamma in sweep.gammas:
        bands = []
        for variant in sweep.variants:
            files = [file for _, file in sweep.scored(variant, gamma)]
            if not files or not inside.any():
                continue
            curves = np.array([file.lambda_aucs(sweep.plan.lambdas) for file in files])
            three = curves.mean(axis=0), curves.min(axis=0), curves.max(axis=0)
            lines += [(*variant, gamma, *figures) for figures in zip(sweep.plan.lambdas, *three)]
            chosen, shown = sweep.chosen_lambda(variant, gamma), (values[inside] for values in three)
            style = line_of(variant, sweep.variants)
            bands.append(Band(title_of(variant), style, sweep.plan.lambdas[inside], *shown, mark=chosen))
        if bands:
            parts[gamma_title(gamma)] = bands
    if not parts:
        return None
    caption = (
        f"AUC of a = λ L_n + (1 − λ) L_o against λ on a logit axis, {_seeds(sweep)}: means over seeds, bands from the "
        "least to the greatest. λ = 0 (L_o alone) and λ = 1 (L_n alone) have no place on this axis and are left out; "
        "the CSV has them. Stars: the λ chosen without labels."
    )
    data = csv_text(("method", "options", "gamma", "lambda", "mean", "least", "greatest"), lines)
    return Block(name, "AUC against λ", caption, picture=drawn(figures.lambda_figure(parts), "svg"), data=data)


def label_free(sweep: Sweep, name: str) -> list[Block]:
    """The label-free figures against lambda for one method, three contaminations a figure."""
    variant = sweep.subject
    rows = [row for row in sweep.label_free if variant == (row["method"], row["options"]) and 0 < row["lambda"] < 1]
    gammas = sorted({row["gamma"] for row in rows})
    if variant is None or not rows:
        return []
    keys = ("method", "options", "gamma", "lambda", *MEASURES, "auc")
    data = csv_text(keys, [[row[key] for key in keys] for row in sweep.label_free])
    caption = (
        f"What can be measured without labels, against λ, beside the AUC; {title_of(variant)}, {_seeds(sweep)}. "
        "Separation: AUC of simulated anomalies (cut-paste, noise, blot) against normal images. Agreement: rank "
        "correlation of scores between seeds and between checkpoints. Mass volume: the less, the better; the others: "
        "the greater, the better. Lines have no bands: the sweep's table holds one figure for all seeds."
    )
    best, blocks = score_row(sweep, variant, "a", BEST).cells, []
    for start in range(0, len(gammas), COLUMNS):
        part = gammas[start : start + COLUMNS]
        tables = [sorted((row for row in rows if row["gamma"] == g), key=lambda row: row["lambda"]) for g in part]
        lambdas = [np.array([row["lambda"] for row in table]) for table in tables]
        marks = [
            LambdaMarks(gamma_title(g), sweep.chosen_lambda(variant, g), best[g].lam if g in best else None)
            for g in part
        ]
        figure = figures.label_free_figure(lambdas, marks, _measures(tables))
        number = f"-{start // COLUMNS + 1}" if start else ""
        title = "Label-free figures against λ"
        blocks.append(Block(name + number, title, caption, picture=drawn(figure, "svg"), data=data))
    return blocks


def terms(sweep: Sweep, name: str) -> Block | None:
    """AUC of each term of one method, a dot a seed, above the plain baselines; None without labels."""
    variant = sweep.subject
    if variant is None or not sweep.labelled:
        return None
    names = in_order({name for trial in sweep.trials for name in trial.scores.columns}, variant.method)
    term_rows = [score_row(sweep, variant, score, score_title(score)) for score in [A, *names]]
    gammas = [gamma for gamma in sweep.gammas if any(gamma in row.cells for row in term_rows)]
    plain = baseline_rows(sweep)
    parts, baselines = (
        {gamma_title(g): {row.title: row.cells[g].aucs for row in rows if g in row.cells} for g in gammas}
        for rows in (term_rows, plain)
    )
    lines = [
        (row.variant.method, row.title, gamma, value)
        for row in term_rows + plain
        for gamma, cell in row.cells.items()
        for value in cell.aucs
    ]
    caption = (
        f"AUC of each term, their label-free sum (fused) and a at λ {PAPER_LAMBDA:g}: a dot a seed, a bar at the mean; "
        f"{title_of(variant)}, {_seeds(sweep)}. Below the line: plain baselines, a tick a seed. Gray: chance."
    )
    figure = figures.terms_figure(parts, baselines, METHOD_LINES[variant.method])
    data = csv_text(("method", "score", "gamma", "auc"), lines)
    return Block(name, "Terms beside plain baselines", caption, picture=drawn(figure, "svg"), data=data)


def roc(sweep: Sweep, name: str) -> Block | None:
    """ROC curves by contamination; None without labels."""
    parts, lines, plain = {}, [], baseline_rows(sweep)
    for gamma in sweep.gammas:
        curves = []
        for method, score in _roc_scores(sweep):
            variant = sweep.first(method)
            files = [file for _, file in sweep.scored(variant, gamma, score)] if variant else []
            if files:
                title = f"{title_of(Variant(method, ''))}: {score_title(score)}"
                curves.append(RocLine(title, roc_line(method, score), _rates(files, score)))
        best = best_baseline(plain, gamma)
        if curves and best:
            files = [file for (g, _), file in sorted(sweep.baselines.items()) if g == gamma and file.has(best[0])]
            curves.append(RocLine(f"plain baseline: {best[0]}", roc_line("", "baseline"), _rates(files, best[0])))
        if curves:
            parts[gamma_title(gamma)] = curves
            lines += [(gamma, c.title, x, y) for c in curves for x, y in zip(ROC_GRID, c.rates.mean(axis=0).tolist())]
    if not parts:
        return None
    caption = (
        f"ROC curves on the test set, {_seeds(sweep)}: thin lines are seeds, thick ones the mean of their true "
        f"positive rates{_options(sweep)}. The plain baseline is the one of the greatest mean AUC at that γ."
    )
    figure = figures.roc_figure(ROC_GRID, parts)
    data = csv_text(("gamma", "curve", "false_positive_rate", "true_positive_rate"), lines)
    return Block(name, "ROC curves", caption, picture=drawn(figure, "svg"), data=data)


def _roc_scores(sweep: Sweep) -> list[tuple[str, str]]:
    """Which ROC curves are drawn, as method and score: one method's own, and the best-known of each of its rivals."""
    assert sweep.subject
    method = sweep.subject.method
    own = dict.fromkeys([A, *WEIGHTED, FUSED, known_by(method)])
    return [*((method, score) for score in own), *((rival, known_by(rival)) for rival in rivals(method))]


def _rates(files: list[ScoreFile], score: str) -> np.ndarray:
    """True positive rates on ROC_GRID, a row a file; where a curve rises upright, its foot at 0 and its top beyond."""
    rows = []
    for file in files:
        false_positive, true_positive, _ = roc_curve(file.labels, file.score(score, PAPER_LAMBDA))
        rows.append(np.interp(ROC_GRID, false_positive, true_positive))
        rows[-1][0] = 0
    return np.array(rows)


def _measures(tables: list[list[dict[str, Any]]]) -> list[Measure]:
    """The figure's rows; those without a figure at any lambda are left out."""
    wanted = {
        "AUC of a": {"auc": "AUC of a"},
        "separation": {key: key.removeprefix("separation_").replace("separation", "all") for key in SEPARATIONS},
        "agreement": {"agreement_seeds": "seeds", "agreement_checkpoints": "checkpoints"},
        "mass volume": {"mass_volume": "mass volume"},
        "excess mass": {"excess_mass": "excess mass"},
    }
    measures = []
    for title, keys in wanted.items():
        curves = [
            {shown: values for key, shown in keys.items() if np.isfinite(values := np.array([r[key] for r in t])).any()}
            for t in tables
        ]
        if all(curves):
            measures.append(Measure(title, curves))
    return measures


def _options(sweep: Sweep) -> str:
    """Which options are drawn where a method has only one place; "" where the sweep varied none."""
    drawn_ones = dict.fromkeys(
        v.options for method, _ in _roc_scores(sweep) if (v := sweep.first(method)) and v.options
    )
    return f"; options {'; '.join(drawn_ones)} alone" if drawn_ones else ""


def _seeds(sweep: Sweep) -> str:
    return f"seed{'s' * (len(sweep.seeds) > 1)} {listed(sweep.seeds)}"
