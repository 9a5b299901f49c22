"""Requests to object storage: which failures pass, how long they are waited for, and what the lasting ones mean."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

import urllib3.exceptions
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError, SSLError
from botocore.exceptions import ConnectionError as NoConnection

from data_tools.errors import UnreachableError, UserError
from data_tools.storage.hurry import hurry

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds without an answer after which the storage counts as gone; a restart of a store takes less."""
BUSY = {"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException", "TooManyRequests"}
BROKEN = (HTTPClientError, NoConnection, IncompleteReadError)
DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403"}


def persist(what: str, action: Callable[[], T], tried: Callable[[], None] = lambda: None) -> T:
    """The action's result; tried again for `PATIENCE` seconds while the storage is busy or away, see `hurried`.

    `tried` is told that an attempt may have come through without our hearing of it. Raises FileNotFoundError,
    FileExistsError (a condition did not hold) and UserError, whose one line never holds a key.
    """
    began, pause, patience = time.monotonic(), 0.1, min(PATIENCE, hurry.get())
    while True:
        try:
            return action()
        except (BotoCoreError, ClientError, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
            if not _passes(error):
                raise _lasting(error, what) from None
            if time.monotonic() - began > patience:
                raise UnreachableError(
                    f"{what}: the storage has not answered for {patience:.0f} s ({_reason(error)})"
                    " - check that it runs and that AWS_ENDPOINT_URL or the region is right, then run it again"
                ) from None
        tried()
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, 3)


def _lasting(error: Exception, what: str) -> Exception:
    code = _code(error)
    if code == "NoSuchBucket":
        bucket = "/".join(what.split("/")[:3])
        return UserError(f"{bucket}: no such bucket - create it, or mend the URL or AWS_ENDPOINT_URL")
    if code in DENIED:
        return UserError(f"{what}: the storage denies access ({code}) - check the AWS keys and their rights")
    if code in ("NoSuchKey", "NoSuchUpload", "404"):
        return FileNotFoundError(what)
    if code in ("PreconditionFailed", "412", "ConditionalRequestConflict"):
        return FileExistsError(what)
    if "Credentials" in code:
        return UserError(f"{what}: no AWS keys found - set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile")
    return UserError(f"{what}: the storage refuses the request ({code}) - check the URL and the AWS variables")


def _code(error: Exception) -> str:
    return error.response["Error"].get("Code", "") if isinstance(error, ClientError) else type(error).__name__


def _passes(error: Exception) -> bool:
    """Whether the same request may well succeed a moment later."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429 or _code(error) in BUSY
    if isinstance(error, SSLError):
        return False
    return not isinstance(error, BotoCoreError) or isinstance(error, BROKEN)


def _reason(error: Exception) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _code(error)).lower()
