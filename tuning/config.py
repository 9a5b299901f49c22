"""The configuration of a sweep: one frozen dataclass; every field is a command line option."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from data_tools.dataset.cache import DEFAULT_LIMIT
from data_tools.errors import UserError
from data_tools.untrusted import typed
from trainer.config import TrainConfig
from trainer.methods import VARIANTS

METHODS: dict[str, dict[str, Any]] = {
    called: {"method": name, **variant.options} for called, (name, variant) in VARIANTS.items()
}
"""What a sweep calls a method, and the options of a training run that it stands for."""
METHOD_HELP = "Methods, separated by commas: " + ", ".join(METHODS)
OPERATIONAL = ("data", "out", "workers", "cpus", "concurrent", "cache", "cache_limit")
"""Options that say where and how a sweep runs, not what comes out."""


@dataclass(frozen=True)
class SweepConfig:
    """Train one detector per method, gamma and seed, and make the tables that follow from their scores."""

    data: str = ""
    """The dataset: the URL that data_tools wrote to."""
    out: str = ""
    """The sweep's URL, a folder or s3://. If it holds an unfinished sweep of the same plan, that sweep goes on."""
    preset: str = ""
    """The preset whose options a run starts from."""
    name: str = ""
    """What the report calls the dataset."""
    method: Annotated[str, tyro.conf.arg(help=METHOD_HELP)] = TrainConfig.method
    gamma: str = "0"
    """Contaminations, separated by commas."""
    planted: str = ""
    """The anomaly classes that contaminate the training set, separated by commas; "" takes all."""
    seed: str = "0"
    """Seeds, separated by commas."""
    lam: Annotated[str, tyro.conf.arg(name="lambda")] = "paper,grid"
    """Values of lambda, separated by commas: paper (0.05), grid (dense where it matters), numbers. No training each."""
    set: tuple[str, ...] = ()
    """Options of a training run, as python -m trainer train names them: NAME=VALUE; NAME=VALUE,VALUE to try each; and
    for the samplers random and optuna NAME=LOW..HIGH, or NAME=LOW..HIGH:log for a range of magnitudes."""
    rounds: int = 0
    """Add a robust twin of each run that leaves out the images it ranks worst and trains again, this many times."""
    drop: float = 0.02
    """The share of the remaining images that each of these rounds leaves out."""
    sampler: Literal["grid", "random", "optuna"] = "grid"
    """How values of --set are combined: all with all, drawn at random, or proposed by Optuna."""
    samples: int = 10
    """Combinations that random and optuna try."""
    asha: bool = False
    """Stop runs early that do worse than others at the end of the same phase (needs labels and one method)."""
    workers: int = 1
    """Ray Train workers of each training run."""
    cpus: int = 1
    """CPU cores of each worker."""
    concurrent: int = 0
    """Training runs at a time."""
    cache: str = ""
    """Folder for decoded images on each node; each user has one of their own."""
    cache_limit: str = DEFAULT_LIMIT
    """Bytes that folder may hold; least recently used entries are evicted first."""

    @property
    def methods(self) -> list[str]:
        """UserError for one that is unknown."""
        for name in (names := _words("--method", self.method)):
            if name not in METHODS:
                raise UserError(f"--method {name} is unknown - choose among {', '.join(METHODS)}")
        return names

    @property
    def gammas(self) -> list[float]:
        return _numbers("--gamma", self.gamma, float)

    @property
    def seeds(self) -> list[int]:
        return _numbers("--seed", self.seed, int)

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "set": list(self.set)}

    @staticmethod
    def from_json(values: dict[str, Any]) -> SweepConfig:
        """ValueError and the like for what `to_json` has not written."""
        words = tuple(values["set"])
        if not all(type(word) is str for word in words):
            raise ValueError("set holds what is not text")
        return SweepConfig(**typed(SweepConfig(), {**values, "set": words}))


def differing_options(a: SweepConfig, b: SweepConfig) -> list[str]:
    """The options, as typed, in which two sweeps' plans differ; lambda trains nothing and may change."""
    names = [f.name for f in dataclasses.fields(SweepConfig) if f.name not in (*OPERATIONAL, "lam", "name")]
    return [f"--{name}" for name in names if getattr(a, name) != getattr(b, name)]


def _words(option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    _each_once(option, text, words if all(words) else [])
    return words


def _numbers(option: str, text: str, kind: type) -> list[Any]:
    values = [_number(option, word, kind) for word in _words(option, text)]
    _each_once(option, text, values)  # 0 and 0.0 would be one trial in two places of the tables
    return values


def _each_once(option: str, text: str, values: list[Any]) -> None:
    if not values or len(set(values)) < len(values):
        raise UserError(f"{option} {text!r} is empty or holds a value twice - give values separated by commas")


def _number(option: str, word: str, kind: type) -> Any:
    if not re.fullmatch(r"\d+" if kind is int else r"\d*\.?\d+(?:[eE]-?\d+)?", word):
        raise UserError(f"{option} {word} is no {'whole ' if kind is int else ''}number from 0 up - give e.g. 0,0.01")
    return kind(word)
