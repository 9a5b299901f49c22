"""The review over HTTP: a page, its script, JSON and PNG, for whoever has the token that is in the page's address."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from data_tools.errors import UserError
from data_tools.text import readable
from data_tools.untrusted import parse_json
from trainer.report.pages import rendered
from trainer.review.session import MAX_ROWS, GoneError, Review
from trainer.review.views import View
from trainer.run.decisions import CHOICES

HERE = Path(__file__).parent
BODY_BYTES = 2**17
SCRIPT = "text/javascript; charset=utf-8"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
Answer = tuple[int, str, bytes]
Words = Mapping[str, str]


class ReviewServer(ThreadingHTTPServer):
    """Listens when it is made; `serve_forever` answers. UserError where the port is taken."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, review: Review, token: str, host: str, port: int) -> None:
        self.review, self.token, self.host = review, token, host
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"--port {port}: cannot listen at {host} ({reason}) - give another --port, or 0 for a free one"
            ) from None

    @property
    def address(self) -> str:
        """Of the page, with the token."""
        return f"http://{self.host}:{self.server_port}/?token={self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: ReviewServer  # type: ignore[assignment]

    def do_GET(self) -> None:
        self._answer(GET)

    def do_POST(self) -> None:
        self._answer(POST)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: addresses hold the token."""

    def _answer(self, routes: Mapping[str, Callable[[Review, Words, Any], Answer]]) -> None:
        url = urlsplit(self.path)
        words = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        try:
            body = self._body()
            if self.server.host in LOOPBACK and (self.headers["Host"] or "").rpartition(":")[0] not in LOOPBACK:
                status, kind, content = _error(HTTPStatus.FORBIDDEN, "another host's name leads here")
            elif url.path == "/review.js":
                status, kind, content = HTTPStatus.OK, SCRIPT, (HERE / "review.js").read_bytes()
            elif url.path not in routes:
                status, kind, content = _error(HTTPStatus.NOT_FOUND, "there is no such page")
            elif not hmac.compare_digest(words.get("token", "").encode(), self.server.token.encode()):
                status, kind, content = _error(HTTPStatus.FORBIDDEN, "open the address that the program printed")
            else:
                status, kind, content = routes[url.path](self.server.review, words, body)
        except GoneError:
            status, kind, content = _error(HTTPStatus.GONE, "the view is gone")
        except (UserError, ValueError, OverflowError) as error:
            status, kind, content = _error(HTTPStatus.BAD_REQUEST, f"{error}")
        except OSError as error:
            status, kind, content = _error(HTTPStatus.INTERNAL_SERVER_ERROR, f"{error}")
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _body(self) -> Any:
        if self.command != "POST":
            return None
        length = int(self.headers["Content-Length"] or 0)
        if not 0 < length <= BODY_BYTES or self.headers.get_content_type() != "application/json":
            self.close_connection = True
            raise ValueError(f"give 1 to {BODY_BYTES:,} bytes of application/json")
        return parse_json(self.rfile.read(length))


def _json(values: Any) -> Answer:
    return HTTPStatus.OK, "application/json", json.dumps(values).encode()


def _png(content: bytes) -> Answer:
    return HTTPStatus.OK, "image/png", content


def _error(status: HTTPStatus, text: str) -> Answer:
    return status, "application/json", json.dumps({"error": " ".join(text.split())}).encode()


def _number(words: Words, name: str, default: int | None = None) -> int:
    if name not in words and default is not None:
        return default
    try:
        return int(words[name])
    except (KeyError, ValueError):
        raise ValueError(f"{name}: is not a number") from None


def _view(review: Review, words: Words, body: Any) -> Answer:
    texts = {name: words[name] for name in ("by", "decided", "column", "value", "text") if name in words}
    return _json(review.view(View(group=_number(words, "group", -1), **texts)))


def _decide(review: Review, words: Words, body: Any) -> Answer:
    if not isinstance(body, dict) or not isinstance(body.get("images"), list) or body.get("decision") not in CHOICES:
        raise ValueError(f'give {{"images": [numbers, {MAX_ROWS} at most], "decision": one of {", ".join(CHOICES)}}}')
    return _json(review.decide(body["images"], body["decision"]))


def _some(words: Words) -> tuple[int, int, int]:
    return _number(words, "view"), _number(words, "first"), _number(words, "count")


GET: dict[str, Callable[[Review, Words, Any], Answer]] = {
    "/": lambda review, words, body: (HTTPStatus.OK, "text/html; charset=utf-8", _page(review)),
    "/start": lambda review, words, body: _json(review.start()),
    "/view": _view,
    "/rows": lambda review, words, body: _json(review.rows(*_some(words))),
    "/sheet": lambda review, words, body: _png(review.sheet(*_some(words))),
    "/detail": lambda review, words, body: _json(review.detail(_number(words, "i"))),
    "/picture": lambda review, words, body: _png(review.picture(_number(words, "i"), "heat" in words)),
    "/since": lambda review, words, body: _json(review.since(_number(words, "log"))),
}
POST: dict[str, Callable[[Review, Words, Any], Answer]] = {"/decide": _decide}


def _page(review: Review) -> bytes:
    return rendered(HERE / "review.html", run=readable(review.name)).encode("utf-8", "replace")


def served(review: Review, token: str, host: str = "127.0.0.1", port: int = 0) -> ReviewServer:
    """A server that answers in threads of its own until `shutdown`."""
    server = ReviewServer(review, token, host, port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
