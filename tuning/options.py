"""--set: options of a training run by name, as one value, several, or a range to draw from."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_tools.errors import UserError
from trainer.config import TrainConfig
from trainer.methods import VARIANTS

VARIED = {option for _, variant in VARIANTS.values() for option in variant.options}
PLACE = ("data", "out", "workers", "cache", "cache_limit", "start_from")
OWN = ("preset", "method", "gamma", "planted", "seed", *VARIED, *PLACE)
"""Options that a sweep has itself, or that make no sense in one."""


@dataclass(frozen=True)
class Choice:
    """One NAME=VALUES: the values, or a range from low to high."""

    name: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def is_range(self) -> bool:
        return not self.values

    def draw(self, generator: np.random.Generator) -> str:
        """A value, as it would be typed."""
        if not self.is_range:
            return self.values[int(generator.integers(len(self.values)))]
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = generator.uniform(low, high)
        value = math.exp(value) if self.log else value
        return str(round(value)) if self.whole else f"{value:.6g}"


def parse(text: str, base: TrainConfig) -> Choice:
    """Read NAME=VALUES; UserError when the name is not an option of a training run or a value does not fit it."""
    name, equals, values = text.partition("=")
    name = name.removeprefix("--").replace("-", "_")
    if not equals or not values:
        raise UserError(f"--set {text} is not NAME=VALUE - give e.g. learning-rate=0.001,0.002")
    if name in OWN:
        raise UserError(f"--set {text}: the sweep sets {name} itself - leave it out, or use the sweep's own option")
    kind = type(_current(base, name, text))
    if match := re.fullmatch(r"([-\d.eE+]+)\.\.([-\d.eE+]+)(:log)?", values):
        try:
            low, high = float(match[1]), float(match[2])
        except ValueError:
            low, high = 1.0, 0.0
        if kind not in (int, float) or not low < high or (match[3] and low <= 0):
            raise UserError(
                f"--set {text} is not a range of that option - give NAME=LOW..HIGH, and LOW above 0 with :log"
            )
        return Choice(name, (), low, high, bool(match[3]), kind is int)
    words = tuple(values.split(","))
    if len({_typed(_current(base, name, text), name, word) for word in words}) < len(words):
        raise UserError(f"--set {text} holds a value twice - give each once")
    return Choice(name, words)


def with_option(config: TrainConfig, name: str, word: str) -> TrainConfig:
    """The configuration with one option as typed; NAME may be minibatch.16 or fanogan.width."""
    value = _current(config, name, f"{name}={word}")
    head, _, rest = name.partition(".")
    typed = _typed(value, name, word)
    if not rest:
        return dataclasses.replace(config, **{head: typed})
    group = getattr(config, head)
    changed = {**group, int(rest): typed} if isinstance(group, dict) else dataclasses.replace(group, **{rest: typed})
    return dataclasses.replace(config, **{head: changed})


def concerns(name: str, method: str) -> bool:
    """Whether an option is one of this method's training runs: those of a peer are no other's."""
    head, _, rest = name.partition(".")
    return not rest or head == "minibatch" or head == method


def _current(config: TrainConfig, name: str, text: str) -> Any:
    head, _, rest = name.partition(".")
    group = getattr(config, head, None)
    if rest and isinstance(group, dict) and rest.isdecimal() and int(rest) in group:
        return group[int(rest)]
    if rest and dataclasses.is_dataclass(group) and rest in {f.name for f in dataclasses.fields(group)}:
        return getattr(group, rest)
    if not rest and head in {f.name for f in dataclasses.fields(config)} and isinstance(group, int | float | str):
        return group
    raise UserError(f"--set {text}: {name} is not an option of a training run - see python -m trainer train --help")


def _typed(current: Any, name: str, word: str) -> Any:
    try:
        return {"true": True, "false": False}[word.lower()] if isinstance(current, bool) else type(current)(word)
    except (ValueError, KeyError):
        raise UserError(
            f"--set {name}={word} is of another kind than {current!r}, its value so far - give one like that"
        ) from None
