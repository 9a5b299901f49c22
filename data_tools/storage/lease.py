"""One writer at a time in object storage, by nothing but conditional writes.

The holder of turn n rewrites the mark `.writer-n` every few seconds. Who finds a mark that stands still takes turn
n + 1, which is written on condition that nobody has. Numbers only grow, and the newest mark stays when its holder has
gone: so a holder that was paused, for however long, finds that it has lost, whether its successor is still there or
not. A killed writer is followed after `LEASE` seconds and a half more, at once if it ran on this machine.

What is not shut out: a process that is paused between its last question and the arrival of the one request that
followed it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_tools.errors import BusyError, ChangedError, TakenOverError, UserError
from data_tools.storage.base import WRITER, Storage, read_bytes, write_bytes
from data_tools.storage.short_retries import short_retries

HEARTBEAT_SECONDS = 2.0
LEASE = 10.0
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""It runs on while the machine sleeps: Linux's first, macOS's second."""


class Turn:
    """The turn of one holder; a call asks whether it is still ours, as `StillOurs` says.

    For `LEASE` / 2 after a look that found it ours, a call asks nobody: a successor does nothing before that has
    passed. In another process it looks for itself.
    """

    def __init__(self, storage: Storage, marks: Callable[[], list[str]], number: int) -> None:
        """marks: the names of all marks, the newest last."""
        self.storage, self.marks = storage, marks
        self.mark, self.holder = f"{WRITER}-{number:06d}", uuid.uuid4().hex
        self.seen, self.lost = _clock(), False

    def __call__(self, now: bool = False) -> None:
        if not self.lost and (now or _clock() - self.seen > LEASE / 2):
            self._look()
        if self.lost:
            raise TakenOverError(f"{self.storage.url}: another process has taken over writing there - let it finish")

    def _look(self) -> None:
        began = _clock()
        marks = self.marks()
        ours = bool(marks) and marks[-1] == self.mark
        # Somebody may have removed everything, so that numbers began again.
        if ours and _facts(_read(self.storage, self.mark)).get("holder") == self.holder:
            self.seen = began
        else:
            self.lost = True

    def sign(self, beat: int, over: bool = False) -> None:
        """Write our mark; over: the last time, by which everybody sees that nobody holds the turn."""
        facts = {"machine": _machine(), "pid": os.getpid(), "holder": self.holder, "beat": beat, "over": over}
        write_bytes(self.storage, self.mark, json.dumps(facts).encode(), new=not beat and not over)

    def beat(self, over: threading.Event) -> None:
        """Sign every few seconds until told that it is over, or the turn is lost."""
        count = 0
        with short_retries():  # the next beat is another attempt
            while not over.wait(HEARTBEAT_SECONDS) and not self.lost:
                count += 1
                with contextlib.suppress(UserError, OSError):  # who cannot reach the storage goes on trying
                    self(now=True)
                    self.sign(count)


@contextlib.contextmanager
def hold_lease(storage: Storage, marks: Callable[[], list[str]], follow: bool) -> Iterator[Turn]:
    """Hold the turn while the block lasts; BusyError when somebody else is at work.

    marks: as of `Turn`. follow: whether to take over from a holder that gives no sign of life; one that has ended, or
    was killed on this machine, stands in nobody's way.
    """
    former = marks()
    perhaps_alive = bool(former) and not _given_up(storage, former[-1], follow)
    turn = Turn(storage, marks, _number(former[-1]) + 1 if former else 0)
    try:
        turn.sign(0)
    except FileExistsError:
        raise _busy(storage) from None
    over = threading.Event()
    beating = threading.Thread(target=turn.beat, args=(over,), daemon=True)
    beating.start()
    try:
        if perhaps_alive:
            time.sleep(LEASE / 2)  # until then it may believe itself the holder without a look
        with contextlib.suppress(UserError, OSError):
            for name in former:
                storage.remove(name)
        yield turn
    finally:
        over.set()
        beating.join()
        # A storage that is away must not hide what went wrong before.
        with contextlib.suppress(UserError, OSError), short_retries():
            turn()
            turn.sign(0, over=True)


def newest_last(names: list[str]) -> list[str]:
    """Those of the names that are marks, by their numbers."""
    return sorted((name for name in names if re.fullmatch(rf"{re.escape(WRITER)}-\d+", name)), key=_number)


def _number(mark: str) -> int:
    return int(mark.rpartition("-")[2])


def _given_up(storage: Storage, mark: str, follow: bool) -> bool:
    """Whether nobody can hold the turn; False when somebody gives no sign of life. BusyError for one who does."""
    sign = _read(storage, mark)
    # Counted, not timed: while the storage is away, its holder cannot write either.
    looks = int(4 * LEASE / HEARTBEAT_SECONDS)
    while True:
        facts = _facts(sign)
        if sign is None or facts.get("over") or _dead_here(facts):
            return True
        if not follow:
            raise _busy(storage)
        if not looks:
            return False
        time.sleep(HEARTBEAT_SECONDS / 4)
        looks -= 1
        before, sign = sign, _read(storage, mark)
        if sign not in (None, before) and not _facts(sign).get("over"):
            raise _busy(storage)


def _read(storage: Storage, mark: str) -> bytes | None:
    try:
        return read_bytes(storage, mark)
    except FileNotFoundError:
        return None
    except ChangedError:  # a beat came in between
        return _read(storage, mark)


def _facts(sign: bytes | None) -> dict[str, Any]:
    """What a mark says; nothing where it is none of ours."""
    try:
        facts = json.loads(sign or b"{}")
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _clock() -> float:
    return time.clock_gettime(CLOCK)


def _machine() -> str:
    """Where a process number means the same process: host, boot and, in containers, the space of process numbers."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip(),
            os.readlink("/proc/self/ns/pid"),
        ]
    return " ".join(parts)


def _dead_here(facts: dict[str, Any]) -> bool:
    pid = facts.get("pid")
    here = facts.get("machine") == _machine() and isinstance(pid, int)
    return here and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists()


def _busy(storage: Storage) -> BusyError:
    return BusyError(f"{storage.url}: another process is writing there - wait for it, or stop it")
