"""One writer at a time in object storage, by nothing but conditional writes.

The holder of turn n rewrites `.writer-n` every few seconds. Who finds one that stands still takes turn n + 1, which is
written on condition that nobody has; a holder that sees a later turn than its own has lost. So a killed writer is
followed after `LEASE` seconds, at once if it ran on this machine, and of several followers one gets through.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_tools.errors import BusyError, ChangedError, TakenOverError, UserError
from data_tools.storage.base import WRITER, Storage, read_bytes, write_bytes

BEAT = 2.0
LEASE = 10.0


@contextlib.contextmanager
def hold_lease(storage: Storage, all_names: Callable[[], list[str]]) -> Iterator[Callable[[], None]]:
    """Hold the turn while the block lasts; BusyError when somebody else is at work.

    Yields a function that raises TakenOverError once the turn is lost, and UnreachableError when that cannot be known.
    """
    turns = [name for name in all_names() if name.startswith(WRITER)]
    number = 0
    if turns:
        _wait_until_given_up(storage, turns[-1])
        number = int(turns[-1].rpartition("-")[2]) + 1
    mine, later = _turn(number), _turn(number + 1)
    try:
        write_bytes(storage, mine, _sign(0), new=True)
    except FileExistsError:
        raise _busy(storage) from None
    seen = [time.monotonic()]  # when nobody had followed us yet
    lost, over = threading.Event(), threading.Event()

    def look() -> None:
        now = time.monotonic()
        if later in all_names():
            lost.set()
        seen[0] = now

    def still_ours() -> None:
        if time.monotonic() - seen[0] > LEASE / 2:  # the storage was away, and meanwhile only we may have lost it
            look()
        if lost.is_set():
            raise TakenOverError(f"{storage.url}: another process has taken over writing there - leave it to that one")

    beating = threading.Thread(target=_beat, args=(storage, mine, look, lost, over), daemon=True)
    beating.start()
    try:
        yield still_ours
    finally:
        over.set()
        beating.join()
        with contextlib.suppress(UserError, OSError):  # a storage that is away must not hide what went wrong before
            for name in [*turns, mine]:
                storage.remove(name)


def _beat(storage: Storage, mine: str, look: Callable[[], None], lost: threading.Event, over: threading.Event) -> None:
    count = 0
    while not over.wait(BEAT) and not lost.is_set():
        count += 1
        with contextlib.suppress(UserError, OSError):  # who cannot reach the storage goes on trying
            look()
            if not lost.is_set():
                write_bytes(storage, mine, _sign(count))


def _wait_until_given_up(storage: Storage, turn: str) -> None:
    """Return when nobody holds the turn; BusyError when it is rewritten while we watch."""
    sign = _read(storage, turn)
    looks = int(4 * LEASE / BEAT)  # counted, not timed: while the storage is away, its holder cannot write either
    while sign and not _dead_here(sign) and looks:
        time.sleep(BEAT / 4)
        looks -= 1
        before, sign = sign, _read(storage, turn)
        if sign and sign != before:
            raise _busy(storage)


def _read(storage: Storage, turn: str) -> dict[str, Any]:
    try:
        return json.loads(read_bytes(storage, turn))
    except FileNotFoundError:
        return {}
    except ChangedError:  # a beat came in between
        return _read(storage, turn)


def _turn(number: int) -> str:
    return f"{WRITER}-{number:06d}"


def _sign(count: int) -> bytes:
    return json.dumps({"machine": _machine(), "pid": os.getpid(), "beat": count}).encode()


def _machine() -> str:
    """Where a process number means the same process: host, boot and, in containers, the space of process numbers."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip(),
            os.readlink("/proc/self/ns/pid"),
        ]
    return " ".join(parts)


def _dead_here(sign: dict[str, Any]) -> bool:
    return sign["machine"] == _machine() and not Path(f"/proc/{sign['pid']}").exists() and Path("/proc/self").exists()


def _busy(storage: Storage) -> BusyError:
    return BusyError(f"{storage.url}: another process is writing there - wait for it, or stop it")
