"""recoveries.json: when a run was found dead, and which checkpoint it went back to, with lower learning rates.

Written before the run goes back, so that it does whatever ends the process then. What a run computes is a function of
its configuration, its data and this file.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict, dataclass

from data_tools.errors import UserError
from data_tools.storage import Guarded, StillOurs, open_storage, read_document, write_bytes
from data_tools.untrusted import whole
from trainer.run.checkpoint import BEST, CheckpointInfo, DamagedError, checkpoint_names, read_info, remove_checkpoint
from trainer.run.weights import check_checkpoint
from trainer.schedule import ends_a_phase

RECOVERIES = "recoveries.json"
MAX_RECOVERIES = 2
"""Times that a run goes back; what fails once more does so at any rate."""
FACTOR = 0.5
"""What learning rates are multiplied by each time."""


@dataclass(frozen=True)
class Recovery:
    """at: the count of images at which the run was found dead; back_to: that of the checkpoint it went back to."""

    at: int
    back_to: int
    why: str


@dataclass(frozen=True)
class Recoveries:
    """All of a run in order; given_up: what is said of it from then on, where the last one was one too many."""

    past: tuple[Recovery, ...] = ()
    given_up: str = ""

    def abandoned(self, info: CheckpointInfo) -> bool:
        """Whether a checkpoint lies on a way that was left."""
        return any(info.images_seen > each.back_to for each in self.past[info.recoveries :])

    @property
    def rate(self) -> float:
        """What learning rates are multiplied by now."""
        return FACTOR ** len(self.past)


def read_recoveries(run: str) -> Recoveries:
    """Of a run; UserError where the file is damaged."""
    try:
        values = read_document(open_storage(run), RECOVERIES)
        past = [
            Recovery(whole(x["at"], 0, 10**15, "at"), whole(x["back_to"], 0, 10**15, "back_to"), str(x["why"]))
            for x in values["past"]
        ]
        if len(past) > MAX_RECOVERIES:
            raise ValueError(f"{len(past)} recoveries")
        return Recoveries(tuple(past), str(values["given_up"]))
    except FileNotFoundError:
        return Recoveries()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run}/{RECOVERIES}: damaged ({error!r:.200}) - train again into another --out") from None


def check_not_given_up(run: str) -> Recoveries:
    """A run's recoveries; UserError where it is given up."""
    result = read_recoveries(run)
    if result.given_up:
        raise UserError(result.given_up)
    return result


def warn_of_given_up(url: str) -> None:
    """Say on stderr where a run, by its URL or a checkpoint's, is given up: its checkpoints are from before."""
    run = url.rstrip("/").partition("/checkpoints/")[0]
    with contextlib.suppress(UserError):  # what is damaged there is a training run's business
        if reason := read_recoveries(run).given_up:
            print(
                f"warning: this training run was given up, its checkpoints are from before: {reason}", file=sys.stderr
            )


def record_failure(run: str, at: int, why: str, learning_rate: float, still_ours: StillOurs) -> str:
    """Write down that a run is found dead at a count of images, and where it goes back to; or that it is given up.

    Returns what is said then, else nothing.
    """
    before = read_recoveries(run)
    if len(before.past) < MAX_RECOVERIES:
        info = rollback_target(run, before)
        after = Recoveries((*before.past, Recovery(at, info.images_seen if info else 0, why)))
    else:
        rates = ", ".join(f"{learning_rate * FACTOR**n:.2g}" for n in range(MAX_RECOVERIES + 1))
        after = Recoveries(
            before.past,
            f"{run}: {why}, at {at:,} images, at the learning rates {rates} alike"
            f" - give a --learning-rate of {learning_rate * FACTOR ** (MAX_RECOVERIES + 2):.2g} or less,"
            " in another --out",
        )
    still_ours(now=True)
    content = json.dumps(asdict(after), indent=2) + "\n"
    write_bytes(Guarded(open_storage(run), still_ours), RECOVERIES, content.encode())
    return after.given_up


def rollback_target(run: str, recoveries: Recoveries | None = None) -> CheckpointInfo | None:
    """The newest checkpoint at a phase's end at which the run was well; None where there is none.

    No others: whether a checkpoint within a phase is there depends on the storage's speed, and on when machines went.
    """
    recoveries = read_recoveries(run) if recoveries is None else recoveries
    for name in reversed(checkpoint_names(run)):
        with contextlib.suppress(DamagedError):
            info = read_info(f"{run}/checkpoints/{name}")
            if not ends_a_phase(info.config.schedule(), info.images_seen):
                continue
            if not info.ailing and not recoveries.abandoned(info):
                check_checkpoint(info)
                return info
    return None


def clear_abandoned(run: str, recoveries: Recoveries, still_ours: StillOurs) -> None:
    """Remove checkpoints of ways that were left, and best.json where it names one of them."""
    gone = set()
    for name in checkpoint_names(run) if recoveries.past else []:
        with contextlib.suppress(DamagedError):
            if recoveries.abandoned(read_info(f"{run}/checkpoints/{name}")):
                remove_checkpoint(run, name, still_ours)
                gone.add(name)
    if gone:
        storage = Guarded(open_storage(run), still_ours)
        with contextlib.suppress(FileNotFoundError, ValueError):
            if read_document(open_storage(run), BEST).get("checkpoint") in gone:
                storage.remove(BEST)
