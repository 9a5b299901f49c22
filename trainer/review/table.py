"""What there is to review: a run's training images with their scores and origins, and the pictures themselves."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas

from data_tools.dataset.by_sample import ImagesBySample
from data_tools.dataset.cache import Cache
from data_tools.dataset.exclusion import Excluded
from data_tools.dataset.reader import Dataset
from data_tools.storage import open_storage, read_bytes, write_bytes
from trainer.methods import method_of
from trainer.run.checkpoint import read_info
from trainer.run.folder import read_config, read_excluded, run_dataset
from trainer.scoring.evaluation import provenance_columns

if TYPE_CHECKING:
    from trainer.scoring.detector import Detector
    from trainer.scoring.ensemble import Ensemble

SCORES = "scores.npz"
MAX_BYTES = 2**34
OBJECT = (("sequence", "track"), ("sequence", "frame", "object"))
"""What crops of one object share, as far as a source says it: the first of these that an image has."""


@dataclass(frozen=True)
class Table:
    """n images, numbered 0 .. n - 1.

    keys: n, text; origins: what is known of where they come from, a column of text each; score, p_value, terms: float64
    n; pixels: uint8 K x H x W x C of K numbers; heat: uint8 K x H x W x 3, None where a method makes no heat maps;
    meanings: what each term is.
    """

    keys: pandas.Series
    origins: pandas.DataFrame
    score: np.ndarray
    p_value: np.ndarray
    terms: Mapping[str, np.ndarray]
    pixels: Callable[[np.ndarray], np.ndarray]
    heat: Callable[[np.ndarray], np.ndarray] | None = None
    meanings: Mapping[str, str] = field(default_factory=dict)

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


def run_table(
    run: str, checkpoints: str, by: str, load: Callable[[], Detector | Ensemble], cache: Cache, data: str, place: str
) -> Table:
    """The training images of a run, scored by a detector unless the scores are kept from before in the folder `place`.

    checkpoints, by: what the scores depend on; load: the detector, made when it is needed; data: where the run's
    dataset lies now.
    """
    from trainer.scoring.audit import ranked

    config, digest = read_config(run)
    dataset = run_dataset(run, data, cache)
    images = ImagesBySample(dataset, config.gamma, config.seed, config.window, read_excluded(run), config.planted)
    facts = json.dumps([checkpoints, by, digest, len(images)])
    columns = _kept(place, facts)
    if columns is None:
        ranking = ranked(run, load(), cache, 0, data)
        back = np.argsort(ranking.samples)
        columns = {name: each[back] for name, each in {"score": ranking.scored.score, **ranking.scored.columns}.items()}
        _keep(place, facts, columns)
    keys, origins = origin_table(images.lines)

    def heat(some: np.ndarray) -> np.ndarray:
        from trainer.report.overlay import overlaid

        pixels = images.gather(some)
        return overlaid(pixels, load().heat(pixels))

    score, p_value = columns.pop("score"), columns.pop("p_value")
    reconstructs = any("reconstruct" in method_of(read_info(url).config).offers() for url in checkpoints.split(","))
    return Table(keys, origins, score, p_value, columns, images.gather, heat if reconstructs else None)


def left_out(dataset: Dataset, excluded: Excluded) -> list[str]:
    """The keys that a run does without."""
    keys = {}
    for pool in ("train-normal", "train-unlabelled", "train-anomaly") if excluded else ():
        keys |= dataset.keys(pool)
    return [keys[shard][row] for shard, rows in excluded.items() for row in rows]


def _kept(place: str, facts: str) -> dict[str, np.ndarray] | None:
    """Scores from before; None where there are none, or of another checkpoint, or none that can be read."""
    try:
        with np.load(io.BytesIO(read_bytes(open_storage(place), SCORES, MAX_BYTES)), allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name != "facts"} if str(file["facts"]) == facts else None
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _keep(place: str, facts: str, columns: Mapping[str, np.ndarray]) -> None:
    file = io.BytesIO()
    np.savez(file, facts=np.array(facts), **columns)  # type: ignore[arg-type]
    write_bytes(open_storage(place), SCORES, file.getvalue())
