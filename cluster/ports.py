"""Ports to listen on."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from data_tools.errors import UserError, describe


def free_ports(count: int) -> tuple[int, ...]:
    """Loopback ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]  # all open at once, so all differ
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname()[1] for each in sockets)


def check_free(host: str, port: int) -> None:
    """UserError where nothing can listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OverflowError:
            raise UserError(f"--port {port}: is no port - give one from 1 to 65535") from None
        except OSError as error:
            raise UserError(f"--host {host} --port {port}: {describe(error)}") from None
