"""A TCP proxy that breaks HTTP on purpose: tests put it between a client and a real server on loopback."""

from __future__ import annotations

import contextlib
import fcntl
import random
import re
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from email.parser import BytesHeaderParser

MESSAGES = {"SlowDown": "Please reduce your request rate."}


class _Stream:
    """A socket with a buffer: takes bytes off it a head, a body or a piece at a time."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.buffer, self.sendall = sock, b"", sock.sendall
        self.midway = False

    def until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`; EOFError if the peer closes before."""
        while mark not in self.buffer:
            if not (data := self.sock.recv(65536)):
                raise EOFError
            self.buffer += data
        data, found, self.buffer = self.buffer.partition(mark)
        return data + found

    def some(self, most: int = 65536) -> bytes:
        """1 to `most` bytes, or none at the end of the stream."""
        data = self.buffer or self.sock.recv(most)
        self.buffer = data[most:]
        return data[:most]

    def head(self) -> tuple[bytes, list[str], Message]:
        """A request's or response's head: its bytes, the words of its first line, its fields."""
        data = self.until(b"\r\n\r\n")
        first, _, fields = data.partition(b"\r\n")
        return data, first.decode("latin-1").split(), BytesHeaderParser().parsebytes(fields)

    def body(self, fields: Message, otherwise: Iterator[bytes]) -> Iterator[bytes]:
        """The body after a head, verbatim; `otherwise` where the head does not give its length.

        `midway` tells whether some of it is still to come.
        """
        chunked = "chunked" in fields.get("Transfer-Encoding", "").lower()
        length = fields.get("Content-Length")
        self.midway = chunked or int(length or 0) > 0
        return self._chunks() if chunked else otherwise if length is None else self._counted(int(length))

    def _counted(self, length: int, last: bool = True) -> Iterator[bytes]:
        while length:
            if not (piece := self.some(min(length, 65536))):
                raise EOFError
            length -= len(piece)
            self.midway = length > 0 or not last
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        size, line = 1, b""
        while size:
            yield (line := self.until(b"\r\n"))
            size = int(line.split(b";")[0], 16)
            yield from self._counted(size + 2 if size else 0, last=False)
        while line != b"\r\n":  # trailers
            line = self.until(b"\r\n")
            self.midway = line != b"\r\n"
            yield line


def _wait(*streams: _Stream) -> _Stream:
    """The first of the streams that can be read (or has ended)."""
    ready = [stream for stream in streams if stream.buffer]
    ready = ready or select.select([stream.sock for stream in streams], [], [])[0]
    return next(stream for stream in streams if stream in ready or stream.sock in ready)


