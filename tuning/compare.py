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

import numpy as np
from scipy.stats import rankdata

from data_tools.dataset.cache import open_cache
from data_tools.dataset.contamination import normal_pool
from data_tools.dataset.reader import open_dataset
from data_tools.errors import UserError
from data_tools.storage import open_storage, read_document, write_bytes
from trainer.commands.train import train
from trainer.config import TrainConfig
from trainer.scoring.made_anomalies import separation, told_apart
from tuning.begun import OPERATIONAL, begin_or_go_on
from tuning.trainings import check_calibrates, training_of

PLAN, MEASURED, TABLE = "compare.json", "measured.json", "compare.csv"
RESAMPLES = 1000
AGREED_ON = 2000
"""Training images, at most, that two runs' rankings are compared on."""


@dataclass(frozen=True)
class Candidates:
    """What is trained: each method, as a sweep calls it, by each seed, on the same data.

    settings: further options of the trainings, NAME=VALUE each.
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
        )


@dataclass(frozen=True)
class Measured:
    """Of one run. separations: by kind, of made anomalies from their originals; scores: of training images by sample.

    own_task: how often a classifier was right in the end, where the method has one; auc: with labels alone.
    """

    separations: dict[str, float]
    scores: dict[str, float]
    own_task: float | None
    auc: float | None
    minutes: float

    @property
    def told(self) -> float:
        return told_apart(list(self.separations.values())) if self.separations else 0.5


@dataclass(frozen=True)
class Row:
    """Of one method, means over seeds; agreement: the least rank correlation of two seeds, on training images."""

    method: str
    separation: float
    agreement: float
    own_task: float | None
    auc: float | None
    minutes: float
    first: float  # the share of resamples in which it is the best

    @property
    def merit(self) -> float:
        """What methods are ranked by."""
        return merit(self.separation, self.agreement)


def merit(told: float, agreement: float) -> float:
    """How much a score says that is not chance: its separation of made anomalies, times how far seeds agree."""
    return (2 * told - 1) * max(agreement, 0.0)


def compare(candidates: Candidates) -> list[Row]:
    """Train what is not trained, measure what is not measured, and rank: the best first."""
    own = (*OPERATIONAL, "methods")  # more methods may join
    options = {name: value for name, value in dataclasses.asdict(candidates).items() if name not in own}
    begin_or_go_on(candidates.out, PLAN, options, "comparison")
    found: dict[str, list[Measured]] = {}
    for method in candidates.methods:
        for seed in candidates.seeds:
            found.setdefault(method, []).append(_measured(candidates, method, seed))
    return ranked(found)


def ranked(found: Mapping[str, Sequence[Measured]]) -> list[Row]:
    """Rows of methods, the greatest merit first."""
    firsts = _firsts(found)
    rows = [
        Row(
            method,
            float(np.mean([each.told for each in runs])),
            agreement(runs),
            _mean([each.own_task for each in runs]),
            _mean([each.auc for each in runs]),
            float(np.sum([each.minutes for each in runs])),
            firsts[method],
        )
        for method, runs in found.items()
    ]
    return sorted(rows, key=lambda row: -row.merit)


def agreement(runs: Sequence[Measured]) -> float:
    """The least rank correlation of two runs' scores of the training images that both have."""
    found = []
    for one, other in combinations(runs, 2):
        both = sorted(one.scores.keys() & other.scores.keys(), key=int)
        ranks = [rankdata([each.scores[key] for key in both]) for each in (one, other)]
        found.append(float(np.nan_to_num(np.corrcoef(*ranks)[0, 1])))
    return min(found)


def _firsts(found: Mapping[str, Sequence[Measured]]) -> dict[str, float]:
    """How often each method is the best when kinds of made anomalies and seeds are drawn anew, with replacement."""
    draw = np.random.default_rng(0)
    kinds = list(next(iter(found.values()))[0].separations)
    if not kinds:
        return dict.fromkeys(found, 1 / len(found))
    table = {
        name: np.array([[run.separations[kind] for kind in kinds] for run in runs]) for name, runs in found.items()
    }
    agreed = {name: agreement(runs) for name, runs in found.items()}
    wins = dict.fromkeys(found, 0)
    for _ in range(RESAMPLES):
        chosen = draw.integers(len(kinds), size=len(kinds))
        merits = {}
        for name, values in table.items():
            seeds = draw.integers(len(values), size=len(values))
            merits[name] = merit(float(np.median(values[seeds][:, chosen], axis=1).mean()), agreed[name])
        wins[max(merits, key=lambda name: merits[name])] += 1
    return {name: count / RESAMPLES for name, count in wins.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _measured(candidates: Candidates, method: str, seed: int) -> Measured:
    place = candidates.place(method, seed)
    storage = open_storage(place)
    try:
        return Measured(**read_document(storage, MEASURED))
    except FileNotFoundError:
        pass
    except (ValueError, TypeError) as error:
        raise UserError(f"{place}/{MEASURED}: damaged ({error!r:.200}) - delete it, it is measured anew") from None
    print(f"{method}, seed {seed}", flush=True)
    begun = time.monotonic()
    train(candidates.training(method, seed))
    found = _measure(candidates, place, (time.monotonic() - begun) / 60)
    write_bytes(storage, MEASURED, (json.dumps(dataclasses.asdict(found)) + "\n").encode())
    return found


def _measure(candidates: Candidates, place: str, minutes: float) -> Measured:
    from trainer.scoring.criterion import Criterion
    from trainer.scoring.detector import Detector
    from trainer.scoring.evaluation import has_labels, test_images

    cache = open_cache(candidates.cache, candidates.cache_limit)
    dataset = open_dataset(candidates.data, cache)
    detector = Detector.load(f"{place}/run", Criterion(), False, candidates.cache, candidates.cache_limit)
    assert detector.calibration
    separations = {
        kind: separation(detector.known[: len(scores)], np.asarray(scores)) for kind, scores in detector.made.items()
    }
    drawn_by_seed = dataset.count(normal_pool(dataset))  # from here on samples are planted anomalies, other ones each
    samples = zip(detector.calibration.samples[:AGREED_ON], detector.known)
    scores = {str(sample): float(score) for sample, score in samples if sample < drawn_by_seed}
    auc = None
    if has_labels(dataset):
        images, labels = test_images(dataset)
        auc = separation(detector.score(images[~labels]).score, detector.score(images[labels]).score)
    return Measured(separations, scores, _own_task(f"{place}/run"), auc, minutes)


def _own_task(run: str) -> float | None:
    """The last accuracy that a classifier logged."""
    from data_tools.storage import read_bytes

    lines = read_bytes(open_storage(run), "metrics.jsonl").decode().splitlines()
    found = [json.loads(line).get("classifier/accuracy") for line in lines]
    return next((value for value in reversed(found) if value is not None), None)
