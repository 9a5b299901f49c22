"""A shorter time of retries, for what may as well be left undone."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator

SHORT_RETRY_SECONDS = 3.0
retry_budget: contextvars.ContextVar[float] = contextvars.ContextVar("retry_budget", default=math.inf)
"""The most seconds that a request of this thread is tried again; never more than `RETRY_SECONDS`."""


@contextlib.contextmanager
def short_retries() -> Iterator[None]:
    """A storage counts as gone after `SHORT_RETRY_SECONDS` for this thread: cleaning up is not worth a minute."""
    token = retry_budget.set(SHORT_RETRY_SECONDS)
    try:
        yield
    finally:
        retry_budget.reset(token)
