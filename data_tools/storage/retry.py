"""Requests to object storage: how long the failures that pass are waited for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import ClientError

from data_tools.errors import UnreachableError
from data_tools.storage.hurry import hurry
from data_tools.storage.s3_answers import FAILURES, lasting, passes, reason, unreadable
from data_tools.storage.s3_way import unknown_name

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds of retries without an answer after which the storage counts as gone; a store's restart takes less."""
FIRST_PATIENCE = 10.0
"""The same for a host whose name nobody knows while no storage has answered this process: most likely a slip."""
UNREADABLE_PATIENCE = 3.0
"""The same for answers that are no XML: one whose connection broke off is rare, a page comes every time."""
_heard: list[bool] = []
"""Not empty once a storage has answered this process."""


def persist(what: str, action: Callable[[], T], tried: Callable[[], None] = lambda: None) -> T:
    """The action's result; tried again for `PATIENCE` seconds while the storage is busy or away, see `hurried`.

    `tried` is told that an attempt may have come through without our hearing of it. Raises FileNotFoundError,
    FileExistsError (a condition did not hold) and UserError, whose one line never holds a key.
    """
    began, pause = time.monotonic(), 0.1
    while True:
        try:
            result = action()
            if not _heard:
                _heard.append(True)
            return result
        except FAILURES as error:
            if isinstance(error, ClientError) and not _heard:
                _heard.append(True)
            waited = time.monotonic() - began
            if not passes(error) or (unreadable(error) and waited > UNREADABLE_PATIENCE):
                raise lasting(error, what) from None
            first = FIRST_PATIENCE if unknown_name(error) and not _heard else PATIENCE
            patience = min(PATIENCE, hurry.get(), first)
            if waited > patience:
                raise UnreachableError(
                    f"{what}: the storage has not answered for {patience:.0f} s ({reason(error)})"
                    " - check that it runs and that AWS_ENDPOINT_URL or the region is right, then run it again"
                ) from None
        tried()
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, 3)
