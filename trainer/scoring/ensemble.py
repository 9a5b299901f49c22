"""Several runs as one detector: seeds or methods, trained on the same images, none of which has to be trusted alone.

Each run's score is calibrated by itself, so that runs of any methods compare, and their mean is the one score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from data_tools.dataset.cache import DEFAULT_LIMIT, open_cache
from data_tools.dataset.contamination import normal_pool
from data_tools.dataset.exclusion import kept_count
from data_tools.dataset.intensity import Intensity
from data_tools.dataset.training_set import BLOCK, TrainingSet
from data_tools.errors import UserError
from trainer.run.checkpoint import CheckpointInfo, chosen_checkpoint, read_info
from trainer.run.folder import read_config, read_excluded, run_dataset, run_images
from trainer.scoring.calibration import calibration_of, run_of
from trainer.scoring.criterion import AUTO, Criterion
from trainer.scoring.detector import Detector
from trainer.scoring.inference import Inference
from trainer.scoring.join import REVIEWED, SUMMED
from trainer.scoring.judge import Judge, Scored
from trainer.scoring.p_values import p_values
from trainer.scoring.reviewed_run import decided, with_decisions
from trainer.scoring.synthetic import of_each_kind
from trainer.scoring.trust import judged_of


@dataclass(frozen=True)
class Ensemble(Judge):
    """Two or more detectors and a criterion; made by `load`.

    members: by the names of their runs, without thresholds. shared: of each, which of its samples are the same image in
    the first one's training set: those below this number. known: the first one's calibrating images' scores by all, n;
    made: those of synthetic anomalies made from the first of them, where the criterion needs them.
    """

    members: Mapping[str, Detector]
    shared: Mapping[str, int]
    criterion: Criterion
    known: np.ndarray  # type: ignore[assignment]
    made: Mapping[str, np.ndarray] = field(default_factory=dict)  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Ensemble of {', '.join(self.members)}: score {self.criterion.by}, {self.threshold_note}>"

    @staticmethod
    def load(
        runs: Sequence[str],
        criterion: Criterion | None = None,
        best: bool = False,
        cache: str = "",
        cache_limit: str = DEFAULT_LIMIT,
        data: str = "",
    ) -> Ensemble:
        """Of the newest or best checkpoints of runs on one dataset; options as of `Detector.load`.

        UserError for runs that do not belong together.
        """
        criterion = criterion or Criterion()
        criterion.check()
        infos = [read_info(chosen_checkpoint(run, best)) for run in runs]
        _check_together(infos)
        opened, urls = open_cache(cache, cache_limit), [run_of(info.url) for info in infos]
        configs, left_out = [read_config(url)[0] for url in urls], [read_excluded(url) for url in urls]
        for url, excluded in zip(urls, left_out):
            if excluded != left_out[0]:
                raise UserError(f"{url}: leaves out other images than {urls[0]} - give runs on the same images")
        is_junk = decided(urls) if criterion.by == REVIEWED else {}
        members = []
        for info in infos:
            inference = Inference.from_checkpoint(info)
            made = calibration_of(info, inference, cache, cache_limit, data)
            if criterion.by == REVIEWED:
                made = with_decisions(info, inference, made, is_junk, opened, data)
            members.append(Detector(inference, Criterion(criterion.by, criterion.lam), made))
        dataset = run_dataset(urls[0], data, opened)
        images = run_images(urls[0], configs[0], dataset)
        normal = sum(kept_count(shard, left_out[0]) for shard in dataset.manifest.of(normal_pool(dataset)))
        draws = [(config.gamma, config.planted, config.seed if config.gamma else 0) for config in configs]
        shared = [len(images) if draw == draws[0] else normal for draw in draws]
        unknown = ensemble_of(urls, members, shared, criterion, np.zeros(0))
        made = unknown.synthetic_scores(images) if criterion.contamination == AUTO else {}
        return replace(unknown, known=unknown.known_scores(images), made=made)

    @property
    def first(self) -> Detector:
        return next(iter(self.members.values()))

    @property
    def resolution(self) -> int:
        """The least side of images in pixels that all can score."""
        return max(member.resolution for member in self.members.values())

    @property
    def channels(self) -> int:
        return self.first.channels

    @property
    def intensity(self) -> Intensity | None:
        return self.first.intensity

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of `Scored.columns`: behind the p-value each run's part of the score."""
        return ("p_value", *self.members)

    @property
    def meanings(self) -> dict[str, str]:
        """What each part of the score is, in a sentence."""
        return {name: f"{self.criterion.by} of this run, in nats" for name in self.members}

    @cached_property
    def known_terms(self) -> dict[str, np.ndarray]:
        """Each run's part of the score for its own calibrating training images."""
        return {name: _nats(member, member.known, None) for name, member in self.members.items()}

    def score(self, images: np.ndarray, samples: np.ndarray | None = None) -> Scored:
        """images: uint8, N x H x W x C; samples: as of `Detector.score`, of the first run's training set."""
        rows = np.full(len(images), -1) if samples is None else self.first.calibrated.rows_of(samples)
        return self._judged(self._parts(images, samples), rows >= 0)

    def score_with_heat(self, images: np.ndarray) -> Scored:
        """`score` and `heat`, by one pass of each network; UserError where no run makes closest matches."""
        self.check_reconstructs()
        each = {
            name: (member.score_with_heat if member.reconstructs else member.score)(images)
            for name, member in self.members.items()
        }
        terms = {name: _nats(self.members[name], scored.score, scored.p_value) for name, scored in each.items()}
        heat = np.mean([scored.heat for scored in each.values() if scored.heat is not None], axis=0)
        return replace(self._judged(terms), heat=heat)

    def _judged(self, terms: dict[str, np.ndarray], is_known: np.ndarray | None = None) -> Scored:
        score = np.mean(list(terms.values()), axis=0)
        return self.verdicts(score, terms, p_values(score, self.known, is_known))

    def all_terms(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """All terms of all runs, as an exported folder names them."""
        scored = [member.score(images).terms for member in self.members.values()]
        return {own_name(i, name): column for i, terms in enumerate(scored) for name, column in terms.items()}

    def known_scores(self, images: TrainingSet) -> np.ndarray:
        """The scores of the first run's calibrating images."""
        count = len(self.first.calibrated.samples)
        places = [np.arange(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
        return np.concatenate([self._mean(images.at(some), images.samples(some)) for some in places])

    def synthetic_scores(self, images: TrainingSet) -> dict[str, np.ndarray]:
        """The scores of synthetic anomalies made from the first of these, by kind; {} where images are too small.

        Their originals are among what terms compare with, so they look a little more usual than a run alone finds them.
        """
        judged = images.at(np.arange(judged_of(len(images))))
        return {kind: self._mean(each) for kind, each in of_each_kind(judged).items()}

    def _mean(self, images: np.ndarray, samples: np.ndarray | None = None) -> np.ndarray:
        return np.mean(list(self._parts(images, samples).values()), axis=0)

    def _parts(self, images: np.ndarray, samples: np.ndarray | None) -> dict[str, np.ndarray]:
        result = {}
        for name, member in self.members.items():
            own = None if samples is None else np.where(samples < self.shared[name], samples, -1)
            scored = member.score(images, own)
            result[name] = _nats(member, scored.score, scored.p_value)
        return result

    @property
    def reconstructs(self) -> bool:
        """Whether any of the runs makes closest matches, and so heat maps."""
        return any(member.reconstructs for member in self.members.values())

    def check_reconstructs(self) -> None:
        if not self.reconstructs:
            self.first.check_reconstructs()

    def matches(self, images: np.ndarray) -> np.ndarray:
        """Closest matches by the first run that makes them, as pixels: uint8 N x r x r x C."""
        return self._seeing()[0].matches(images)

    def heat(self, images: np.ndarray) -> np.ndarray:
        """Where: the mean of the runs' heat, float32 N x H x W; 0 is usual, 3 is rare."""
        return np.mean([member.heat(images) for member in self._seeing()], axis=0)

    def _seeing(self) -> list[Detector]:
        self.check_reconstructs()
        return [member for member in self.members.values() if member.reconstructs]


def own_name(number: int, term: str) -> str:
    """A run's term where those of several stand side by side; number: the run's place, from 0."""
    return f"run{number + 1}_{term}"


def _nats(member: Detector, score: np.ndarray, p_value: np.ndarray | None) -> np.ndarray:
    """A run's score on a scale that runs share: a sum of -log p has it, any other score becomes -log p."""
    if member.criterion.by in SUMMED:
        return score
    p_value = p_values(score, member.known, np.full(len(score), True)) if p_value is None else p_value
    return -np.log(p_value)


def ensemble_of(
    runs: Sequence[str], members: Sequence[Detector], shared: Sequence[int], criterion: Criterion, known: np.ndarray
) -> Ensemble:
    """Of members in the order of their runs' URLs, or of their checkpoints'."""
    names = _names([run.partition("/checkpoints/")[0] for run in runs])
    return Ensemble(dict(zip(names, members)), dict(zip(names, shared)), criterion, known)


def _names(runs: Sequence[str]) -> list[str]:
    """The last parts of URLs, with numbers where they are alike."""
    last = [run.rstrip("/").rpartition("/")[2] for run in runs]
    return [name if last.count(name) == 1 else f"{name} {i}" for i, name in enumerate(last, 1)]


def _check_together(infos: Sequence[CheckpointInfo]) -> None:
    first, *others = infos
    for info in others:
        if info.dataset_digest != first.dataset_digest:
            raise UserError(f"{info.url}: was trained on another dataset than {first.url} - give runs on one dataset")
        if info.url == first.url:
            raise UserError(f"{info.url}: is given twice - give different runs")
