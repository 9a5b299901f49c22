"""The tables of a whole sweep, from its trials' tables alone: the same bytes after any number of interruptions."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_tools.storage import Storage, open_storage, write_bytes
from trainer.scoring.join import PAPER_LAMBDA, WEIGHTED, anomaly
from trainer.scoring.synthetic import LOCAL, separation
from tuning.label_free import chosen_lambda, excess_mass, mass_volume, rank_agreement
from tuning.score_names import in_order, main_scores
from tuning.sweep_files import checked, csv_text
from tuning.sweep_tables import CHOICE, MEASURES, Sweep, Trial, read_sweep
from tuning.trial_tables import PROBES

AUC_COLUMNS = ("method", "options", "gamma", "seed", "score", "lambda", "auc")
CRITERION = "separation"
"""The label-free figure whose greatest value chooses lambda: the mean AUC of corrupted images against originals."""
Probes = dict[str, np.ndarray]
"""By kind, 2 x N: L_n and L_o of probe images."""


def write_results(url: str) -> None:
    """Write table.csv (an AUC a row; with labels), label_free.csv and choice.csv."""
    sweep, storage = read_sweep(url), open_storage(url)
    if sweep.labelled:
        write_bytes(storage, "table.csv", csv_text(AUC_COLUMNS, auc_rows(sweep)).encode())
    measures: list[list[Any]] = []
    choices: list[list[Any]] = []
    for variant in sweep.variants:
        for gamma in sweep.gammas:
            trials = sweep.of(variant, gamma)
            probes = [probe for trial in trials if (probe := read_probes(storage, trial.name))]
            mixed = [trial for trial in trials if trial.labelled and trial.scores.has("a")]
            curves = [trial.scores.lambda_aucs(sweep.plan.lambdas) for trial in mixed]
            aucs = np.mean(curves, axis=0) if curves else None
            if not probes:
                continue
            free = [label_free_figures(probes, float(lam)) for lam in sweep.plan.lambdas]
            for i, lam in enumerate(sweep.plan.lambdas):
                cells = [free[i][name] for name in MEASURES]
                measures.append([*variant, gamma, lam, *cells, None if aucs is None else aucs[i]])
            criterion = np.array([figures[CRITERION] for figures in free])
            choices.append([*variant, gamma, *_choice(sweep.plan.lambdas, criterion, aucs, trials)])
    for name, columns, rows in (
        ("label_free.csv", ("gamma", "lambda", *MEASURES, "auc"), measures),
        ("choice.csv", ("gamma", *CHOICE), choices),
    ):
        write_bytes(storage, name, csv_text(("method", "options", *columns), rows).encode())


def auc_rows(sweep: Sweep) -> list[list[Any]]:
    """An AUC a row: every term and every lambda of every finished trial, and the plain baselines."""
    rows: list[list[Any]] = []
    for trial in sweep.trials:
        if not trial.labelled:
            continue
        place = [*trial.variant, trial.gamma, trial.seed]
        main = [name for name in main_scores(trial.variant.method) if trial.scores.has(name)]
        names = dict.fromkeys([*main, *in_order(trial.scores.columns)])
        rows += [[*place, name, "", trial.scores.auc(name)] for name in names]
        if trial.scores.has("a"):
            curve = trial.scores.lambda_aucs(sweep.plan.lambdas)
            rows += [[*place, "a", lam, auc] for lam, auc in zip(sweep.plan.lambdas, curve)]
    for (gamma, seed), scores in sorted(sweep.baselines.items()):
        rows += [["baseline", "", gamma, seed, name, "", scores.auc(name)] for name in sorted(scores.columns)]
    return rows


def read_probes(storage: Storage, trial: str) -> Probes | None:
    """A trial's probes; None where its method has none, UserError when the file is damaged."""

    def parse(content: bytes) -> Probes:
        rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
        kinds = dict.fromkeys(row["kind"] for row in rows)
        result = {
            kind: np.array([[float(row[name]) for row in rows if row["kind"] == kind] for name in WEIGHTED])
            for kind in kinds
        }
        if missing := {"reference", "uniform", *LOCAL} - set(result):
            raise ValueError(f"has no {min(missing)}")
        return result

    try:
        return checked(storage, f"trials/{trial}/{PROBES}", parse)
    except FileNotFoundError:
        return None


def label_free_figures(probes: Sequence[Probes], lam: float) -> dict[str, float]:
    """What can be said of a at one lambda without labels, means over seeds: one `Probes` a seed."""
    scores = [{kind: anomaly(parts[0], parts[1], lam) for kind, parts in each.items()} for each in probes]
    result = {
        f"separation_{kind}": float(np.mean([separation(each["reference"], each[kind]) for each in scores]))
        for kind in LOCAL
    }
    pairs = [np.stack([each["reference"], each["before"]]) for each in scores if "before" in each]
    return {
        "separation": float(np.mean(list(result.values()))),
        **result,
        "agreement_seeds": rank_agreement(np.stack([each["reference"] for each in scores])),
        "agreement_checkpoints": float(np.mean([rank_agreement(pair) for pair in pairs])) if pairs else float("nan"),
        "mass_volume": float(np.mean([mass_volume(each["reference"], each["uniform"]) for each in scores])),
        "excess_mass": float(np.mean([excess_mass(each["reference"], each["uniform"]) for each in scores])),
    }


def _choice(lambdas: np.ndarray, criterion: np.ndarray, aucs: np.ndarray | None, trials: list[Trial]) -> list[Any]:
    """The cells of CHOICE."""
    chosen = chosen_lambda(lambdas, criterion)
    if aucs is None:
        return [lambdas[chosen], CRITERION, None, None, None, None]
    best = int(aucs.argmax())
    paper = np.mean([trial.scores.auc("a", PAPER_LAMBDA) for trial in trials if trial.labelled])
    return [lambdas[chosen], CRITERION, aucs[chosen], paper, aucs[best], lambdas[best]]
