"""The way to a store: names, proxies, TLS, and what is no HTTP at all, found in what the libraries raise."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import urllib3.exceptions
from botocore.exceptions import ProxyConnectionError


def unknown_host(error: Exception) -> str:
    """The host that no name server knows, or "": such a name may come back with its store, or be a slip."""
    for each in chained(error):
        if isinstance(each, urllib3.exceptions.NameResolutionError):
            causes = [cause for cause in chained(each) if isinstance(cause, socket.gaierror)]
            if any(cause.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)) for cause in causes):
                host = re.search(r"resolve '([^']*)'", str(each))
                return host[1] if host else "its host"
    return ""


def tls_reason(error: Exception) -> str:
    """Why no secure connection comes about, and what helps."""
    for each in chained(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            said = each.verify_message.rstrip(".")
            return f"its certificate is not trusted ({said}) - set AWS_CA_BUNDLE to the file of who signed it"
        if isinstance(each, ssl.SSLError) and each.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return "it speaks no TLS - write http:// instead of https:// in AWS_ENDPOINT_URL"
        if isinstance(each, OSError) and not isinstance(each, ssl.SSLError) and each.errno:
            return f"the certificates of AWS_CA_BUNDLE cannot be read ({each.strerror}) - fix the path"
    names = [each.reason for each in chained(error) if isinstance(each, ssl.SSLError) and each.reason]
    return f"no secure connection ({next(iter(names), 'TLS')}) - check AWS_ENDPOINT_URL and AWS_CA_BUNDLE"


def is_not_http(error: Exception) -> bool:
    """Whether something answered that is no HTTP; an answer that broke off before its first line is another thing."""
    return any(
        isinstance(each, http.client.BadStatusLine) and not isinstance(each, http.client.RemoteDisconnected)
        for each in chained(error)
    )


def refused_by_proxy(error: Exception) -> str:
    """The status with which a proxy refuses the way, or ""; 5xx of a proxy pass."""
    if not isinstance(error, ProxyConnectionError):
        return ""
    match = re.search(r"Tunnel connection failed: (4\d\d)", " ".join(map(str, chained(error))))
    return match[1] if match else ""


def within(error: BaseException, *kinds: type[BaseException]) -> bool:
    return any(isinstance(each, kinds) for each in chained(error))


def chained(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it was made of."""
    seen: list[BaseException] = []
    left: list[Any] = [error]
    while left:
        cause = left.pop(0)
        if isinstance(cause, BaseException) and not any(cause is each for each in seen):
            seen.append(cause)
            left += [getattr(cause, "kwargs", {}).get("error"), *cause.args, cause.__cause__]
    return iter(seen)
