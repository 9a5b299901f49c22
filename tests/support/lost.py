"""A process that is paused while another takes its place, and what is found there then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from data_tools.storage import open_storage, read_bytes, s3

ROOT = Path(__file__).resolve().parents[2]
TAKEN_OVER = "another process has taken over writing there - let it finish"


class Paused:
    """A process that stops itself at a moment, see tests/support/paused.py; returns when it has."""

    def __init__(self, moment: str, *words: str, limit: float = 60) -> None:
        command = [sys.executable, "-c", "from tests.support.paused import main; main()", moment, *words]
        pipe = subprocess.PIPE
        alike = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in the tests' own process: other sums round differently
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=alike)
        deadline = time.monotonic() + limit
        while psutil.Process(self.process.pid).status() != psutil.STATUS_STOPPED:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"does not come to {moment}"
            time.sleep(0.02)

    def wake(self, interrupt: bool = False) -> tuple[int, str]:
        """Its exit code and its last words."""
        if interrupt:
            self.process.send_signal(signal.SIGINT)
        self.process.send_signal(signal.SIGCONT)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


def contents(url: str) -> dict[str, Any]:
    """All objects at a URL but marks, each with its bytes and what changes when it is written again."""
    storage, found = open_storage(url), dict[str, Any]()
    for name, changed in storage.tree():
        mark = storage._head(name)["Metadata"]["writer"] if isinstance(storage, s3.S3) else changed
        found[name] = (mark, read_bytes(storage, name))
    return found


def marks(url: str) -> list[str]:
    """The names of the marks of those who write at a URL in a store, the newest last."""
    return open_storage(url)._marks()  # type: ignore[attr-defined]


def files(out: str) -> dict[str, bytes]:
    """The bytes alone."""
    return {name: content for name, (_, content) in contents(out).items()}
