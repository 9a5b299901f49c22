"""A detector by what the command line calls RUN: of one run, or of several, separated by commas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data_tools.dataset.cache import DEFAULT_LIMIT
from data_tools.errors import UserError
from data_tools.storage import absolute
from trainer.methods import method_of
from trainer.run.checkpoint import chosen_checkpoint, read_info
from trainer.run.recoveries import warn_of_given_up
from trainer.scoring.calibration import Calibration
from trainer.scoring.criterion import Criterion
from trainer.scoring.detector import Detector
from trainer.scoring.ensemble import Ensemble, ensemble_of
from trainer.scoring.inference import Inference

SEPARATOR = ","


def runs_in(runs: str) -> list[str]:
    """The URLs in RUN; UserError for an empty one."""
    several = runs.split(SEPARATOR)
    if not all(several):
        raise UserError(f"{runs or 'RUN'}: names no run - give RUN, or RUN,RUN,... for several as one detector")
    return several


def absolute_runs(runs: str) -> str:
    """The same with absolute paths."""
    return SEPARATOR.join(absolute(run) for run in runs_in(runs))


def chosen_checkpoints(runs: str, best: bool) -> str:
    """The URLs of the runs' newest or best checkpoints, as RUN."""
    return SEPARATOR.join(chosen_checkpoint(run, best) for run in runs_in(runs))


def check_fits(runs: str, criterion: Criterion, heat: bool = False) -> None:
    """UserError where a checkpoint's method has no such score, or where none of them has heat maps and these are asked
    for."""
    methods = [method_of(read_info(checkpoint).config) for checkpoint in runs_in(runs)]
    for method in methods:
        criterion.check_fits(method)
    if heat and not any("reconstruct" in method.offers() for method in methods):
        methods[0].check_reconstructs()


def load_detector(
    runs: str,
    criterion: Criterion | None = None,
    best: bool = False,
    cache: str = "",
    cache_limit: str = DEFAULT_LIMIT,
    data: str = "",
) -> Detector | Ensemble:
    """The detector of RUN; options as of `Detector.load`."""
    several = runs_in(runs)
    for run in several:
        warn_of_given_up(run)
    if len(several) == 1:
        return Detector.load(runs, criterion, best, cache, cache_limit, data)
    return Ensemble.load(several, criterion, best, cache, cache_limit, data)


@dataclass(frozen=True)
class Learned:
    """What training images said, apart from the networks: it travels to other processes.

    calibrations, shared: of each run, see `Ensemble`; known, made: of several runs.
    """

    calibrations: tuple[Calibration | None, ...]
    shared: tuple[int, ...] = ()
    known: np.ndarray | None = None
    made: Mapping[str, np.ndarray] = field(default_factory=dict)


def learned_by(detector: Detector | Ensemble) -> Learned:
    """What `rebuilt` needs besides the checkpoints."""
    if isinstance(detector, Detector):
        return Learned((detector.calibration,))
    calibrations = tuple(member.calibration for member in detector.members.values())
    return Learned(calibrations, tuple(detector.shared.values()), detector.known, detector.made)


def rebuilt(checkpoints: str, criterion: Criterion, learned: Learned) -> Detector | Ensemble:
    """The detector of these checkpoints, without their datasets."""
    urls: Sequence[str] = runs_in(checkpoints)
    inferences = [Inference.from_checkpoint(read_info(url)) for url in urls]
    if learned.known is None:
        return Detector(inferences[0], criterion, learned.calibrations[0])
    own = Criterion(criterion.by, criterion.lam)
    members = [Detector(each, own, made) for each, made in zip(inferences, learned.calibrations, strict=True)]
    return replace(ensemble_of(urls, members, learned.shared, criterion, learned.known), made=learned.made)
