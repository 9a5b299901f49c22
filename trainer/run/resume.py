"""Where a run starts: at the newest checkpoint that is whole, at another run's, or with new weights."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from data_tools.errors import BusyError, UserError
from data_tools.storage import StillOurs, open_storage
from trainer.config import TrainConfig
from trainer.networks.base import NetworkSet
from trainer.run.checkpoint import (
    REMEDY,
    CheckpointInfo,
    DamagedError,
    Snapshot,
    checkpoint_names,
    newest_checkpoint,
    read_info,
    version_note,
)
from trainer.run.recoveries import Recoveries, check_not_given_up
from trainer.run.weights import check_checkpoint, check_finite, load_weights, read_tensors
from trainer.schedule import ends_a_phase, phase_at
from trainer.training.step import Step

OWN = re.compile(
    r"checkpoints/images-\d+/[^/]+|(events|pictures)/[^/]+|(best|finished|recoveries)\.json|metrics\.jsonl(\.partial)?|log\.txt"
)
"""The names of what only the training that holds the run writes."""
HANDOVER_SECONDS = 30.0
"""Seconds that an earlier process of the same run may take to end."""


@dataclass(frozen=True)
class Start:
    """A count of images, the checkpoint to load, if any, and what to say about it.

    ailing: as of that checkpoint, where it is the run's own; recoveries: all of the run.
    """

    images_seen: int = 0
    info: CheckpointInfo | None = None
    has_moments: bool = False
    notes: tuple[str, ...] = ()
    ailing: int = 0
    recoveries: Recoveries = field(default_factory=Recoveries)


@contextlib.contextmanager
def run_lock(url: str) -> Iterator[StillOurs]:
    """Be the only training that writes to the run; one that was killed a moment ago is waited for."""
    deadline = time.monotonic() + HANDOVER_SECONDS
    with contextlib.ExitStack() as stack:
        while True:
            try:
                still_ours = stack.enter_context(open_storage(url).sole_writer(own=_is_own))
                break
            except BusyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        yield still_ours


def _is_own(name: str) -> bool:
    return OWN.fullmatch(name) is not None


def find_start(config: TrainConfig) -> Start:
    """Where the run goes on; checkpoints that are damaged are passed over with a note, the older ones last.

    UserError for a run that is given up.
    """
    recoveries, notes = check_not_given_up(config.out), []
    for name in reversed(checkpoint_names(config.out)):
        try:
            info = read_info(f"{config.out}/checkpoints/{name}")
            if recoveries.abandoned(info):
                continue
            check_checkpoint(info)
            has_moments = bool(info.optimisers)
            if not has_moments and not ends_a_phase(config.schedule(), info.images_seen):
                raise DamagedError(f"{info.url}: lacks the optimisers' states in the middle of a phase - {REMEDY}")
            notes += [note] if (note := version_note(info)) else []
            return Start(info.images_seen, info, has_moments, tuple(notes), info.ailing, recoveries)
        except DamagedError as error:
            notes.append(f"warning: skipped a damaged checkpoint: {error}")
    if not config.start_from:
        return Start(notes=tuple(notes), recoveries=recoveries)
    info = read_info(newest_checkpoint(config.start_from))
    check_fits(config, info)
    notes.append(f"starting from the weights of {info.url}")
    return Start(info.images_seen, info, False, tuple(notes), recoveries=recoveries)


def check_fits(config: TrainConfig, info: CheckpointInfo) -> None:
    """UserError when a new run cannot start from these weights at their count of images."""
    for name in ("method", "resolution", "width"):
        ours, theirs = getattr(config, name), getattr(info.config, name)
        if ours != theirs:
            raise UserError(f"--from {info.url}: has --{name} {theirs} instead of {ours} - give --{name} {theirs}")
    phase = phase_at(config.schedule(), info.images_seen)
    if phase is None:
        end = config.schedule()[-1].end
        raise UserError(
            f"--from {info.url}: was trained on {info.images_seen:,} images and the schedule ends at {end:,}"
            " - raise --final-images"
        )
    if info.resolution not in (phase.resolution, phase.resolution // 2):
        raise UserError(
            f"--from {info.url}: trained last at {info.resolution}x{info.resolution}, where this schedule is at"
            f" {phase.resolution}x{phase.resolution} - give that run's --fade-images and --stable-images"
        )


def load_start(start: Start, networks: NetworkSet, channels: int) -> None:
    """Load the weights to start from, if any; DamagedError when they do not fit, UserError for other channels."""
    if start.info and start.info.channels != channels:
        raise UserError(
            f"{start.info.url}: is for images of {start.info.channels} channels, and these have {channels}"
            " - give another --from, or other --data"
        )
    if start.info:
        load_weights(start.info, networks.by_name())
        check_finite(start.info, networks.by_name())


def load_moments(start: Start, step: Step) -> None:
    """Load the optimisers' states to go on with within a phase; DamagedError when they do not fit."""
    info = start.info
    assert info
    try:
        step.load_moments(lambda name: read_tensors(info, name))
    except ValueError as error:
        raise DamagedError(f"{info.url}/{error} - {REMEDY}") from None


def unsettled(start: Start, run: str, networks: NetworkSet) -> Snapshot | None:
    """What of the run's own checkpoint, just loaded, can be validated, in case that the run ended before it was."""
    i = start.info
    if not i or not i.url.startswith(f"{run}/"):
        return None
    about = (i.channels, i.dataset_digest, i.config, networks.weights(), i.intensity, i.contrast)
    about = (*about, i.ailing, i.recoveries)
    return Snapshot(i.images_seen, i.resolution, i.alpha, *about)
