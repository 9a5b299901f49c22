"""Requests to object storage: how long the failures that pass are waited for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import ClientError

from data_tools.errors import UnreachableError
from data_tools.storage.s3_connection import unknown_host
from data_tools.storage.s3_errors import FAILURES, is_transient, reason, unreadable, user_error
from data_tools.storage.short_retries import retry_budget

T = TypeVar("T")
RETRY_SECONDS = 60.0
"""Seconds of retries without an answer after which the storage counts as gone; a store's restart takes less."""
UNKNOWN_HOST_SECONDS = 10.0
"""The same for a host whose name nobody knows while no storage has answered this process: most likely a slip."""
UNREADABLE_SECONDS = 3.0
"""The same for answers that are no XML: one whose connection broke off is rare, a page comes every time."""
_answered: list[bool] = []
"""Not empty once a storage has answered this process."""


def with_retries(what: str, action: Callable[[], T], tried: Callable[[], None] = lambda: None) -> T:
    """The action's result; tried again for `RETRY_SECONDS` while the storage is busy or away, see `short_retries`.

    `tried` is told that an attempt may have come through without an answer. Raises FileNotFoundError,
    FileExistsError (a condition did not hold) and UserError, whose one line never holds a key.
    """
    began, pause = time.monotonic(), 0.1
    while True:
        try:
            result = action()
            if not _answered:
                _answered.append(True)
            return result
        except FAILURES as error:
            if isinstance(error, ClientError) and not _answered:
                _answered.append(True)
            waited = time.monotonic() - began
            if not is_transient(error) or (unreadable(error) and waited > UNREADABLE_SECONDS):
                raise user_error(error, what) from None
            first = UNKNOWN_HOST_SECONDS if unknown_host(error) and not _answered else RETRY_SECONDS
            patience = min(RETRY_SECONDS, retry_budget.get(), first)
            if waited > patience:
                raise UnreachableError(
                    f"{what}: the storage has not answered for {patience:.0f} s ({reason(error)})"
                    " - check that it runs and that AWS_ENDPOINT_URL or the region is right, then run it again"
                ) from None
        tried()
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, 3)
