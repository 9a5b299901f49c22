"""What somebody sees who may not read and write everywhere, as root may."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def as_nobody(work: Callable[[], Any], seconds: float = 120) -> Any:
    """What it returns in a process of its own without root's rights."""
    fork = multiprocessing.get_context("fork")
    found = fork.Queue()

    def in_a_process() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        found.put(work())

    process = fork.Process(target=in_a_process)
    process.start()
    result = found.get(timeout=seconds)
    process.join()
    return result
