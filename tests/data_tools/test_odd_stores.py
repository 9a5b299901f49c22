"""Stores that answer oddly, settings on the way to jobs, names: what other people's stores and clusters do to us."""

from __future__ import annotations

import dataclasses
import email.utils
import errno
import http.server
import json
import os
import socket
import socketserver
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

import data_tools.storage.retry
from cluster.arguments import check_arguments
from cluster.jobs import submit
from cluster.package import package
from cluster.ports import free_ports
from cluster.store import local_store
from data_tools.dataset.reader import open_dataset
from data_tools.errors import UserError
from data_tools.storage import open_storage, read_bytes, s3_client, write_bytes
from data_tools.storage.s3_settings import CONFIG, KEYS
from data_tools.storage.transfer import downloaded, uploaded
from tuning.config import SweepConfig
from tuning.plan import lambda_values, make_plan

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def short_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for, though it lasts, fails soon."""
    monkeypatch.setattr(data_tools.storage.retry, "RETRY_SECONDS", 4.0)
    monkeypatch.setattr(data_tools.storage.retry, "UNREADABLE_SECONDS", 0.3)


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


EMPTY = Answer(200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
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
def serving(answer: Callable[[str, str, int], Answer], tls: ssl.SSLContext | None = None) -> Iterator[Server]:
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
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield Server(server.server_address[1], asked)
    server.shutdown()
    server.server_close()


@dataclass
class Steady:
    """One server for many tests, so that their client is made once."""

    answer: Callable[[str, str, int], Answer] = lambda *_: PAGE
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def gives(self, answer: Callable[[str, str, int], Answer]) -> None:
        self.answer = answer
        self.asked.clear()


@pytest.fixture(scope="module")
def steady_server() -> Iterator[tuple[Steady, str]]:
    steady = Steady()
    with serving(lambda *asked: steady.answer(*asked)) as made:
        steady.asked = made.asked
        yield steady, made.endpoint


@pytest.fixture
def steady(steady_server: tuple[Steady, str], keyed: pytest.MonkeyPatch) -> Steady:
    """It is this process's S3."""
    keyed.setenv("AWS_ENDPOINT_URL", steady_server[1])
    return steady_server[0]


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No AWS settings at all, and a home without any."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.endswith("_CA_BUNDLE")]:
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


# ---- settings on the way to a job ----

ASK = """
import pyarrow.fs
from data_tools.storage import open_storage, read_bytes, s3_client, write_bytes
from data_tools.storage.s3_settings import CONFIG, KEYS
from data_tools.storage.transfer import downloaded, uploaded
from tuning.config import SweepConfig
from tuning.plan import lambda_values, make_plan
storage = open_storage("s3://My_Bucket/data")
print(storage.names())
write_bytes(storage, "x", b"content")
if __import__("sys").argv[1:]:
    import pyarrow.fs
    path, filesystem = storage.arrow()
    print(filesystem.get_file_info(pyarrow.fs.FileSelector(path, allow_not_found=True)))
"""
KEY_LINES = f"aws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n"


def small_store(method: str, path: str, number: int) -> Answer:
    return EMPTY if method == "GET" else Answer(200, "", {"ETag": '"1"'})


