"""For how long a storage that is away is waited for, by the one who can do without it."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator

HURRY = 3.0
"""Seconds."""
hurry: contextvars.ContextVar[float] = contextvars.ContextVar("hurry", default=math.inf)
"""The most seconds that a request of this thread is tried again; less than the storage's own patience or not at all."""


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """A storage counts as gone after `HURRY` seconds for this thread: to clear up is not worth a minute's wait."""
    token = hurry.set(HURRY)
    try:
        yield
    finally:
        hurry.reset(token)
