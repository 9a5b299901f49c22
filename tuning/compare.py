"""Which method for my data? Several are trained on it, and ranked by what their scores tell without labels.

All that is trained is in runs under the result's URL, and what was measured of each in a file beside it, so that the
same command goes on after any end of it.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from data_tools.errors import UserError
from data_tools.storage import open_storage, read_document, write_bytes
from trainer.commands.train import train
from trainer.config import TrainConfig
from trainer.scoring.join import fused
from trainer.scoring.synthetic import separation
from trainer.scoring.synthetic_whole import synthetic_of
from tuning.held_out import HELD_OUT, held_out_images, write_held_out
from tuning.resumable import OPERATIONAL, begin_or_resume
from tuning.trainings import check_calibrates, training_of

if TYPE_CHECKING:
    from trainer.scoring.detector import Detector

PLAN, MEASURED, TABLE = "compare.json", "trained.json", "compare.csv"
RESAMPLES = 1000
JOINED_FROM = 0.77
"""The share of the best method's merit from which on others are joined with it."""


@dataclass(frozen=True)
class Candidates:
    """What is trained: each method, as a sweep calls it, by each seed, on the same data.

    settings: further options of the training runs, NAME=VALUE each.
    """

    data: str
    out: str
    preset: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    gamma: float
    settings: tuple[str, ...]
    workers: str
    cache: str
    cache_limit: str

    def checked(self) -> Candidates:
        """Return self, or raise a UserError that names the first option out of range."""
        for name in ("data", "out"):
            if not getattr(self, name):
                raise UserError(f"--{name} is missing - see python -m tuning compare --help")
        for option, values in (("method", self.methods), ("seed", self.seeds)):
            if len(set(values)) < max(len(values), 2):
                raise UserError(f"--{option} {','.join(map(str, values))} - give two or more, each once")
        for method in self.methods:
            check_calibrates(self.training(method, self.seeds[0]).validated())
        return self

    def place(self, method: str, seed: int) -> str:
        return f"{self.out}/{method}_seed-{seed}"

    def runs(self, methods: Sequence[str]) -> list[str]:
        return [f"{self.place(method, seed)}/run" for method in methods for seed in self.seeds]

    def training(self, method: str, seed: int) -> TrainConfig:
        return training_of(
            self.preset,
            method,
            self.settings,
            data=self.data,
            out=f"{self.place(method, seed)}/run",
            gamma=self.gamma,
            seed=seed,
            workers=self.workers,
            cache=self.cache,
            cache_limit=self.cache_limit,
            exclude=f"{self.out}/{HELD_OUT}",
        )


@dataclass(frozen=True)
class Measured:
    """Of one run. scores: of images held out; separations: by kind, of synthetic anomalies made from these, from them.

    Both by the terms that training made: what takes no training is the same for all methods and seeds, so it would
    make all alike. known: how much of its own task a classifier knew in the end, where the method has one; auc: of
    `fused`, with labels alone.
    """

    separations: dict[str, float]
    scores: list[float]
    known: float | None
    auc: float | None
    minutes: float

    @property
    def told(self) -> float:
        return float(np.mean(list(self.separations.values()))) if self.separations else 0.5


@dataclass(frozen=True)
class Row:
    """Of one method, means over seeds; agreement: the least rank correlation of two seeds, on images held out."""

    method: str
    separation: float
    agreement: float
    known: float | None
    auc: float | None
    minutes: float
    first: float  # the share of resamples in which it is the best

    @property
    def merit(self) -> float:
        """What methods are ranked by."""
        return merit(self.separation, self.agreement, self.known)


def merit(told: float, agreement: float, known: float | None) -> float:
    """How much a score says that is not chance: its separation of synthetic anomalies, times how far seeds agree.

    And times how much of its own task a classifier knows: what it cannot tell of usual images is no sign in others.
    """
    return (2 * told - 1) * max(agreement, 0.0) * (1.0 if known is None else max(known, 0.0))


def joined(rows: Sequence[Row]) -> list[str]:
    """The methods that are worth joining as one detector: the best, and others with most of its merit, JOINED_FROM."""
    best = max(row.merit for row in rows)
    return [row.method for row in rows if row.merit == best or row.merit >= JOINED_FROM * max(best, 0.0) > 0]


def joined_auc(candidates: Candidates, methods: Sequence[str]) -> float | None:
    """The AUC of these methods' runs as one detector; None without labelled test images."""
    from trainer.scoring.criterion import Criterion
    from trainer.scoring.evaluation import has_labels, test_images
    from trainer.scoring.loading import load_detector

    dataset = open_dataset(candidates.data, open_cache(candidates.cache, candidates.cache_limit))
    if not has_labels(dataset):
        return None
    runs = ",".join(candidates.runs(methods))
    detector = load_detector(runs, Criterion(), False, candidates.cache, candidates.cache_limit)
    tested, labels = test_images(dataset)
    scores = detector.score(tested).score
    return separation(scores[~labels], scores[labels])


