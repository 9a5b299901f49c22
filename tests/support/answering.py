"""A small server that says what it is told to, as other people's stores and clusters do."""

from __future__ import annotations

import email.utils
import http.server
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from data_tools.errors import UserError

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


def small_store(method: str, path: str, number: int) -> Answer:
    return EMPTY if method == "GET" else Answer(200, "", {"ETag": '"1"'})


def credential(headers: dict[str, str]) -> tuple[str, str]:
    """The access key and the region of a signed request; empty for an unsigned one."""
    signed = headers.get("authorization", "")
    parts = signed.partition("Credential=")[2].split("/")
    return (parts[0], parts[2]) if len(parts) > 2 else ("", "")
