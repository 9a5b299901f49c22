"""Stores that answer oddly: each answer is one line at once, or asked for again."""

from __future__ import annotations

import dataclasses
import http.server
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import data_tools.storage.retry
from cluster.package import package
from data_tools.dataset.reader import open_dataset
from data_tools.errors import UserError
from data_tools.storage import open_storage, s3_client, write_bytes
from tests.support.answering import ACCESS, EMPTY, PAGE, Answer, Steady, says, serving

EXPIRED = Answer.error(400, "ExpiredToken", "The token has expired.")
LASTING: list[Any] = [
    pytest.param(Answer.error(501, "NotImplemented"), ("NotImplemented", "CHECKSUM_CALCULATION"), id="store_501"),
    pytest.param(EXPIRED, ("ExpiredToken", "get new AWS keys"), id="store_expired"),
    pytest.param(PAGE, ("no S3 endpoint", "text/html", "AWS_ENDPOINT_URL"), id="store_page"),
    (Answer.error(501, "X", "no"), ("(X: no)",)),
    (Answer(501, "<h1>Unsupported method</h1>", kind="text/html"), ("no S3 endpoint", "text/html", "501")),
    (Answer.error(505, "HttpVersionNotSupported"), ("HttpVersionNotSupported",)),
    (Answer.error(507, "XMinioStorageFull"), ("XMinioStorageFull", "free space")),
    (Answer(511, "sign in here", kind="text/html"), ("no S3 endpoint", "511")),
    (Answer.error(403, "AccessDenied"), ("denies access (AccessDenied)", "rights")),
    (Answer.error(403, "InvalidAccessKeyId"), ("(InvalidAccessKeyId)", "does not know the access key")),
    (Answer.error(403, "SignatureDoesNotMatch"), ("(SignatureDoesNotMatch)", "the secret key")),
    (Answer.error(400, "InvalidToken"), ("(InvalidToken)", "session token")),
    (Answer.error(403, "RequestTimeTooSkewed", skew="3660"), ("clock is 61 min ahead of", "set the clock")),
    (Answer.error(403, "RequestTimeTooSkewed", skew="-7200"), ("clock is 120 min behind", "set the clock")),
    (Answer.error(403, "AccessDenied", skew="7200"), ("clock is 120 min ahead", "set the clock")),
    (Answer.error(400, "InvalidArgument", f"odd key {ACCESS}"), ("refuses the request (InvalidArgument: odd key …)",)),
    (Answer.error(405, "MethodNotAllowed"), ("MethodNotAllowed", "AWS_ENDPOINT_URL")),
    (Answer(405, '{"detail":"Method Not Allowed"}', kind="application/json"), ("no S3 endpoint", "application/json")),
    (Answer(302, "", {"Location": "/login"}, kind=""), ("no S3 endpoint", "302")),
    (Answer(404, "<h1>not found</h1>", kind="text/html"), ("no S3 endpoint", "404")),
    (Answer(404, '{"detail":"Not Found"}', kind="application/json"), ("no S3 endpoint", "404")),
    (Answer(400, "The plain HTTP request was sent to HTTPS port", kind="text/html"), ("no S3 endpoint", "400")),
    (Answer(200, ""), ("no S3 endpoint",)),
    (Answer(200, "welcome", kind="text/plain"), ("no S3 endpoint", "text/plain")),
    (Answer(200, "<html><p>&nbsp;</html>", {"ETag": '"page"'}, kind="text/html; charset=utf-8"), ("no S3 endpoint",)),
    (Answer(200, '{"a": 1}', kind="application/json"), ("no S3 endpoint", "application/json")),
    (Answer.error(404, "NoSuchBucket"), ("s3://bucket: no such bucket",)),
]


