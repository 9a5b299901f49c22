"""A sweep's folder read into arrays: finished trials, plain baselines, label-free figures, the choice of lambda."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from data_tools.errors import UserError
from data_tools.storage import Storage, open_storage
from data_tools.untrusted import relative_name
from trainer.scoring.join import WEIGHTED
from tuning.config import METHODS
from tuning.score_names import DEFAULT, score_columns
from tuning.sweep_files import ScoreFile, read_array, read_json, read_scores, read_table

SEPARATIONS = ("separation", "separation_cut-paste", "separation_noise", "separation_blot")
MEASURES = (*SEPARATIONS, "agreement_seeds", "agreement_checkpoints", "mass_volume", "excess_mass")
CHOICE = ("chosen_lambda", "criterion", "auc_chosen", "auc_paper", "auc_best", "lambda_best")


class Variant(NamedTuple):
    """What is compared: a method with the training options that the sweep varied ("" for none)."""

    method: str
    options: str


@dataclass(frozen=True)
class Trial:
    """A finished trial: what was trained, and the scores of its images."""

    name: str
    variant: Variant
    gamma: float
    seed: int
    config: dict[str, Any]
    images_seen: int
    resolution: int
    scores: ScoreFile
    kinds: dict[str, dict[str, float]]  # AUCs by score of "planted" and "unseen" classes of anomalies
    minutes: float | None  # of training
    parameters: int | None

    @property
    def labelled(self) -> bool:
        return self.scores.labels is not None


@dataclass(frozen=True)
class Plan:
    """What a sweep set out to do. trials: as plan.json has them."""

    facts: dict[str, Any]
    name: str
    dataset: dict[str, Any]
    data: str
    lambdas: np.ndarray
    trials: list[dict[str, Any]]
    seeds: list[int]


@dataclass(frozen=True)
class Sweep:
    """What a sweep's folder holds by now; trials are the finished ones."""

    url: str
    storage: Storage
    plan: Plan
    trials: list[Trial]
    baselines: dict[tuple[float, int], ScoreFile]  # by contamination and seed
    label_free: list[dict[str, Any]]
    choices: list[dict[str, Any]]

    @property
    def gammas(self) -> list[float]:
        return sorted({trial.gamma for trial in self.trials})

    @property
    def seeds(self) -> list[int]:
        return sorted({trial.seed for trial in self.trials})

    @property
    def variants(self) -> list[Variant]:
        """In the methods' order, then in the plan's."""
        result = dict.fromkeys(trial.variant for trial in self.trials)
        return sorted(result, key=lambda variant: list(METHODS).index(variant.method))

    @property
    def labelled(self) -> bool:
        return any(trial.labelled for trial in self.trials)

    def of(self, variant: Variant, gamma: float) -> list[Trial]:
        """A variant's finished trials at one contamination, in their seeds' order."""
        result = [trial for trial in self.trials if trial.variant == variant and trial.gamma == gamma]
        return sorted(result, key=lambda trial: trial.seed)

    def scored(self, variant: Variant, gamma: float, score: str = "a") -> list[tuple[int, ScoreFile]]:
        """Seeds and score files with labels that have a score, in the seeds' order."""
        trials = [trial for trial in self.of(variant, gamma) if trial.labelled]
        return [(trial.seed, trial.scores) for trial in trials if trial.scores.has(score)]

    def first(self, method: str) -> Variant | None:
        """A method's first variant: the one that is drawn where a method has only one place."""
        return next((variant for variant in self.variants if variant.method == method), None)

    @property
    def subject(self) -> Variant | None:
        """What figures of one method show: the default method, or else the first that was swept."""
        return self.first(DEFAULT) or next(iter(self.variants), None)

    def chosen_lambda(self, variant: Variant, gamma: float) -> float | None:
        """The lambda chosen without labels; None where no choice was made."""
        rows = (row for row in self.choices if (row["method"], row["options"], row["gamma"]) == (*variant, gamma))
        value = next((row["chosen_lambda"] for row in rows), np.nan)
        return None if np.isnan(value) else value

    def latents(self, trial: Trial) -> np.ndarray | None:
        """z_hat of the test images, float32 N x N_z, in the scores' order; None where there are none.

        UserError: the file is damaged.
        """
        try:
            return read_array(self.storage, f"trials/{trial.name}/latents.npz", len(trial.scores.keys))
        except FileNotFoundError:
            return None


