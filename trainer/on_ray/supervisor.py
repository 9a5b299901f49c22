"""The supervisor: a Ray actor between the workers and the program that started them.

A module of its own, without torch, for which its process should not wait.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from data_tools.errors import UserError

ATTEMPTS = 10
"""Starts without a new checkpoint in between after which a run stops: starting it again is no help."""

KEPT_ANSWERS = 1000
"""Steps by which workers of a group are apart at most, by far."""

QUIET_SECONDS = 60.0
"""Seconds without workers after which that is said."""


class Supervisor:
    """What the workers said and have not been read yet, and whether to start them again."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.verdict: Exception | None = None  # why starting again is no help
        self.last_failure = ""
        self.begun_at, self.attempts, self.attended = -1, 0, False
        self.training = self.stopping = False
        self.answers: dict[int, bool] = {}  # what workers were told that asked whether to stop, by their steps
        self.placement_groups: dict[str, Any] = {}

    def log(self, line: str) -> None:
        self.lines.append(line)

    def read(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines

    def worker_started(self) -> bool:
        """The first worker is there; returns whether it should leave at once."""
        self.attempts, self.attended, self.training = self.attempts + 1, True, False
        self.answers.clear()
        return self.should_leave()

    def should_leave(self) -> bool:
        """Whether workers should leave at once."""
        return self.stopping or self.final_error() is not None

    def stop(self) -> bool:
        """Workers shall save and leave; returns whether they train, so that there is something to save."""
        self.stopping = True
        return self.training

    def should_stop(self, steps: int) -> bool:
        """Whether to save and leave after so many steps: the same answer for all workers of a group."""
        self.answers.pop(steps - KEPT_ANSWERS, None)
        return self.answers.setdefault(steps, self.stopping)

    def is_attended(self) -> bool:
        """Whether workers have come since the last failure, as far as is known here."""
        return self.attended

    def training_began(self, images_seen: int) -> None:
        """Training starts or goes on at this count of images."""
        self.training = True
        if images_seen > self.begun_at:
            self.begun_at, self.attempts = images_seen, 1

    def failed(self, error: Exception, for_good: bool) -> None:
        self.attended = self.training = False
        self.last_failure = str(error).splitlines()[0] if str(error) else type(error).__name__
        if for_good:
            self.verdict = error
        else:
            self.log(f"warning: a worker failed ({self.last_failure}); all start again from the newest checkpoint")

    def hold_placement_group(self, name: str, placement_group: Any) -> None:
        """The workers of the training of this name run in this placement group, and in no earlier one any more."""
        if name in self.placement_groups and self.placement_groups[name].id != placement_group.id:
            self.clear(name)
        self.placement_groups[name] = placement_group

    def clear(self, name: str) -> None:
        """Give back the placement group of a training run, if it left one.

        Ray does so itself only where its dashboard runs; else one whose driver was killed would hold it for good.
        """
        from ray.util import remove_placement_group

        if placement_group := self.placement_groups.pop(name, None):
            remove_placement_group(placement_group)

    def final_error(self) -> Exception | None:
        if self.verdict is None and self.attempts > ATTEMPTS:
            self.verdict = UserError(
                f"the workers stopped {ATTEMPTS} times after {max(self.begun_at, 0):,} images without a new checkpoint"
                f" ({self.last_failure or 'killed without a message'}) - check memory and machines,"
                " or lower --checkpoint-images"
            )
        return self.verdict


def new_supervisor() -> Any:
    """A supervisor on this node, or it would go with whichever node Ray has put it on."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Supervisor).remote()


@contextlib.contextmanager
def followed(
    supervisor: Any, log: Callable[[str], None], workers: str = "", terminated: threading.Event | None = None
) -> Iterator[None]:
    """Pass on what comes to a supervisor while the block lasts, and what is left at its end.

    terminated: SIGTERM has come. Workers that train save and leave then; without any, it is sent once more.
    """
    over = threading.Event()
    arguments = (supervisor, over, log, workers, terminated or threading.Event())
    follower = threading.Thread(target=_follow, args=arguments, daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()


def _follow(
    supervisor: Any, over: threading.Event, log: Callable[[str], None], workers: str, terminated: threading.Event
) -> None:
    """workers: what to say is waited for, when nothing has come for long and nobody works."""
    import ray

    last, last_line, stopped = False, time.monotonic(), False
    while not last:
        last = over.wait(0.5)
        if terminated.is_set() and not stopped:
            stopped = True
            if not ray.get(supervisor.stop.remote()):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        lines = ray.get(supervisor.read.remote())
        for line in lines:
            log(line)
        if lines:
            last_line = time.monotonic()
        elif workers and time.monotonic() - last_line > QUIET_SECONDS and not ray.get(supervisor.is_attended.remote()):
            log(f"waiting until the cluster can place --workers {workers}")
            last_line = time.monotonic()