def compare(candidates: Candidates) -> list[Row]:
    """Train what is not trained, measure what is not measured, and rank: the best first."""
    own = (*OPERATIONAL, "methods")  # more methods may join
    options = {name: value for name, value in dataclasses.asdict(candidates).items() if name not in own}
    begin_or_resume(candidates.out, PLAN, options, "comparison")
    write_held_out(open_dataset(candidates.data, open_cache(candidates.cache, candidates.cache_limit)), candidates.out)
    result: dict[str, list[Measured]] = {}
    for method in candidates.methods:
        for seed in candidates.seeds:
            result.setdefault(method, []).append(_measured(candidates, method, seed))
    return ranked(result)


def ranked(measured: Mapping[str, Sequence[Measured]]) -> list[Row]:
    """Rows of methods, the greatest merit first."""
    firsts = _firsts(measured)
    rows = [
        Row(
            method,
            float(np.mean([each.told for each in runs])),
            agreement(runs),
            _mean([each.known for each in runs]),
            _mean([each.auc for each in runs]),
            float(np.sum([each.minutes for each in runs])),
            firsts[method],
        )
        for method, runs in measured.items()
    ]
    return sorted(rows, key=lambda row: -row.merit)


def agreement(runs: Sequence[Measured]) -> float:
    """The least rank correlation of two runs' scores of the images held out."""
    pairs = combinations((rankdata(run.scores) for run in runs), 2)
    return min(float(np.nan_to_num(np.corrcoef(one, other)[0, 1])) for one, other in pairs)


def _firsts(measured: Mapping[str, Sequence[Measured]]) -> dict[str, float]:
    """How often each method is best when kinds of synthetic anomalies and seeds are drawn again, with replacement."""
    draw = np.random.default_rng(0)
    kinds = list(next(iter(measured.values()))[0].separations)
    if not kinds:
        return dict.fromkeys(measured, 1 / len(measured))
    table = {
        name: np.array([[run.separations[kind] for kind in kinds] for run in runs]) for name, runs in measured.items()
    }
    agreed = {name: agreement(runs) for name, runs in measured.items()}
    known = {name: _mean([run.known for run in runs]) for name, runs in measured.items()}
    wins = dict.fromkeys(measured, 0)
    for _ in range(RESAMPLES):
        chosen = draw.integers(len(kinds), size=len(kinds))
        merits = {}
        for name, values in table.items():
            seeds = draw.integers(len(values), size=len(values))
            merits[name] = merit(float(values[seeds][:, chosen].mean()), agreed[name], known[name])
        wins[max(merits, key=lambda name: merits[name])] += 1
    return {name: count / RESAMPLES for name, count in wins.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _measured(candidates: Candidates, method: str, seed: int) -> Measured:
    place = candidates.place(method, seed)
    storage = open_storage(place)
    try:
        known = Measured(**read_document(storage, MEASURED))
        if type(known.scores) is not list:
            raise ValueError("scores are no list")
        return known
    except FileNotFoundError:
        pass
    except (ValueError, TypeError) as error:
        raise UserError(f"{place}/{MEASURED}: damaged ({error!r:.200}) - delete it, it is measured again") from None
    print(f"{method}, seed {seed}", flush=True)
    begun = time.monotonic()
    train(candidates.training(method, seed))
    result = _measure(candidates, place, (time.monotonic() - begun) / 60)
    write_bytes(storage, MEASURED, (json.dumps(dataclasses.asdict(result)) + "\n").encode())
    return result


def _measure(candidates: Candidates, place: str, minutes: float) -> Measured:
    from trainer.scoring.criterion import Criterion
    from trainer.scoring.detector import Detector
    from trainer.scoring.evaluation import has_labels, test_images

    cache = open_cache(candidates.cache, candidates.cache_limit)
    dataset = open_dataset(candidates.data, cache)
    detector = Detector.load(f"{place}/run", Criterion(), False, candidates.cache, candidates.cache_limit)
    images = held_out_images(dataset)
    scores = _trained_score(detector, images)
    separations = {kind: separation(scores, _trained_score(detector, made)) for kind, made in synthetic_of(images)}
    auc = None
    if has_labels(dataset):
        tested, labels = test_images(dataset)
        auc = separation(detector.score(tested[~labels]).score, detector.score(tested[labels]).score)
    return Measured(separations, scores.tolist(), _known(f"{place}/run"), auc, minutes)


def _trained_score(detector: Detector, images: np.ndarray) -> np.ndarray:
    """`fused` without the terms that take no training, N."""
    weights = {term.name: detector.calibrated.weights[term.name] * term.is_trained for term in detector.joined}
    return fused(detector.score(images).terms, detector.known_terms, weights)


def _known(run: str) -> float | None:
    """What a classifier logged last of how much of its task it knows; None where there is none."""
    from data_tools.storage import read_bytes

    lines = read_bytes(open_storage(run), "metrics.jsonl").decode().splitlines()
    result = [json.loads(line).get("classifier/known") for line in lines]
    return next((value for value in reversed(result) if value is not None), None)