def read_sweep(url: str) -> Sweep:
    """Read a sweep's folder. UserError: it has no plan, a file of it is damaged, or no trial is finished."""
    url = url.rstrip("/")
    storage = open_storage(url)
    names = {name for name, _ in storage.tree()}
    if "plan.json" not in names:
        raise UserError(f"{url}: is not a sweep (it has no plan.json) - give the --out of python -m tuning sweep")
    plan = read_json(storage, "plan.json", _plan)
    trials = [_trial(storage, trial, names) for trial in plan.trials if f"trials/{trial['name']}/result.json" in names]
    if not trials:
        raise UserError(f"{url}: none of its {len(plan.trials)} trials is finished - wait for one, or run the sweep on")
    tables = {"label_free.csv": ("gamma", "lambda", "auc", *MEASURES), "choice.csv": ("gamma", *CHOICE)}
    label_free, choices = (
        read_table(storage, name, ("method", "options", *columns)) if name in names else []
        for name, columns in tables.items()
    )
    return Sweep(url, storage, plan, trials, _baselines(storage, names), label_free, choices)


def _plan(value: Any) -> Plan:
    for trial in value["trials"]:
        kinds = {"name": str, "gamma": (int, float), "seed": int, "options": dict, "config": dict}
        if wrong := [key for key, kind in kinds.items() if not isinstance(trial[key], kind)]:
            raise ValueError(f"a trial's {wrong[0]} is {trial[wrong[0]]!r}")
        if trial["method"] not in METHODS:
            raise ValueError(f"unknown method {trial['method']}")
        relative_name(trial["name"])
    seeds = sorted({int(trial["seed"]) for trial in value["trials"]})
    facts, lambdas = dict(value["sweep"]), np.array(value["lambdas"], np.float64)
    return Plan(facts, str(facts["name"]), value["dataset"], str(facts["data"]), lambdas, value["trials"], seeds)


def _trial(storage: Storage, planned: dict[str, Any], names: set[str]) -> Trial:
    """A finished trial. Options are written as in the sweep's tables: "learning_rate=0.002 width=32"."""
    folder = f"trials/{planned['name']}"
    labelled, images_seen, resolution, scored, terms, kinds, minutes, parameters = read_json(
        storage,
        f"{folder}/result.json",
        lambda r: (
            bool(r["labelled"]),
            int(r["images_seen"]),
            int(r["resolution"]),
            int(r["scored_images"]),
            _names(r.get("terms")),  # that of an earlier version has none, nor what follows
            {str(k): {str(name): float(auc) for name, auc in aucs.items()} for k, aucs in r.get("kinds", {}).items()},
            float(r["minutes"]) if "minutes" in r else None,
            int(r["parameters"]) if "parameters" in r else None,
        ),
    )
    needed, wanted = (terms, terms) if terms else (WEIGHTED, score_columns())
    scores = read_scores(storage, f"{folder}/scores.csv", needed, wanted) if f"{folder}/scores.csv" in names else None
    if scores is None or len(scores.keys) != scored or (scores.labels is not None) != labelled:
        kind = "labelled" if labelled else "unlabelled"
        raise UserError(
            f"{storage.url}/{folder}/scores.csv: lacks the scores of the {scored} {kind} images that its result.json "
            f"counts - remove the trial's result.json and run python -m tuning sweep again"
        )
    variant = Variant(planned["method"], " ".join(f"{name}={value}" for name, value in planned["options"].items()))
    gamma, seed, config = float(planned["gamma"]), int(planned["seed"]), planned["config"]
    costs = (minutes, parameters)
    return Trial(planned["name"], variant, gamma, seed, config, images_seen, resolution, scores, kinds, *costs)


def _names(terms: Any) -> list[str] | None:
    if terms is not None and not (type(terms) is list and all(type(name) is str for name in terms)):
        raise ValueError("terms are no list of names")
    return terms


def _baselines(storage: Storage, names: set[str]) -> dict[tuple[float, int], ScoreFile]:
    """The plain baselines' scores; those without labels have no place in a report."""
    places = {name: re.fullmatch(r"baselines/gamma-([\d.e-]+)_seed-(\d+)/scores\.csv", name) for name in sorted(names)}
    files = {
        (float(place[1]), int(place[2])): read_scores(storage, name, ()) for name, place in places.items() if place
    }
    return {place: file for place, file in files.items() if file.labels is not None}
