"""What a store's answers mean: which pass by themselves, and for those that last a line with reason and remedy."""

from __future__ import annotations

import email.utils
import os
import re
import ssl
import time
from collections.abc import Mapping
from typing import Any

import urllib3.exceptions
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    HTTPClientError,
    IncompleteReadError,
    InvalidRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError

from data_tools.errors import UserError
from data_tools.storage.s3_connection import chained, is_not_http, refused_by_proxy, tls_reason, unknown_host, within


class NoStoreError(Exception):
    """An answer that no S3 store gives; the message says what came instead."""


FAILURES = (
    *(BotoCoreError, ClientError, ResponseParserError, NoStoreError),
    *(urllib3.exceptions.HTTPError, ConnectionError, TimeoutError),
)
"""All that a request to a store, or making its client, may raise; a ValueError too where a client is made."""
UNSIGNED = "AWS_NO_SIGN_REQUEST"
"""The variable by which other tools are told, too, to ask without keys."""

LASTING_STATUS = {501, 505, 507, 508, 510, 511}
BUSY = {
    *("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "ThrottledException", "TooManyRequests"),
    *("TooManyRequestsException", "RequestThrottled", "RequestThrottledException", "RequestLimitExceeded"),
    *("BandwidthLimitExceeded", "OperationAborted", "408", "425", "429"),
}
NOT_THERE = {"NoSuchKey", "NoSuchUpload", "404"}
CONDITION = {"PreconditionFailed", "412", "ConditionalRequestConflict"}
REGION = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "301", "307"}
REGION |= {"IllegalLocationConstraintException", "IncorrectEndpoint", "InvalidRegion"}
KEYS = "check the AWS keys"
DENIED = {
    "AccessDenied": f"{KEYS} and their rights",
    "403": f"{KEYS} and their rights",
    "InvalidAccessKeyId": f"{KEYS} and AWS_ENDPOINT_URL: this storage does not know the access key",
    "SignatureDoesNotMatch": f"{KEYS}: the secret key is not that of the access key",
    "InvalidToken": f"{KEYS}: the session token is not theirs, and lasting keys need none",
    "ExpiredToken": "get new AWS keys: these have expired",
    "ExpiredTokenException": "get new AWS keys: these have expired",
    "TokenRefreshRequired": "get new AWS keys: these have expired",
    "RequestExpired": "get new AWS keys: these have expired",
}
REFUSED = {
    "NotImplemented": "it lacks a part of S3; for older ones set AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
    "501": "it lacks a part of S3; for older ones set AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
    "InvalidBucketName": "fix the bucket's name: small letters, digits, dots and dashes here",
    "507": "free space there: it is full",
    "XMinioStorageFull": "free space there: it is full",
    "MethodNotAllowed": "check that AWS_ENDPOINT_URL is the address of its S3 service, and the rights of the keys",
}
SELF_EXPLAINING = (ProfileNotFound, ConfigParseError, InvalidRegionError, PartialCredentialsError)
"""Errors of botocore whose message is a sentence and shows no key."""
ELSEWHERE = "set AWS_ENDPOINT_URL to the address of its S3 service, which is not that of its web pages"


def unsigned() -> bool:
    """Whether requests go without keys, as to a public bucket."""
    return os.environ.get(UNSIGNED, "").strip().lower() in ("1", "true", "yes", "on")


def answered(answer: dict[str, Any], *fields: str) -> dict[str, Any]:
    """The answer, if it has the fields that every store gives; NoStoreError otherwise.

    A web page with an ETag passes for an object, so one without any header of S3 is none.
    """
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    page = "html" in headers.get("content-type", "") and not any(name.startswith("x-amz-") for name in headers)
    if page or any(field not in answer for field in fields):
        raise NoStoreError(_instead(headers))
    return answer


def is_transient(error: Exception) -> bool:
    """Whether the same request may well succeed a moment later."""
    if isinstance(error, ClientError):
        status = _status(error)
        return (status >= 500 and status not in LASTING_STATUS) or status == 429 or _code(error) in BUSY
    if isinstance(error, SSLError) or within(error, ssl.SSLError):  # a connection that broke, or one that is refused
        reasons = {each.reason for each in chained(error) if isinstance(each, ssl.SSLError)}
        return bool(reasons & {"UNEXPECTED_EOF_WHILE_READING", "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"})
    if is_not_http(error) or refused_by_proxy(error):
        return False
    if type(error) is HTTPClientError:  # what botocore does not know: header values, addresses, but also broken sockets
        return within(error, urllib3.exceptions.ProtocolError, ConnectionError, TimeoutError)
    if isinstance(error, BotoCoreError):
        return isinstance(error, (HTTPClientError, NoConnection, IncompleteReadError))
    return not isinstance(error, (NoStoreError, ValueError))


def unreadable(error: Exception) -> bool:
    """Whether an answer is no XML: one that broke off, or a page, which botocore reports as a failure of the store."""
    if isinstance(error, ClientError):
        return _code(error) == "500" and _is_page(error)
    return isinstance(error, ResponseParserError)


def reason(error: Exception) -> str:
    """A few words on a failure that passes."""
    if host := unknown_host(error):
        return f"the name {host} is unknown"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _code(error)).lower()


def user_error(error: Exception, what: str) -> Exception:
    """The error to raise for one that does not pass: FileNotFoundError, FileExistsError or a UserError.

    Its line never holds a key: no header, no message in which a key may stand, no endpoint.
    """
    if isinstance(error, ClientError):
        return _refusal(error, what)
    return UserError(f"{what}: {_failure(error)}")


