"""Workers' process group on the network interface by which Ray's nodes reach one another, and on no other.

Gloo listens at the address that the host's name means, which on many systems is a loopback one; torch's rendezvous at
all addresses.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from typing import Any

import ray
from ray.train.torch import TorchConfig

from trainer.private import keep_rendezvous_to_its_address, torch_backend

SIOCGIFADDR = 0x8915  # Linux's number


class OnRaysInterface(TorchConfig):
    """As TorchConfig; where nothing else is set, Gloo takes the interface that has the address of Ray's node."""

    @property
    def backend_cls(self) -> Any:
        return _Backend


class _Backend(torch_backend()):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_use_rays_interface)
        worker_group.execute(keep_rendezvous_to_its_address)
        super().on_start(worker_group, backend_config)


def _use_rays_interface() -> None:
    if sys.platform != "linux" or "GLOO_SOCKET_IFNAME" in os.environ:
        return
    import fcntl

    address = ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # one without an IPv4 address
                answer = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(answer[20:24]) == address:
                    os.environ["GLOO_SOCKET_IFNAME"] = name
