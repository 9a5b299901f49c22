"""The plan of a sweep: which trials there are, a function of its options alone, and the plan.json that says so."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_tools.dataset.cache import open_cache
from data_tools.dataset.contamination import check_gamma
from data_tools.dataset.reader import Dataset, open_dataset
from data_tools.errors import UserError
from data_tools.storage import open_storage, read_document, write_bytes
from trainer.config import TrainConfig
from trainer.presets import preset
from trainer.scoring.evaluation import has_labels
from trainer.scoring.join import PAPER_LAMBDA, lambda_grid
from tuning.clean import JUNK, check_rounds
from tuning.config import METHODS, SweepConfig, differing_options
from tuning.options import Choice, concerns, parse, with_option
from tuning.trainings import with_method

PLAN = "plan.json"
VERSION = 1
Options = dict[str, str]
"""Options of a training run that the sweep varies, as typed; and ROUNDS of a robust twin."""
ROUNDS = ("rounds", "drop")


@dataclass(frozen=True)
class Trial:
    """One training and what follows from it; method: as the sweep calls it."""

    name: str
    method: str
    gamma: float
    seed: int
    options: Options
    config: TrainConfig

    @property
    def place(self) -> dict[str, Any]:
        """Its place in the sweep, of which all else follows."""
        return {"method": self.method, "gamma": self.gamma, "seed": self.seed, "options": self.options}

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, **self.place, "config": self.config.to_json()}


@dataclass(frozen=True)
class Plan:
    """trials: all of them; with the sampler optuna those there are so far."""

    sweep: SweepConfig
    dataset: Dataset
    lambdas: np.ndarray
    choices: tuple[Choice, ...]  # of what the sweep varies
    trials: tuple[Trial, ...]

    @property
    def labelled(self) -> bool:
        return has_labels(self.dataset)


def make_plan(sweep: SweepConfig) -> Plan:
    """Check all options against each other and the data, and list the trials; UserError for the first that is wrong."""
    for option in ("data", "out", "preset"):
        if not getattr(sweep, option):
            raise UserError(f"--{option} is missing - see python -m tuning sweep --help")
    for option in ("workers", "cpus", "samples"):
        if getattr(sweep, option) < 1:
            raise UserError(f"--{option} {getattr(sweep, option)} is not positive - give at least 1")
    if sweep.concurrent < 0:
        raise UserError(f"--concurrent {sweep.concurrent} is negative - give 0 for as many as can be placed")
    base, choices = read_options(sweep)
    lambdas = lambda_values(sweep.lam)
    dataset = open_dataset(sweep.data, open_cache(sweep.cache, sweep.cache_limit))
    for gamma in sweep.gammas:
        check_gamma(dataset, gamma, sweep.planted)
    if base.resolution > dataset.resolution:
        raise UserError(
            f"--preset {sweep.preset} or --set resolution={base.resolution} is above the dataset's {dataset.resolution}"
            f" - give --set resolution={dataset.resolution}"
        )
    if sweep.rounds:
        check_rounds(sweep.rounds, sweep.drop)
    _check_sampler(sweep, choices, has_labels(dataset))
    trials = tuple(
        trial_of(sweep, method, gamma, seed, options)
        for method, gamma, seed in itertools.product(sweep.methods, sweep.gammas, sweep.seeds)
        for options in _with_twins(sweep, _combinations(sweep, choices, METHODS[method]["method"]))
    )
    return Plan(sweep, dataset, lambdas, choices, trials)


def trial_of(sweep: SweepConfig, method: str, gamma: float, seed: int, options: Options) -> Trial:
    """The trial of a combination; UserError where its training's configuration is out of range."""
    short = f"{gamma:g}"  # six digits, which say nearly every gamma in full
    words = [method, f"gamma-{short if float(short) == gamma else repr(gamma)}", f"seed-{seed}"]
    name = "_".join([*words, *(f"{option.replace('_', '-')}-{value}" for option, value in options.items())])
    config = dataclasses.replace(
        read_options(sweep)[0],
        data=sweep.data,
        out=f"{sweep.out}/trials/{name}/run",
        gamma=gamma,
        planted=sweep.planted,
        seed=seed,
        workers=str(sweep.workers),
        cache=sweep.cache,
        cache_limit=sweep.cache_limit,
    )
    config = with_method(config, method)
    for option, value in options.items():
        if option not in ROUNDS:
            config = with_option(config, option, value)
    if "rounds" in options:
        config = dataclasses.replace(config, exclude=f"{sweep.out}/trials/{name}/{JUNK}")
    try:
        config.validated()
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    return Trial(name, method, gamma, seed, options, config)


def read_options(sweep: SweepConfig) -> tuple[TrainConfig, tuple[Choice, ...]]:
    """What all runs of a sweep start from, and what varies between them; UserError for a --set that is wrong."""
    base = preset(sweep.preset)
    parsed = [parse(text, base) for text in sweep.set]
    if len({choice.name for choice in parsed}) < len(parsed):
        raise UserError("--set names an option twice - give its values in one, NAME=VALUE,VALUE")
    for choice in parsed:
        if len(choice.values) == 1:
            base = with_option(base, choice.name, choice.values[0])
    return base, tuple(choice for choice in parsed if len(choice.values) != 1)