class FaultProxy:
    """Forwards HTTP on 127.0.0.1:`port` to `host`:`port`, every byte as it is, with the faults asked for.

    Counts its `connections`, the responses it has cut (`cuts`) and the requests it has refused (`refusals`).
    Faults wait for the requests that come next; a request that meets several is refused first, then hangs.
    """

    def __init__(self, host: str, port: int, seed: int = 0) -> None:
        self._server, self._random = (host, port), random.Random(seed)
        self.cuts = self.refusals = self.connections = 0
        self._left = {"cut": 0, "refuse": 0, "hang": 0}
        self._after, self._refusal = (0, 1), b""
        self._rate: float | None = None
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FaultProxy:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with self._lock:
            for sock in [self._listener, *self._open]:
                _shut(sock)  # close alone would not wake a thread that waits for it
        for thread in list(self._threads):
            thread.join(5)
        self._listener.close()

    def cut(self, times: int, after: tuple[int, int]) -> None:
        """Reset the next `times` GETs after a random number of body bytes, `after[0]` to below `after[1]`.

        A body no longer than the number drawn for it passes whole and leaves `times` as it is.
        """
        with self._lock:
            self._left["cut"], self._after = times, after

    def refuse(self, times: int, code: int = 503, name: str = "SlowDown") -> None:
        """Answer the next `times` requests with an S3 error; the server does not see them."""
        reason = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
        text = '<?xml version="1.0" encoding="UTF-8"?>\n'
        text += f"<Error><Code>{name}</Code><Message>{MESSAGES.get(name, reason)}</Message></Error>"
        head = f"HTTP/1.1 {code} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n"
        with self._lock:
            self._left["refuse"], self._refusal = times, f"{head}Connection: close\r\n\r\n{text}".encode()

    def hang(self, times: int) -> None:
        """Leave the next `times` requests without an answer until the client gives up."""
        with self._lock:
            self._left["hang"] = times

    def slow(self, bytes_per_second: float | None) -> None:
        """Let bodies through at most this fast, each connection and direction by itself; None: at full speed."""
        self._rate = bytes_per_second

    def _take(self, fault: str, counter: str | None = None) -> bool:
        with self._lock:
            taken = self._left[fault] > 0
            self._left[fault] -= taken
            if counter:
                setattr(self, counter, getattr(self, counter) + taken)
            return taken

    def _start(self, target: Callable[..., None], *args: socket.socket) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _add(self, sock: socket.socket) -> _Stream:
        with self._lock:
            self._open.add(sock)
        if self._stop.is_set():
            raise EOFError
        return _Stream(sock)

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                sock = self._listener.accept()[0]
            except OSError:
                self._stop.wait(0.01)
                continue
            self.connections += 1
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        mine = [sock]
        try:
            client, server = self._add(sock), None
            while server is None or _wait(server, client) is client:  # else the server has closed an idle connection
                head, words, fields = client.head()
                if self._take("refuse", "refusals"):
                    return self._refuse(client, words[0], fields)
                if self._take("hang"):
                    while client.some():
                        pass
                    return
                if server is None:
                    mine.append(socket.create_connection(self._server, timeout=10))
                    mine[1].settimeout(None)
                    server = self._add(mine[1])
                server.sendall(head)
                if not self._exchange(client, server, words[0], client.body(fields, iter(()))):
                    return
        except (OSError, EOFError):
            pass  # one side has gone, so the other goes too
        finally:
            with self._lock:
                self._open.difference_update(mine)
                for sock in mine:
                    sock.close()

    def _exchange(self, client: _Stream, server: _Stream, method: str, request: Iterator[bytes]) -> bool:
        """Forward a request's body and its response; False where the connections cannot be used again."""
        status = 100
        while status < 200:
            # The server may answer before it has the whole body: "100 Continue", or an error.
            while client.midway and _wait(server, client) is client:
                self._throttled(server, next(request))
            head, words, fields = server.head()
            client.sendall(head)
            status = int(words[1])
        if method == "HEAD" or status in (204, 304):
            return not client.midway
        with self._lock:
            cut = self._random.randrange(*self._after) if method == "GET" and self._left["cut"] else None
        for piece in server.body(fields, iter(server.some, b"")):
            if cut is not None and len(piece) > cut:
                if self._take("cut", "cuts"):
                    self._throttled(client, piece[:cut])
                    return _reset(client, server)
                cut = None  # other connections have used up the cuts
            self._throttled(client, piece)
            cut = None if cut is None else cut - len(piece)
        return not client.midway

    def _throttled(self, to: _Stream, data: bytes) -> None:
        while data:
            rate = self._rate
            part = data[: max(1, int(rate / 20))] if rate else data
            to.sendall(part)
            if rate and self._stop.wait(len(part) / rate):
                raise EOFError
            data = data[len(part) :]

    def _refuse(self, client: _Stream, method: str, fields: Message) -> None:
        if "Expect" not in fields:  # else the client waits, and keeps its body for itself
            for _ in client.body(fields, iter(())):
                pass
        head, end, text = self._refusal.partition(b"\r\n\r\n")
        client.sendall(head + end + (b"" if method == "HEAD" else text))
        client.sock.shutdown(socket.SHUT_WR)
        client.sock.settimeout(1)
        while client.some():  # closing on unread bytes would reset the connection, and the answer with it
            pass


def _reset(client: _Stream, server: _Stream) -> bool:
    """Prepare both sockets to be closed by a reset, once the client's kernel has what was sent."""
    end = time.monotonic() + 1
    while fcntl.ioctl(client.sock, termios.TIOCOUTQ, b"\0" * 4) != b"\0" * 4 and time.monotonic() < end:
        time.sleep(0.001)
    for stream in (client, server):
        stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