@pytest.mark.parametrize(("answer", "words"), LASTING)
def test_a_lasting_answer_is_one_line_at_once(answer: Answer, words: tuple[str, ...], steady: Steady) -> None:
    actions: list[Callable[[], object]] = [
        lambda: open_dataset("s3://bucket/data"),  # a HEAD first, whose answer has no body
        lambda: open_storage("s3://bucket/data").names(),
        lambda: write_bytes(open_storage("s3://bucket/data"), "x", b"x"),
    ]
    for action in actions:
        steady.gives(lambda *_: dataclasses.replace(answer, headers=dict(answer.headers)))
        message = says(action, *words)
        assert "damaged" not in message and "anew" not in message and len(steady.asked) <= 7


@pytest.mark.parametrize(
    "answer",
    [
        Answer.error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1"),
        Answer.error(400, "AuthorizationHeaderMalformed", "the region is wrong", "<Region>eu-west-1</Region>"),
        Answer.error(400, "AuthorizationHeaderMalformed", "the region 'a' is wrong; expecting 'eu-west-1'"),
        Answer.error(400, "IllegalLocationConstraintException", x_amz_bucket_region="eu-west-1"),
        Answer.error(400, "InvalidRegion", "expecting 'eu-west-1'", "<Region>two\nlines</Region>"),
    ],
)
def test_another_region_is_named(answer: Answer, steady: Steady) -> None:
    steady.gives(lambda *_: answer)
    says(lambda: open_dataset("s3://bucket/data"), "in region eu-west-1", "set AWS_REGION=eu-west-1")
    says(lambda: open_storage("s3://bucket/data").tree(), "in region eu-west-1", "set AWS_REGION=eu-west-1")


@pytest.mark.parametrize(
    "answer",
    [
        *(Answer.error(status, code) for status, code in ((500, "InternalError"), (503, "SlowDown"), (429, "Busy"))),
        *(Answer.error(400, code) for code in ("RequestTimeout", "ThrottlingException")),
        Answer(502, "<h1>Bad Gateway</h1>", kind="text/html"),
        Answer(504, ""),
        Answer(200, "<ListBucketResult><IsTrunc"),  # the connection broke
    ],
)
def test_a_passing_answer_is_asked_for_again(answer: Answer, steady: Steady) -> None:
    steady.gives(lambda method, path, number: answer if number < 2 else EMPTY)
    assert open_storage("s3://bucket/data").names() == [] and len(steady.asked) == 3


@pytest.mark.parametrize("token", ["", "<NextContinuationToken>same</NextContinuationToken>"])
def test_a_list_that_never_ends_is_refused(token: str, steady: Steady) -> None:
    steady.gives(lambda *_: Answer(200, f"<ListBucketResult><IsTruncated>true</IsTruncated>{token}</ListBucketResult>"))
    says(lambda: open_storage("s3://bucket/data").names(), "no more than its first page", "ListObjectsV2")


class _Banner(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def test_what_speaks_no_http_or_no_tls_is_said(keyed: pytest.MonkeyPatch) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Banner) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        keyed.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        says(lambda: open_dataset("s3://bucket/data"), "speaks no HTTP", "port")
        server.shutdown()
    with serving(lambda *_: PAGE) as made:
        keyed.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{made.port}")
        says(lambda: open_dataset("s3://bucket/data"), "no TLS", "http://")
        keyed.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
        says(lambda: open_dataset("s3://bucket/data"), "AWS_CA_BUNDLE", "fix the path")