def as_job(nodes: dict[str, str], *words: str) -> str:
    """What a job that lists and writes prints, in a process with its package and its machine's variables alone."""
    with package(with_storage=True) as ours:
        shown = str(ours.environment)
        assert ACCESS not in shown and SECRET not in shown and "planted-token" not in shown
        files = [path for path in ours.folder.iterdir() if path.name.startswith(".")]
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
        environment = {"HOME": str(ours.folder), "PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true"}
        done = subprocess.run(
            [sys.executable, "-c", ASK, *words],
            env=environment | nodes | ours.environment,
            cwd=ours.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


def credential(headers: dict[str, str]) -> tuple[str, str]:
    """The access key and the region of a signed request; empty for an unsigned one."""
    signed = headers.get("authorization", "")
    parts = signed.partition("Credential=")[2].split("/")
    return (parts[0], parts[2]) if len(parts) > 2 else ("", "")


def settings_in(way: str, endpoint: str, home: Path, patched: pytest.MonkeyPatch) -> None:
    """The same endpoint, region and keys, as different people have them."""
    s3_client._client.cache_clear()  # it knows of variables, not of files in another home
    aws = home / ".aws"
    aws.mkdir()
    place = f"region = eu-central-1\nendpoint_url = {endpoint}\n"
    checksum = "request_checksum_calculation = when_required\n"
    if way == "endpoint_in_file":
        (aws / "config").write_text(f"[default]\n{place}{checksum}")
        (aws / "credentials").write_text(f"[default]\n{KEY_LINES}")
    elif way == "profile":
        services = f"[services lab]\ns3 =\n    endpoint_url = {endpoint}\n"
        (aws / "config").write_text(
            f"[profile lab]\nregion = eu-central-1\nservices = lab\n{checksum}[default]\nregion = no-1\n{services}"
        )
        (aws / "credentials").write_text(f"[lab]\n{KEY_LINES}")
        patched.setenv("AWS_PROFILE", "lab")
    elif way == "other files":
        (home / "c").write_text(f"[default]\n{place}{checksum}")
        (home / "k").write_text(f"[default]\n{KEY_LINES}")
        patched.setenv("AWS_CONFIG_FILE", str(home / "c"))
        patched.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "k"))
    elif way == "process":
        script = home / "keys.py"
        found = f'{{"Version": 1, "AccessKeyId": "{ACCESS}", "SecretAccessKey": "{SECRET}"}}'
        script.write_text(f"print({found!r})")
        (aws / "config").write_text(f"[default]\n{place}{checksum}credential_process = {sys.executable} {script}\n")
    else:
        variables = {"ACCESS_KEY_ID": ACCESS, "SECRET_ACCESS_KEY": SECRET, "REGION": "eu-central-1"}
        variables |= {"ENDPOINT_URL_S3": endpoint, "REQUEST_CHECKSUM_CALCULATION": "when_required"}
        for name, value in variables.items():
            patched.setenv(f"AWS_{name}", value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        "endpoint_in_file",
        *(pytest.param(way, marks=pytest.mark.slow) for way in ("profile", "variables", "other files", "process")),
    ],
)
def test_a_job_asks_the_store_that_the_shell_asks(way: str, clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nodes = {
        "AWS_ACCESS_KEY_ID": "NODES", "AWS_SECRET_ACCESS_KEY": "nodes", "AWS_SESSION_TOKEN": "nodes",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/nodes",
        "AWS_PROFILE": "nodes", "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": "nodes-1", "AWS_NO_SIGN_REQUEST": "1", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported",
    }  # fmt: skip
    with serving(small_store) as made:
        settings_in(way, made.endpoint, tmp_path / "home", clean)
        storage = open_storage("s3://My_Bucket/data")
        assert storage.names() == []
        write_bytes(storage, "x", b"content")
        here = list(made.asked)
        assert as_job(nodes, *(["arrow"] if way == "profile" else [])).startswith("[]")
        there = made.asked[len(here) :]
    for method, path, headers in [*here, *there]:
        assert path.startswith("/My_Bucket") and credential(headers) == (ACCESS, "eu-central-1")
        assert "x-amz-security-token" not in headers
        assert method != "PUT" or not [name for name in headers if "checksum" in name or name == "x-amz-trailer"]
    assert len(there) >= len(here) == 2


@pytest.mark.slow
def test_public_bucket(clean: pytest.MonkeyPatch) -> None:
    with serving(small_store) as made:
        clean.setenv("AWS_ENDPOINT_URL", made.endpoint)
        says(lambda: open_storage("s3://My_Bucket/data").names(), "no AWS keys found", "AWS_NO_SIGN_REQUEST=1")
        clean.setenv("AWS_NO_SIGN_REQUEST", "YES")
        assert open_storage("s3://My_Bucket/data").names() == []
        clean.setenv("AWS_ACCESS_KEY_ID", ACCESS)  # keys that are there all the same are not used
        clean.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        nodes = {"AWS_ACCESS_KEY_ID": "NODES", "AWS_SECRET_ACCESS_KEY": "nodes"}
        assert as_job(nodes, "arrow").startswith("[]")
    assert len(made.asked) >= 4 and not any("authorization" in headers for _, _, headers in made.asked)


def test_a_public_bucket_of_a_real_store(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = {"accessKey": ACCESS, "secretKey": SECRET}
    owner = {"name": "stratagan", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
    everybody = {"name": "anonymous", "actions": ["Read:open", "List:open"]}
    (tmp_path / "s").mkdir()
    (tmp_path / "s/s3.json").write_text(json.dumps({"identities": [owner, everybody]}))
    with local_store(tmp_path / "s") as made:
        client = made.client()
        client.create_bucket(Bucket="open")
        client.put_object(Bucket="open", Key="data/x", Body=b"content")
        clean.setenv("AWS_ENDPOINT_URL", made.endpoint)
        clean.setenv("AWS_NO_SIGN_REQUEST", "1")
        storage = open_storage("s3://open/data")
        assert storage.names() == ["x"] and read_bytes(storage, "x") == b"content"
        path, filesystem = storage.arrow()
        with filesystem.open_input_stream(f"{path}/x") as file:
            assert file.read() == b"content"
        with pytest.raises(FileNotFoundError):
            read_bytes(storage, "y")
        private = open_storage(f"{made.url}/data")
        for action in (private.names, lambda: read_bytes(private, "x"), lambda: write_bytes(storage, "z", b"")):
            says(action, "denies access (AccessDenied)", "not public: unset AWS_NO_SIGN_REQUEST")


def test_session_token(keyed: pytest.MonkeyPatch) -> None:
    with package(with_storage=True) as ours:
        assert not ours.notes
    keyed.setenv("AWS_SESSION_TOKEN", "planted-token")
    with package(with_storage=True) as ours:
        (note,) = ours.notes
        assert "temporary and end some hours" in note and "planted" not in note
        assert "planted-token" in (ours.folder / KEYS).read_text()
    keyed.setenv("AWS_CREDENTIAL_EXPIRATION", "2999-01-02T03:04:05Z")
    with package(with_storage=True) as ours:
        assert "temporary and end at 2999-01-02 03:04 UTC" in ours.notes[0]


def test_options_that_no_variable_says_go_along(keyed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home/.aws").mkdir()
    (tmp_path / "home/.aws/config").write_text(
        "[default]\nuse_dualstack_endpoint = true\n"
        "s3 =\n    addressing_style = virtual\n    payload_signing_enabled = true\n"
    )
    with package(with_storage=True) as ours:
        text = (ours.folder / CONFIG).read_text()
        assert "\n    addressing_style = virtual\n" in text and "payload_signing_enabled = true\n" in text
        assert ours.environment["AWS_USE_DUALSTACK_ENDPOINT"] == "true"
        assert ours.environment["AWS_CONFIG_FILE"] == CONFIG and ours.environment["RAY_CHDIR_TO_TRIAL_DIR"] == "0"
        assert "AWS_ENDPOINT_URL_S3" not in ours.environment and "AWS_REGION" not in ours.environment
        assert ours.environment["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] == "true"  # of the nodes, who may have another


def test_without_keys_a_cluster_keeps_its_own(clean: pytest.MonkeyPatch) -> None:
    with package(with_storage=True) as ours:
        assert ours.environment == {} and not ours.notes
    clean.setenv("AWS_ENDPOINT_URL", "http://store.example:9000")
    with package(with_storage=True) as ours:
        assert ours.environment["AWS_ENDPOINT_URL_S3"] == "http://store.example:9000"
        assert not {name for name in ours.environment if "KEY" in name or "PROFILE" in name or "FILE" in name}
    clean.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    with package(with_storage=True) as ours:
        assert "http://localhost:9000 means this machine" in ours.notes[0]
    clean.setenv("AWS_ENDPOINT_URL", "http://me:planted@store.example:9000")
    says(lambda: package(with_storage=True).__enter__(), "the endpoint holds", "--no-keys")


@pytest.mark.slow
def test_certificates_go_along(keyed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made_by, key = tmp_path / "home/ca.pem", tmp_path / "key.pem"
    kind = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    words = f"openssl req -x509 {kind} -keyout {key} -out {made_by}"
    subprocess.run([*words.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made_by, key)
    with serving(small_store, context) as made:
        keyed.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{made.port}")
        says(
            lambda: open_storage("s3://My_Bucket/data").names(),
            "not trusted (self-signed certificate)",
            "AWS_CA_BUNDLE",
        )
        keyed.setenv("AWS_CA_BUNDLE", str(made_by))
        assert open_storage("s3://My_Bucket/data").names() == []
        made_by.rename(tmp_path / "elsewhere.pem")  # of this machine alone
        keyed.setenv("AWS_CA_BUNDLE", str(tmp_path / "elsewhere.pem"))
        assert as_job({}, "arrow").startswith("[]")
        keyed.setenv("AWS_CA_BUNDLE", str(tmp_path))
        says(lambda: package(with_storage=True).__enter__(), f"{tmp_path}: is a folder", "AWS_CA_BUNDLE one file")
        keyed.setenv("AWS_CA_BUNDLE", str(made_by))
        says(lambda: package(with_storage=True).__enter__(), f"AWS_CA_BUNDLE {made_by}: No such file")


# ---- what submit says ----


def dashboard(job: Answer) -> Callable[[str, str, int], Answer]:
    """A job server that takes our code and answers so to a job."""
    version = Answer(
        200, json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": ""}), kind="application/json"
    )

    def answer(method: str, path: str, number: int) -> Answer:
        if path == "/api/version":
            return Answer(version.status, version.body, {}, version.kind)
        return Answer(200, "{}", {}, "application/json") if "/packages/" in path else job

    return answer


TAKEN = (
    "Traceback\n  File x\nValueError: Job with submission_id a already exists. Please use a different submission_id.\n"
)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(
            dashboard(Answer(500, TAKEN)), ("--name a: the name is taken", "another --name"), id="same_job_name"
        ),
        (
            dashboard(Answer(500, f"RuntimeError: Request failed with status code 400: {TAKEN}.\n")),
            ("the name is taken",),
        ),
        (
            dashboard(Answer(500, "Traceback\nRuntimeError: Request failed: x\nValueError: odd\n.\n")),
            ("status 500): odd",),
        ),
        (dashboard(Answer(400, "Traceback\nKeyError: 'odd'")), ("the cluster refuses (status 400): 'odd'",)),
        (dashboard(Answer(503, "")), ("no Ray cluster answers", "503")),
        (lambda *_: PAGE, ("no Ray cluster, but something else",)),
        (lambda *_: Answer(404, "nothing"), ("refuses", "Ray")),
    ],
)
def test_what_a_job_server_says_is_passed_on(
    answer: Callable[[str, str, int], Answer], words: tuple[str, ...], clean: pytest.MonkeyPatch
) -> None:
    with serving(answer) as made:
        message = says(lambda: submit(made.endpoint, ["true"], "a", False, ()), *words, within=15)
    assert ("no Ray cluster answers" in message) == ("no Ray cluster answers" in words)


def test_no_answer_is_called_that(clean: pytest.MonkeyPatch) -> None:
    nobody = f"http://me:planted@127.0.0.1:{free_ports(1)[0]}"
    says(lambda: submit(nobody, ["true"], "a", False, ()), "no Ray cluster answers", within=15)
    for address in ("auto", "foo", "http://", "http://[bad", "127.0.0.1:8265", "ray://127.0.0.1:10001"):
        says(lambda address=address: submit(address, ["true"], "a", False, ()), "is not an address of a dashboard")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("python -m trainer score s3://b/run pictures --out /shared/s.csv", "pictures"),
        ("python -m trainer score s3://b/run /shared/pictures --heatmaps maps", "--heatmaps maps"),
        ("python -m trainer score runs/a /shared/pictures", "runs/a"),
        (
            "python -m trainer train --data s3://b/d --out s3://b/r --preset demo --exclude list.txt",
            "--exclude list.txt",
        ),
        ("python -m trainer train --data s3://b/d --out s3://b/r --preset demo --cache=here", "--cache here"),
        ("python -m trainer train --data s3://b/d --out s3://b/r --preset demo --from runs/a", "--from runs/a"),
        ("python -m trainer bench --preset demo --data s3://b/d --json x.json", "--json x.json"),
        ("python -m data_tools images images --out s3://b/d --resolution 8", "images"),
        ("python -m data_tools verify data/mine", "data/mine"),
        ("python -m data_tools cache list --cache here", "--cache here"),
        ("python -m tuning resume sweeps/a", "sweeps/a"),
        ("python -m tuning report s3://b/a sweeps/a --out s3://b/c", "sweeps/a"),
        ("python -m cluster score --run runs/a --images s3://b/c --out s3://b/d", "--run runs/a"),
        ("python -m data_tools verify ~/data", "~/data"),
        ("python -m trainer evaluate s3://b/r --cache=~/x", "--cache ~/x"),
        ("python other.py --out ~/x", "--out ~/x"),
        ("python other.py --heatmaps x", "--heatmaps x"),
    ],
)
def test_places_that_the_cluster_does_not_know_are_refused(words: str, named: str, tmp_path: Path) -> None:
    says(lambda: check_arguments(words.split()), f"{named}: the cluster", "s3://bucket/prefix")


@pytest.mark.parametrize(
    "words",
    [
        "python -m trainer score s3://b/run /shared/pictures s3://b/x --out /shared/s.csv --heatmaps s3://b/maps",
        "python -m trainer train --data s3://b/d --out s3://b/r --preset demo --cache  --debug",
        "python -m data_tools images s3://b/images --out s3://b/d --resolution 8",
        "python -m tuning sweep --data s3://b/d --out s3://b/s --preset demo --name cells --gamma 0,0.1",
        "python -m trainer train --help",
        "bash -c true",
        "python train.py",
    ],
)
def test_other_words_go_through(words: str) -> None:
    check_arguments(words.split(" "))


# ---- folders of files ----


def objects(names: dict[str, bytes]) -> Callable[[str, str, int], Answer]:
    """A store with these objects."""
    entries = "".join(
        f"<Contents><Key>{quote(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<Size>{len(content)}</Size></Contents>"
        for name, content in names.items()
    )
    facts = "<IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>"
    page = f"<ListBucketResult>{facts}{entries}</ListBucketResult>"

    def answer(method: str, path: str, number: int) -> Answer:
        if "list-type=2" in path:
            return Answer(200, page)
        content = names[unquote(path.partition("?")[0]).removeprefix("/bucket/")].decode()
        return Answer(200, content, {"ETag": '"1"'})

    return answer


@pytest.mark.parametrize(
    ("names", "words"),
    [
        pytest.param(
            ("p/a", "p/a/b.png"), ("s3://bucket/p/a: is an object, and a folder of", "rename"), id="file_and_folder"
        ),
        (("p/a/b/c/d.png", "p/a/b"), ("s3://bucket/p/a/b: is an object, and a folder of",)),
        (("p/a/",), ("s3://bucket/p/a/: cannot be a file", "empty", "rename")),
        (("p/a//b.png",), ("s3://bucket/p/a//b.png: cannot be a file", "empty")),
        (("p/../../b.png",), ("s3://bucket/p/../../b.png: cannot be a file", "leads elsewhere")),
        (("p/" + "x" * 256,), ("s3://bucket/p/xxx", "255")),
        (("p/" + "ä" * 128,), ("s3://bucket/p/äää", "255")),
        (("p/a\x1bb.png",), (r"s3://bucket/p/'a\x1bb.png': cannot be a file",)),
        (("p/a\nb.png",), (r"s3://bucket/p/'a\nb.png': cannot be a file",)),
    ],
)
def test_objects_that_cannot_be_files_are_named(names: tuple[str, ...], words: tuple[str, ...], steady: Steady) -> None:
    steady.gives(objects(dict.fromkeys(names, b"x")))
    message = says(lambda: downloaded(Path("s3:/bucket/p")).__enter__(), *words)
    assert tempfile.gettempdir() not in message


def test_marks_of_empty_folders_are_passed_over_and_odd_names_come_through(steady: Steady) -> None:
    steady.gives(objects({"p/a/": b"", "p/a/ä b+%.txt": b"1", "p/-c;&.txt": b"2"}))
    with downloaded(Path("s3:/bucket/p")) as folder:
        found = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.txt")}
    assert found == {"a/ä b+%.txt": "1", "-c;&.txt": "2"}


def test_a_full_disk_names_the_temporary_folder(keyed: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving(objects({"p/a": b"1"})) as made:
        keyed.setenv("AWS_ENDPOINT_URL", made.endpoint)
        with keyed.context() as patched:
            patched.setattr(os, "pwrite", full)
            patched.setattr("data_tools.storage.transfer.FULL", 2**62)
            patched.setattr("data_tools.storage.transfer.cores", lambda: 1)
            says(lambda: downloaded(Path("s3:/bucket/p")).__enter__(), tempfile.gettempdir(), "No space", "TMPDIR")
        with (
            pytest.raises(UserError, match=r"s3://bucket/p/a: .* - give a file"),
            downloaded(Path("s3:/bucket/p")) as f,
        ):
            raise OSError(errno.EISDIR, "Is a directory", str(f / "a"))
        with pytest.raises(OSError, match="/other"), downloaded(Path("s3:/bucket/p")):
            raise OSError(errno.ENOSPC, "No space left on device", "/other")  # what the block writes is not ours


def test_uploaded_names_are_text(keyed: pytest.MonkeyPatch) -> None:
    with serving(small_store) as made:
        keyed.setenv("AWS_ENDPOINT_URL", made.endpoint)
        with uploaded(Path("s3:/bucket/p")) as folder:
            folder.mkdir()
            (folder / os.fsdecode(b"gr\xf6\xdfe.txt")).write_text("x")
    assert [unquote(path) for _, path, _ in made.asked] == [r"/bucket/p/gr\xf6\xdfe.txt"]


# ---- one trial ----


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"gamma": "0,0.0"}, "--gamma '0,0.0'"),
        ({"gamma": "0.01,1e-2"}, "--gamma"),
        ({"seed": "1,01"}, "--seed '1,01'"),
        ({"set": ("learning-rate=0.001,1e-3",)}, "learning-rate=0.001,1e-3 holds a value twice"),
        ({"set": ("width=8,08",)}, "width=8,08 holds a value twice"),
        ({"set": ("compile=true,True",)}, "compile=true,True holds a value twice"),
        ({"set": ("compile=yes,no",)}, "compile=yes is of another kind"),
    ],
)
def test_twice_gamma(changes: dict[str, Any], word: str, dataset: Path, tmp_path: Path) -> None:
    sweep = SweepConfig(data=str(dataset), out=str(tmp_path / "s"), preset="demo", cache=str(tmp_path / "c"))
    says(lambda: make_plan(dataclasses.replace(sweep, **changes)), word, within=30)


def test_trials_have_names_of_their_own(dataset: Path, tmp_path: Path) -> None:
    sweep = SweepConfig(
        data=str(dataset), out=str(tmp_path / "s"), preset="demo", cache=str(tmp_path / "c"),
        gamma="0,0.02,0.0200000001", set=("compile=true,false",),
    )  # fmt: skip
    trials = make_plan(sweep).trials
    assert len({trial.name for trial in trials}) == 6 and {trial.config.compile for trial in trials} == {True, False}
    names = {trial.name.partition("_")[2] for trial in trials}
    assert {"gamma-0_seed-0_compile-true", "gamma-0.02_seed-0_compile-false"} <= names
    assert lambda_values("0.05,0.050,paper").tolist() == [0.05]


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_head(command: str, dataset: Path) -> None:
    words = [sys.executable, "-m", "data_tools", command, str(dataset)]
    words += ["--out", str(dataset.parent / "sheets")] if command == "inspect" else []
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        process.stdout.close()  # before it has written a line, which `head` may or may not manage
        assert process.stderr.read() == "" and process.wait(60) in (141, 1)  # 1: tables are printed by rich


# ---- names of buckets ----


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
