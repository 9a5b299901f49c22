"""What there is to review: images with their scores and origins, and the pictures themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas

from trainer.scoring.evaluation import provenance_columns

OBJECT = (("sequence", "track"), ("sequence", "frame", "object"))
"""What crops of one object share, as far as a source says it: the first of these that an image has."""


@dataclass(frozen=True)
class Table:
    """n images, numbered 0 .. n - 1.

    keys: n, text; origins: what is known of where they come from, a column of text each; score, p_value, terms: float64
    n; pixels: uint8 K x H x W x C of K numbers; heat: uint8 K x H x W x 3, None where a method makes no heat maps.
    """

    keys: pandas.Series
    origins: pandas.DataFrame
    score: np.ndarray
    p_value: np.ndarray
    terms: Mapping[str, np.ndarray]
    pixels: Callable[[np.ndarray], np.ndarray]
    heat: Callable[[np.ndarray], np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.score)

    @cached_property
    def order(self) -> np.ndarray:
        """The most anomalous image first, int64."""
        return np.argsort(-self.score, kind="stable")

    @cached_property
    def number(self) -> dict[str, int]:
        """Of each key."""
        return {key: i for i, key in enumerate(self.keys)}

    @cached_property
    def surprise(self) -> dict[str, np.ndarray]:
        """Of each term, the share of images that have as much of it: float64 n, 1/n for the greatest."""
        n = len(self)
        return {
            name: (n - np.searchsorted(np.sort(column), column, side="left")) / n for name, column in self.terms.items()
        }

    def same_object(self, one: int) -> np.ndarray:
        """The other crops of an image's object, int64; none where its source does not say what it shows."""
        for names in OBJECT:
            if not set(names) <= set(self.origins) or any(not self.origins[name].iat[one] for name in names):
                continue
            same = np.ones(len(self), bool)
            for name in names:
                same &= (self.origins[name] == self.origins[name].iat[one]).to_numpy()
            same[one] = False
            return np.flatnonzero(same)
        return np.zeros(0, np.int64)


def origin_table(lines: Sequence[str]) -> tuple[pandas.Series, pandas.DataFrame]:
    """Keys and origins of images, from a line of JSON each, as text."""
    origins = [json.loads(line) for line in lines]
    names = [name for name in ("pool", *provenance_columns(origins)) if name != "key"]
    columns = {name: pandas.Categorical([_text(each.get(name)) for each in origins]) for name in names}
    known = pandas.DataFrame({name: each for name, each in columns.items() if len(each.categories) > 1 or each[0]})
    return pandas.Series([each["key"] for each in origins], dtype=object), known


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
