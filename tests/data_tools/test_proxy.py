"""The fault-injecting proxy: what it passes, and each of its faults."""

from __future__ import annotations

import http.client
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from botocore.config import Config

from tests.support.proxy import FaultProxy

BODY = random.Random(0).randbytes(1_000_000)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    puts: list[bytes]
    hosts: list[str | None]

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        self.send_response(200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(BODY), 99_999):
                piece = BODY[start : start + 99_999]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path == "/to-the-end":
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(BODY)
        else:
            self.do_HEAD(began=True)
            self.wfile.write(BODY)

    def do_HEAD(self, began: bool = False) -> None:
        if not began:
            self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()

    def do_PUT(self) -> None:
        self.puts.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_DELETE(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is cut off is no news here."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Handler.puts, Handler.hosts = [], []
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: ThreadingHTTPServer) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.server_port) as proxy:
        yield proxy
    assert not any(thread.is_alive() for thread in proxy._threads)


def get(proxy: FaultProxy, path: str = "/", timeout: float = 5) -> bytes:
    with urllib.request.urlopen(proxy.endpoint + path, timeout=timeout) as response:
        return response.read()


def client(proxy: FaultProxy):
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, read_timeout=5)
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=proxy.endpoint, config=config, **keys)


def test_passes_bodies_of_every_framing(proxy: FaultProxy) -> None:
    for path in ("/", "/chunked", "/to-the-end"):
        assert get(proxy, path) == BODY
    assert set(Handler.hosts) == {f"127.0.0.1:{proxy.port}"}


def test_one_connection_serves_many_requests(proxy: FaultProxy) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
    for method, status, length in [("GET", 200, len(BODY)), ("HEAD", 200, 0), ("DELETE", 204, 0), ("PUT", 200, 0)] * 2:
        connection.request(method, "/", body=BODY if method == "PUT" else None)
        response = connection.getresponse()
        assert (response.status, len(response.read())) == (status, length)
    connection.request("GET", "/chunked")
    assert connection.getresponse().read() == BODY
    assert proxy.connections == 1 and Handler.puts == [BODY, BODY]


def test_boto3_puts_and_gets_on_one_connection(proxy: FaultProxy) -> None:
    s3 = client(proxy)
    start = time.monotonic()
    for _ in range(3):
        s3.put_object(Bucket="b", Key="k", Body=BODY)  # with Expect: 100-continue
        assert s3.get_object(Bucket="b", Key="k")["Body"].read() == BODY
    assert Handler.puts == [BODY] * 3 and proxy.connections == 1
    assert time.monotonic() - start < 2.5, "botocore waits a second for a 100 that does not come"


@pytest.mark.parametrize("path", ["/", "/chunked"])
def test_cut_resets_that_many_gets(proxy: FaultProxy, path: str) -> None:
    proxy.cut(3, after=(200_000, 700_000))
    lengths = set()
    for cuts in (1, 2, 3):
        response = urllib.request.urlopen(proxy.endpoint + path, timeout=5)
        data = b""
        with pytest.raises(ConnectionResetError):
            while piece := response.read1(10_000):
                data += piece
        assert BODY.startswith(data) and 199_000 < len(data) < 700_000 and proxy.cuts == cuts
        lengths.add(len(data))
    assert len(lengths) == 3
    assert get(proxy, path) == BODY and proxy.cuts == 3


def test_cut_leaves_short_bodies_and_other_methods_alone(proxy: FaultProxy) -> None:
    proxy.cut(1, after=(len(BODY), len(BODY) + 1))
    assert get(proxy) == BODY and proxy.cuts == 0
    proxy.cut(1, after=(0, 1))
    client(proxy).put_object(Bucket="b", Key="k", Body=b"x")
    assert proxy.cuts == 0
    with pytest.raises(OSError):
        get(proxy)
    assert proxy.cuts == 1


def test_cuts_are_counted_once_among_many_connections(proxy: FaultProxy) -> None:
    def try_get(_: int) -> bool:
        try:
            return get(proxy) == BODY
        except (OSError, http.client.HTTPException):
            return False

    proxy.cut(5, after=(0, 500_000))
    with ThreadPoolExecutor(6) as pool:
        passed = list(pool.map(try_get, range(30)))
    assert proxy.cuts == 5 and passed.count(False) == 5 and proxy.connections == 30


def test_refuse_answers_for_the_server(proxy: FaultProxy) -> None:
    proxy.refuse(2)
    s3 = client(proxy)
    with pytest.raises(s3.exceptions.ClientError, match=r"SlowDown.*Please reduce your request rate\."):
        s3.put_object(Bucket="b", Key="k", Body=BODY)
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(proxy)
    assert (caught.value.code, caught.value.reason) == (503, "Slow Down")
    assert caught.value.headers["Content-Type"] == "application/xml"
    assert proxy.refusals == 2 and not Handler.puts and not Handler.hosts
    assert get(proxy) == BODY and proxy.refusals == 2
    proxy.refuse(1, 500, "InternalError")
    with pytest.raises(s3.exceptions.ClientError, match="InternalError"):
        s3.get_object(Bucket="b", Key="k")
    proxy.refuse(1)
    with pytest.raises(s3.exceptions.ClientError, match="503"):
        s3.head_object(Bucket="b", Key="k")


def test_slow_is_slow_until_told_otherwise(proxy: FaultProxy) -> None:
    proxy.slow(2_000_000)
    start = time.monotonic()
    assert get(proxy) == BODY
    assert 0.45 < time.monotonic() - start < 3
    proxy.slow(None)
    start = time.monotonic()
    assert get(proxy) == BODY
    assert time.monotonic() - start < 0.4


def test_hang_is_silent_until_the_client_gives_up(proxy: FaultProxy) -> None:
    proxy.hang(1)
    with pytest.raises(TimeoutError):
        get(proxy, timeout=0.3)
    assert get(proxy) == BODY and len(Handler.hosts) == 1


def test_closes_at_once_when_the_server_is_down(server: ThreadingHTTPServer, proxy: FaultProxy) -> None:
    server.socket.close()
    start = time.monotonic()
    with pytest.raises((http.client.RemoteDisconnected, urllib.error.URLError)):
        get(proxy)
    assert time.monotonic() - start < 1


def test_leaving_ends_what_hangs(server: ThreadingHTTPServer) -> None:
    with FaultProxy("127.0.0.1", server.server_port) as proxy:
        proxy.hang(1)
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
        connection.request("GET", "/")
        time.sleep(0.1)
    with pytest.raises(OSError):
        connection.getresponse()
