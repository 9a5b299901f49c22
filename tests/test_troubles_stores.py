"""Stores that answer oddly, settings on the way to jobs, names: what other people's stores and clusters do to us."""

from __future__ import annotations

import email.utils
import http.server
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import data_tools.storage.retry
from cluster.package import package
from data_tools.dataset.reader import open_dataset
from data_tools.errors import UserError
from data_tools.storage import open_storage, write_bytes

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for, though it lasts, fails soon."""
    monkeypatch.setattr(data_tools.storage.retry, "PATIENCE", 4.0)
    monkeypatch.setattr(data_tools.storage.retry, "UNREADABLE_PATIENCE", 0.3)


ACCESS, SECRET = "PLANTEDACCESSKEY0001", "planted/secret+key/of/forty/letters/00001"


@dataclass
class Answer:
    """What a small server says: a status, a body, which a HEAD lacks, and headers."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/xml"

    @staticmethod
    def error(status: int, code: str, message: str = "No.", more: str = "", **headers: str) -> Answer:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
        return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


PAGE = Answer(200, "<html><title>Sign in</title></html>", kind="text/html")


@dataclass
class Server:
    """A little HTTP server on loopback, and what it was asked for."""

    port: int
    asked: list[tuple[str, str, dict[str, str]]]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving(answer: Callable[[str, str, int], Answer]) -> Iterator[Server]:
    """A server whose answers are a function of method, path and the number of requests before."""
    asked: list[tuple[str, str, dict[str, str]]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def date_time_string(self, timestamp: float | None = None) -> str:
            return email.utils.formatdate((timestamp or time.time()) - skew, usegmt=True)

        def respond(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            said = answer(self.command, self.path, len(asked))
            asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
            nonlocal skew
            skew = float(said.headers.pop("skew", 0))
            self.send_response(said.status)
            for name, value in {"Content-Type": said.kind, **said.headers}.items():
                if value:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(said.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said.body.encode())

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = respond

    skew = 0.0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield Server(server.server_address[1], asked)
    server.shutdown()
    server.server_close()


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No AWS settings at all, and a home without any."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    for name, value in {"HOME": str(tmp_path / "home"), "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def keyed(clean: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The same with planted keys."""
    clean.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    clean.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    return clean


def says(action: Callable[[], object], *words: str, within: float = 3.0) -> str:
    """The action is refused soon by one line with all the words, and no key is in it; returns the line."""
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert time.monotonic() - began < within, message
    assert "\n" not in message and " - " in message and all(word in message for word in words), message
    assert "anted" not in message.lower()
    return message


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
def test_a_lasting_answer_is_one_line_at_once(
    answer: Answer, words: tuple[str, ...], keyed: pytest.MonkeyPatch
) -> None:
    actions: list[Callable[[], object]] = [
        lambda: open_dataset("s3://bucket/data"),  # a HEAD first, whose answer has no body
        lambda: open_storage("s3://bucket/data").names(),
        lambda: write_bytes(open_storage("s3://bucket/data"), "x", b"x"),
    ]
    for action in actions:
        fresh = Answer(answer.status, answer.body, dict(answer.headers), answer.kind)
        with serving(lambda *_, fresh=fresh: Answer(fresh.status, fresh.body, dict(fresh.headers), fresh.kind)) as made:
            keyed.setenv("AWS_ENDPOINT_URL", made.endpoint)
            message = says(action, *words)
        assert "damaged" not in message and "anew" not in message and len(made.asked) <= 7


@pytest.mark.parametrize(
    "answer",
    [
        Answer.error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1"),
        Answer.error(400, "AuthorizationHeaderMalformed", "the region is wrong", "<Region>eu-west-1</Region>"),
        Answer.error(400, "AuthorizationHeaderMalformed", "the region 'a' is wrong; expecting 'eu-west-1'"),
        Answer.error(400, "IllegalLocationConstraintException", x_amz_bucket_region="eu-west-1"),
    ],
)
def test_another_region_is_named(answer: Answer, keyed: pytest.MonkeyPatch) -> None:
    with serving(lambda *_: answer) as made:
        keyed.setenv("AWS_ENDPOINT_URL", made.endpoint)
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
def test_a_passing_answer_is_asked_for_again(answer: Answer, keyed: pytest.MonkeyPatch) -> None:
    empty = Answer(200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
    with serving(lambda method, path, number: answer if number < 2 else empty) as made:
        keyed.setenv("AWS_ENDPOINT_URL", made.endpoint)
        assert open_storage("s3://bucket/data").names() == [] and len(made.asked) == 3


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
        says(lambda: open_dataset("s3://bucket/data"), "AWS_CA_BUNDLE", "mend the path")


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
    keyed.setattr(data_tools.storage.retry, "FIRST_PATIENCE", 0.5)
    keyed.setattr(data_tools.storage.retry, "_heard", [])
    keyed.setenv("AWS_ENDPOINT_URL", "http://me:planted@no-such-store.invalid:9000")

    def nobody(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    keyed.setattr(socket, "getaddrinfo", nobody)  # machines of tests may have no name server
    says(lambda: open_dataset("s3://bucket/data"), "the name no-such-store.invalid is unknown", "AWS_ENDPOINT_URL")
    keyed.setattr(data_tools.storage.retry, "_heard", [True])  # a store that was there may come back under its name
    keyed.setattr(data_tools.storage.retry, "PATIENCE", 1.5)
    began = time.monotonic()
    says(lambda: open_dataset("s3://bucket/data"), "has not answered for 2 s", within=8)
    assert time.monotonic() - began > 1.5


@pytest.mark.parametrize("key", ["x\n", "x\r\n", " x", "x ", "x\ty", "schlüssel", "x\u200b"])
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_key_with_newline(name: str, key: str, keyed: pytest.MonkeyPatch) -> None:
    with serving(lambda *_: PAGE) as made:
        keyed.setenv("AWS_ENDPOINT_URL", made.endpoint)
        keyed.setenv(name, f"planted{key}")
        message = says(lambda: open_dataset("s3://bucket/data"), f"{name}: the AWS key", "set it anew")
    assert not made.asked
    assert ("line break" in message) if "\n" in key else True


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"AWS_PROFILE": "nobody"}, ("nobody", "mend the AWS variables or files")),
        ({"AWS_DEFAULT_REGION": "eu west 1\n"}, ("region", "mend the AWS variables or files")),
        ({"AWS_SECRET_ACCESS_KEY": ""}, ("AWS_SECRET_ACCESS_KEY", "mend the AWS variables or files")),
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
    says(lambda: open_dataset("s3://bucket/data"), "home/.aws/config", "mend the AWS variables or files")
    with pytest.raises(UserError, match=r"home/\.aws/config"), package(with_storage=True):
        pass