def _check_sampler(sweep: SweepConfig, choices: tuple[Choice, ...], labelled: bool) -> None:
    ranges = [choice.name for choice in choices if choice.is_range]
    if sweep.sampler == "grid" and ranges:
        raise UserError(f"--set {ranges[0]} is a range, which a grid cannot walk - give values, or --sampler random")
    if sweep.sampler != "grid" and not choices:
        raise UserError(
            f"--sampler {sweep.sampler} has nothing to draw - give --set NAME=LOW..HIGH or NAME=VALUE,VALUE"
        )
    if sweep.sampler == "optuna" and len(sweep.methods) * len(sweep.gammas) * len(sweep.seeds) > 1:
        raise UserError("--sampler optuna compares training runs of one method, gamma and seed - give one of each")
    if sweep.asha and (len(sweep.methods) > 1 or any(choice.name == "resolution" for choice in choices)):
        raise UserError("--asha compares training runs phase by phase - give one --method, and no --set resolution=")
    if (sweep.asha or sweep.sampler == "optuna") and sweep.rounds:
        option = "--asha" if sweep.asha else "--sampler optuna"
        raise UserError(f"{option} compares single training runs, not rounds of them - leave out --rounds")
    if (sweep.asha or sweep.sampler == "optuna") and not labelled:
        option = "--asha" if sweep.asha else "--sampler optuna"
        raise UserError(f"{option} goes by AUCs, and {sweep.data} has no labelled test images - leave it out")


def _combinations(sweep: SweepConfig, choices: tuple[Choice, ...], method: str) -> list[Options]:
    concerned = [choice for choice in choices if concerns(choice.name, method)]
    if sweep.sampler == "optuna":
        return []
    if sweep.sampler == "random":
        drawn = [
            {choice.name: choice.draw(np.random.default_rng((number, i))) for i, choice in enumerate(choices)}
            for number in range(sweep.samples)
        ]
        kept = [{choice.name: options[choice.name] for choice in concerned} for options in drawn]
        return [dict(items) for items in dict.fromkeys(tuple(options.items()) for options in kept)]
    names = [choice.name for choice in concerned]
    return [dict(zip(names, values)) for values in itertools.product(*(choice.values for choice in concerned))]


def _with_twins(sweep: SweepConfig, combinations: list[Options]) -> list[Options]:
    """Each combination, and with --rounds its robust twin."""
    if not sweep.rounds:
        return combinations
    twin = {"rounds": str(sweep.rounds), "drop": f"{sweep.drop:g}"}
    return [each for options in combinations for each in (options, options | twin)]


def introduce(plan: Plan, finished: int) -> Iterable[str]:
    """What is going to be done, in a few lines."""
    sweep, count = plan.sweep, len(plan.trials)
    if sweep.sampler == "optuna":
        count = sweep.samples
    varied = "".join(f", {choice.name}" for choice in plan.choices)
    yield f"plan: {count} trials (method {sweep.method}, gamma {sweep.gamma}, seed {sweep.seed}{varied})"
    yield f"{count} training runs of {sweep.workers} worker(s) each, {finished} finished before"
    yield f"{len(plan.lambdas)} values of lambda, which add no training: they are arithmetic on the stored scores"
    baselines = len(sweep.gammas) * len(sweep.seeds) if plan.labelled else 0
    yield f"plain baselines for {baselines} training sets" if baselines else "no labels: label-free figures alone"


def lambda_values(text: str) -> np.ndarray:
    """The values that words separated by commas stand for, ascending, each once: paper, grid, numbers in [0, 1]."""
    result: list[float] = []
    for word in text.split(","):
        if word == "paper":
            result.append(PAPER_LAMBDA)
        elif word == "grid":
            result += lambda_grid().tolist()
        else:
            result.append(_lambda(word))
    return np.unique(result)


def _lambda(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"--lambda {word} is not a value of lambda - give paper, grid or numbers in [0, 1]")
    return value


def write_plan(plan: Plan) -> None:
    """Write plan.json, or check that the one there is of the same plan; UserError otherwise."""
    storage, sweep = open_storage(plan.sweep.out), plan.sweep
    if (earlier := read_plan(sweep.out)) is None:
        if storage.tree():
            raise UserError(f"--out {sweep.out}: exists and is not a sweep - give a new or an empty folder")
    else:
        if different := differing_options(SweepConfig.from_json(earlier["sweep"]), sweep):
            raise UserError(
                f"--out {sweep.out}: holds a sweep of another plan, which differs in {', '.join(different)}"
                " - give another --out"
            )
        if earlier["dataset"]["digest"] != plan.dataset.manifest.digest:
            raise UserError(
                f"--out {sweep.out}: holds a sweep on another dataset than --data {sweep.data} - give another --out"
            )
    name = sweep.name or sweep.data.rstrip("/").rpartition("/")[2]
    pools = ("train-normal", "train-unlabelled", "train-anomaly", "test-normal", "test-anomaly")
    facts = {
        "version": VERSION,
        "sweep": {**sweep.to_json(), "name": name},
        "dataset": {
            "digest": plan.dataset.manifest.digest,
            "channels": plan.dataset.channels,
            "counts": {pool: plan.dataset.count(pool) for pool in pools if plan.dataset.count(pool)},
        },
        "lambdas": plan.lambdas.tolist(),
        "trials": [trial.to_json() for trial in plan.trials],
    }
    try:
        write_bytes(storage, PLAN, (json.dumps(facts, indent=1) + "\n").encode(), new=earlier is None)
    except FileExistsError:
        raise UserError(f"--out {sweep.out}: another sweep has just begun there - give another --out") from None


def read_plan(url: str) -> dict[str, Any] | None:
    """What plan.json says; None where there is none, UserError when it is damaged."""
    try:
        facts = read_document(open_storage(url), PLAN)
        SweepConfig.from_json(facts["sweep"])
        if type(facts["dataset"]["digest"]) is not str or type(facts["trials"]) is not list:
            raise ValueError("no digest of the dataset, or no list of trials")
        return facts
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{url}/{PLAN}: damaged ({error!r:.200}) - restore it, or give another --out") from None
