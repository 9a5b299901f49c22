"""A service of one replica on this machine, which answers its clients itself.

Ray Serve's proxy takes 3 ms of processor time for a request, and the replica 4 more to talk with it: on two cores that
is a limit of 180 requests/s before anything is scored. Ray can have replicas listen themselves ("direct ingress", made
for load balancers in front of them); one replica needs no balancer. On a cluster, and with several replicas, the proxy
stays.
"""

from __future__ import annotations

import os

from cluster.ports import free_ports


def listen_directly(port: int) -> int:
    """Have the Ray that is started next let its replica listen on a port; return one for the idle proxy."""
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