def test_a_refusing_proxy_is_named_and_its_password_is_not(keyed: pytest.MonkeyPatch) -> None:
    class Refusing(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_CONNECT(self) -> None:
            self.send_error(407)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        keyed.setenv("AWS_ENDPOINT_URL", "https://store.example:9000")
        keyed.setenv("HTTPS_PROXY", f"http://me:planted@127.0.0.1:{server.server_address[1]}")
        says(lambda: open_dataset("s3://bucket/data"), "the proxy refuses (407)", "HTTPS_PROXY")
        server.shutdown()


def test_a_name_that_nobody_knows_is_said_soon(keyed: pytest.MonkeyPatch) -> None:
    keyed.setattr(data_tools.storage.retry, "UNKNOWN_HOST_SECONDS", 0.1)
    keyed.setattr(data_tools.storage.retry, "_answered", [])
    keyed.setenv("AWS_ENDPOINT_URL", "http://me:planted@no-such-store.invalid:9000")

    def nobody(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    keyed.setattr(socket, "getaddrinfo", nobody)  # machines of tests may have no name server
    says(lambda: open_dataset("s3://bucket/data"), "the name no-such-store.invalid is unknown", "AWS_ENDPOINT_URL")
    keyed.setattr(data_tools.storage.retry, "_answered", [True])  # a store that was there may come back under its name
    keyed.setattr(data_tools.storage.retry, "RETRY_SECONDS", 0.6)
    began = time.monotonic()
    says(lambda: open_dataset("s3://bucket/data"), "has not answered for 1 s")
    assert time.monotonic() - began > 0.6


@pytest.mark.parametrize("key", ["x\n", "x\r\n", " x", "x ", "x\ty", "schlüssel", "x\u200b"])
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_key_with_newline(name: str, key: str, steady: Steady, keyed: pytest.MonkeyPatch) -> None:
    steady.gives(lambda *_: PAGE)
    keyed.setenv(name, f"planted{key}")
    message = says(lambda: open_dataset("s3://bucket/data"), f"{name}: the AWS key", "set it again")
    assert not steady.asked
    assert ("line break" in message) if "\n" in key else True


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"AWS_PROFILE": "nobody"}, ("nobody", "fix the AWS variables or files")),
        ({"AWS_DEFAULT_REGION": "eu west 1\n"}, ("region", "fix the AWS variables or files")),
        ({"AWS_SECRET_ACCESS_KEY": ""}, ("AWS_SECRET_ACCESS_KEY", "fix the AWS variables or files")),
        ({"AWS_ENDPOINT_URL": "me:planted@store:9000"}, ("AWS_ENDPOINT_URL", "http://HOST:PORT")),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, ("no AWS keys found", "AWS_NO_SIGN_REQUEST=1")),
    ],
)
def test_settings_that_cannot_be_are_one_line(
    variables: dict[str, str], words: tuple[str, ...], keyed: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        keyed.setenv(name, value)
    says(lambda: open_dataset("s3://bucket/data"), *words)


def test_a_broken_file_of_settings_is_named(keyed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home/.aws").mkdir()
    (tmp_path / "home/.aws/config").write_text("region = eu-west-1\n")
    s3_client._client.cache_clear()
    says(lambda: open_dataset("s3://bucket/data"), "home/.aws/config", "fix the AWS variables or files")
    with pytest.raises(UserError, match=r"home/\.aws/config"), package(with_storage=True):
        pass


@pytest.mark.parametrize("bucket", ["My_Bucket", "UPPER", "a.b-c", "x" * 255, "my-point-abc123-s3alias", "abc"])
def test_old_bucket(bucket: str, steady: Steady) -> None:
    steady.gives(lambda *_: EMPTY)
    for place in (f"s3://{bucket}/data", f"s3://{bucket}"):
        assert open_storage(place).names() == [] and open_storage(place).url == place
    assert all(path.startswith(f"/{bucket}?") for _, path, _ in steady.asked) and len(steady.asked) == 2


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://planted:planted@bucket/data", ("keys go into AWS variables", "A-Z")),
        ("s3://planted bucket/data", ("no bucket's name", "3 to 255")),
        ("s3://bücket-planted/data", ("no bucket's name", "letters")),
        ("s3://ab/data", ("no bucket's name", "3 to 255")),
        ("s3://", ("no bucket and prefix follow",)),
        ("s3:///data", ("no bucket and prefix follow",)),
        ("s3://arn:aws:s3:us-west-2:123456789012:accesspoint/planted/data", ("alias", "-s3alias")),
        ("s3:/bucket/data", ("write s3://bucket/prefix",)),
        ("S3://bucket/data", ("write s3://bucket/prefix", "small letters")),
    ],
)
def test_what_is_no_bucket_is_said_without_showing_it(
    url: str, words: tuple[str, ...], clean: pytest.MonkeyPatch
) -> None:
    says(lambda: open_storage(url), *words)
