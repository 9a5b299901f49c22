"""A row a trial and score: what a report says of methods, and what is kept of a study that is trained in parts."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

from data_tools.errors import UserError
from data_tools.storage import open_storage
from trainer.scoring.join import PAPER_LAMBDA
from tuning.score_names import A
from tuning.sweep_files import checked, csv_rows, csv_text
from tuning.sweep_tables import Sweep, Trial

BASELINE = "baseline"
TRIALS = "trials.csv"


@dataclass(frozen=True)
class TrialRow:
    """The AUC of one score of one trial, or of a plain baseline on the same images.

    a has the paper's lambda. auc_planted, auc_unseen: against anomalies of the classes that were planted, and of the
    others, where the training named some. minutes: of training; parameters: of what was trained. None: not known.
    """

    dataset: str
    resolution: int
    method: str
    options: str
    gamma: float
    seed: int
    score: str
    auc: float
    auc_planted: float | None = None
    auc_unseen: float | None = None
    minutes: float | None = None
    parameters: int | None = None


COLUMNS = tuple(each.name for each in fields(TrialRow))


def rows_of(sweep: Sweep, dataset: str) -> list[TrialRow]:
    """Of all finished trials with labels, then of the plain baselines."""
    rows = [row for trial in sweep.trials if trial.labelled for row in _of_trial(trial, dataset)]
    side = max((trial.resolution for trial in sweep.trials), default=0)
    for (gamma, seed), file in sorted(sweep.baselines.items()):
        rows += [TrialRow(dataset, side, BASELINE, "", gamma, seed, name, file.auc(name)) for name in file.columns]
    return rows


def _of_trial(trial: Trial, dataset: str) -> list[TrialRow]:
    result = {name: trial.scores.auc(name) for name in trial.scores.columns}
    if trial.scores.has(A):
        result[A] = trial.scores.auc(A, PAPER_LAMBDA)
    planted, unseen = (trial.kinds.get(kind, {}) for kind in ("planted", "unseen"))
    return [
        TrialRow(
            dataset,
            trial.resolution,
            trial.variant.method,
            trial.variant.options,
            trial.gamma,
            trial.seed,
            name,
            auc,
            planted.get(name),
            unseen.get(name),
            trial.minutes,
            trial.parameters,
        )
        for name, auc in result.items()
    ]


def text_of(rows: list[TrialRow]) -> str:
    """As CSV."""
    return csv_text(COLUMNS, [astuple(row) for row in rows])


def read_rows(url: str) -> list[TrialRow]:
    """The rows of a file that `text_of` wrote. UserError: there is none, or it is damaged."""
    folder, _, name = url.rpartition("/")
    storage = open_storage(folder or ".")
    try:
        return checked(storage, name, _parsed, "give one that python -m tuning report wrote")
    except FileNotFoundError:
        raise UserError(f"{url}: no such file - give a sweep, or the {TRIALS} of a report") from None


def _parsed(content: bytes) -> list[TrialRow]:
    return [TrialRow(**{name: _value(name, row[name]) for name in COLUMNS}) for row in csv_rows(content, COLUMNS)]


def _value(name: str, word: str) -> Any:
    if name in ("dataset", "method", "options", "score"):
        return word
    if name in ("resolution", "seed"):
        return int(word)
    if not word and name not in ("auc", "gamma"):
        return None
    value = int(word) if name == "parameters" else float(word)
    if not 0 <= value < float("inf") or (name.startswith("auc") and value > 1):
        raise ValueError(f"{name} is {word}")
    return value


def joined(parts: list[list[TrialRow]]) -> list[TrialRow]:
    """All rows, each trial's score once: of the same trial in two parts the last counts."""
    result: dict[tuple[Any, ...], TrialRow] = {}
    for row in (row for part in parts for row in part):
        known = asdict(row)
        result[tuple(known[name] for name in COLUMNS[:7])] = row
    return list(result.values())