def _refusal(error: ClientError, what: str) -> Exception:
    code, headers = _code(error), _headers(error)
    if _is_foreign(error):
        return UserError(f"{what}: no S3 endpoint answers there: {_instead(headers, _status(error))} - {ELSEWHERE}")
    if code == "NoSuchBucket":
        bucket = "/".join(what.split("/")[:3])
        return UserError(f"{bucket}: no such bucket - create it, or fix the URL or AWS_ENDPOINT_URL")
    if code in NOT_THERE:
        return FileNotFoundError(what)
    if code in CONDITION:
        return FileExistsError(what)
    ahead = _ahead(headers)
    if code == "RequestTimeTooSkewed" or (code in DENIED and abs(ahead) > 900):
        by = f"{abs(ahead) / 60:.0f} min {'ahead of' if ahead > 0 else 'behind'}" if ahead else "too far from"
        return UserError(f"{what}: this machine's clock is {by} the storage's ({code}) - set the clock")
    region = _region(error)
    if code in REGION and (region or code != "AuthorizationHeaderMalformed"):
        where = f"in region {region}" if region else "in another region"
        remedy = f"AWS_REGION={region}" if region else "AWS_REGION, or AWS_ENDPOINT_URL,"
        return UserError(f"{what}: the bucket lies {where} ({code}) - set {remedy}{'' if region else ' to its own'}")
    if code in DENIED:
        remedy = DENIED[code]
        if unsigned() and code in ("AccessDenied", "403"):
            remedy = f"the bucket is not public: unset {UNSIGNED}, and give keys"
        return UserError(f"{what}: the storage denies access ({code}) - {remedy}")
    if code in REFUSED:
        return UserError(f"{what}: the storage cannot answer this request ({code}) - {REFUSED[code]}")
    said = _said(error)
    return UserError(f"{what}: the storage refuses the request ({code}{said}) - check the URL and the AWS variables")


def _failure(error: Exception) -> str:
    """The reason and the remedy for what is no refusal."""
    name = type(error).__name__
    if isinstance(error, NoStoreError):
        return f"no S3 endpoint answers there: {error} - {ELSEWHERE}"
    if isinstance(error, ResponseParserError):
        return f"no S3 endpoint answers there: the answer is no XML of S3's - {ELSEWHERE}"
    if is_not_http(error):
        return "no S3 endpoint answers there: what answers speaks no HTTP - check the port in AWS_ENDPOINT_URL"
    if refusal := refused_by_proxy(error):
        return f"the proxy refuses ({refusal}) - fix HTTPS_PROXY, or name the storage's host in NO_PROXY"
    if isinstance(error, SSLError) or within(error, ssl.SSLError):
        return tls_reason(error)
    if isinstance(error, SELF_EXPLAINING):
        return f"{' '.join(str(error).split())} - fix the AWS variables or files"
    if "NoCredentials" in name:
        return (
            "no AWS keys found - set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile; for a public bucket"
            f" {UNSIGNED}=1"
        )
    if "SSO" in name or "Token" in name or "Login" in name:
        return f"the AWS sign-in is over or incomplete ({name}) - sign in again, as with aws sso login"
    if "Credential" in name or "Metadata" in name:
        return f"the AWS keys cannot be had ({name}) - check the profile in the AWS files and what it runs or asks"
    if isinstance(error, ValueError) and not isinstance(error, BotoCoreError):
        return "the endpoint is not an address - set AWS_ENDPOINT_URL to one like http://HOST:PORT"
    inner = next((f" {type(each).__name__}" for each in chained(error) if each is not error), "")
    return f"the request cannot be sent ({name}{inner}) - check the URL and the AWS variables and files"


def _is_foreign(error: ClientError) -> bool:
    """Whether a refusal has no code of S3's, as those of consoles, sign-in pages and other services have none."""
    code = _code(error)
    if not re.fullmatch(r"\d*", code):
        return False
    if _status(error) in LASTING_STATUS or code in NOT_THERE | CONDITION | REGION | {"400", "403", "409", "416"}:
        return _is_page(error)
    return True


def _is_page(error: ClientError) -> bool:
    return any(word in _headers(error).get("content-type", "") for word in ("html", "json", "text/plain"))


def _instead(headers: Mapping[str, str], status: int = 200) -> str:
    kind = re.sub(r"[^\w/+.-].*", "", headers.get("content-type", ""), flags=re.DOTALL)[:40]
    status_said = "" if status in (200, 500) else f" and status {status}"  # 500 is what botocore makes of a page
    return f"it answers with {kind or 'nothing that S3 knows'}{status_said}"


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _headers(error: ClientError) -> Mapping[str, str]:
    return error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})


def _code(error: Exception) -> str:
    """The store's own word for it, printable and short."""
    if not isinstance(error, ClientError):
        return type(error).__name__
    return re.sub(r"\W", "", str(error.response["Error"].get("Code", "")))[:60]


def _said(error: ClientError) -> str:
    """The store's sentence, without words that are long enough to be keys."""
    text = " ".join(str(error.response["Error"].get("Message", "")).split())
    text = "".join(letter for letter in text if letter.isprintable())
    return f": {re.sub(r'[A-Za-z0-9/+=_-]{16,}', '…', text)[:160]}" if text else ""


def _region(error: ClientError) -> str:
    """The region that a store names, if need be in its sentence: the region 'a' is wrong; expecting 'eu-central-1'."""
    said = error.response["Error"]
    expected = re.search(r"expecting '([^']*)'", str(said.get("Message", "")))
    named = (_headers(error).get("x-amz-bucket-region"), said.get("Region"), expected[1] if expected else "")
    return next((region for region in map(str, named) if re.fullmatch(r"[a-z0-9-]{2,40}", region)), "")


def _ahead(headers: Mapping[str, str]) -> float:
    """Seconds by which our clock is ahead of the store's; 0 where it does not say."""
    try:
        return time.time() - email.utils.parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return 0.0
