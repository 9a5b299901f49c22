"""The local cluster from outside: found by the lock and the state.json of its folder, brought up, brought down."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_state_path

from data_tools.errors import UserError
from data_tools.untrusted import parse_json, typed, whole

STATE, LOCK, LOG = "state.json", "lock", "cluster.log"
ENDS_SECONDS = 60.0


@dataclass(frozen=True)
class LocalState:
    """Where a running cluster is; paths of files with keys, never keys."""

    dashboard: str
    ray: str
    tensorboard: str
    store: str
    environment: dict[str, str]
    pid: int


def default_folder() -> Path:
    return user_state_path("stratagan") / "cluster"


def running(folder: Path) -> LocalState | None:
    """The cluster that runs on a folder; None where none does, whatever one that was killed left there."""
    import psutil

    try:
        with FileLock(folder / LOCK, timeout=0):
            return None
    except Timeout:
        pass
    except OSError:  # no such folder
        return None
    try:
        facts = parse_json((folder / STATE).read_bytes())
        nothing = LocalState("", "", "", "", {}, 0)
        state = LocalState(**typed(nothing, facts))
        whole(state.pid, 2, 2**31, "pid")  # a signal to 0, 1 or less would reach others
    except FileNotFoundError:
        return None  # it is starting, or about to end
    except (ValueError, TypeError) as error:
        raise UserError(f"{folder / STATE}: damaged ({error}) - end its process by hand, and remove it") from None
    # Or it starts where one was killed, whose file is still there.
    return state if psutil.pid_exists(state.pid) else None


def bring_up(folder: Path, words: list[str]) -> LocalState:
    """Start the process that holds the cluster, by the words of a command that calls `hold`, and wait for it.

    Errors: UserError with the process's own line where it ends.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / LOG).open("wb") as log:
        how: Any = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
        process = subprocess.Popen(words, **how)
    while process.poll() is None:
        if state := running(folder):
            return state
        time.sleep(0.2)
    said = (folder / LOG).read_text(encoding="utf-8").strip().splitlines()
    raise UserError(
        said[-1].removeprefix("error: ") if said else f"{folder / LOG}: the cluster ended without a message"
    )


def bring_down(state: LocalState, folder: Path) -> None:
    """End the cluster that runs on a folder, and wait for that."""
    os.kill(state.pid, signal.SIGTERM)
    try:
        with FileLock(folder / LOCK, timeout=ENDS_SECONDS):
            return
    except Timeout:
        os.kill(state.pid, signal.SIGKILL)  # its children end with it
