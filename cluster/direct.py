"""A service of one replica on this machine, which answers its clients itself.

Ray Serve's proxy takes 3 ms of processor time for a request, and the replica 4 more to talk with it: on two cores that
is a limit of 180 requests/s before anything is scored. Ray can have replicas listen themselves ("direct ingress", made
for load balancers in front of them); one replica needs no balancer. On a cluster, and with several replicas, the proxy
stays.
"""

from __future__ import annotations

import errno
import os
import socket

from cluster.store import free_ports
from data_tools.errors import UserError


def listen_directly(host: str, port: int) -> int:
    """Have the Ray that is started next let its replica listen on a port; return one for the proxy, which nobody needs.

    UserError where the port is taken.
    """
    check_free(host, port)
    os.environ.update(
        {
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # direct ingress; user code in the replica's own event loop
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(port),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(port + 1),  # this one itself is never taken
            "RAY_SERVE_PORT_QUARANTINE_S": "0",  # a replica that died is replaced at the same port at once
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",  # no balancer has to hear of the end first
        }
    )
    return free_ports(1)[0]


def check_free(host: str, port: int) -> None:
    """UserError where nothing can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OverflowError:
            raise UserError(f"--port {port}: is no port - give one from 1 to 65535") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(f"--port {port}: is taken by another program - give another port") from None
            raise UserError(f"--host {host} --port {port}: {error.strerror or error} - give what is free") from None
