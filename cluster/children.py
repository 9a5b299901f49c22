"""Processes that end with the one that started them, however that ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ENDS_BY_ITSELF = 20.0
"""Seconds that a process has after SIGTERM."""


def end_with_parent() -> Callable[[], None] | None:
    """For Popen's preexec_fn: Linux kills the process when the thread that started it ends."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()  # looked up here: a forked child should do little

    def call() -> None:
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before
            os._exit(1)

    return call


@contextlib.contextmanager
def child(words: Sequence[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[Any]]:
    """A process that runs until the block ends. Enter from the main thread (see `end_with_parent`)."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us, who then end it
            preexec_fn=end_with_parent(),
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(ENDS_BY_ITSELF)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
