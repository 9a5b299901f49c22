"""A Ray cluster on this machine, with dashboard, token, S3 store and TensorBoard: one process holds all of it.

That process keeps the folder's lock while it lives, and everything it started ends with it. Others find the cluster
by the folder's state.json. All ports are loopback ports.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
from filelock import FileLock, Timeout

from cluster.children import child
from cluster.local_state import LOCK, STATE, LocalState
from cluster.ports import free_ports
from cluster.store import OVERRIDES, LocalStore, local_store
from data_tools.errors import UserError
from trainer.on_ray.own_node import check_open_files, short_folder
from trainer.on_ray.session import ENVIRONMENT

TOKEN, EXPORTS = "token", "environment.sh"
READY_SECONDS, BUSY_SECONDS = 120.0, 1.0
"""BUSY_SECONDS: who looks whether a cluster runs holds the lock for a moment."""
USUAL_PORTS = (8265, 6006)
"""Of Ray's dashboard and of TensorBoard; where somebody else has them, others are taken."""


@dataclass(frozen=True)
class LocalConfig:
    """What `local_cluster` starts."""

    folder: Path
    nodes: int
    cpus: int  # of each node
    object_store: int  # bytes, of each node


Parts = list[tuple[subprocess.Popen[Any], Path]]
"""Processes, each with its log."""


@contextmanager
def local_cluster(config: LocalConfig) -> Iterator[Parts]:
    """A cluster, by its processes, that runs until the block ends or this process dies. Enter from the main thread.

    Errors: UserError where Ray's dashboard is not installed, a cluster runs on the folder, or a part does not start.
    """
    check_open_files()
    folder = config.folder.expanduser().resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(folder / LOCK, timeout=BUSY_SECONDS))
        except Timeout:
            raise UserError(f"{folder}: a cluster runs there - python -m cluster down --folder {folder}") from None
        (folder / STATE).unlink(missing_ok=True)  # of one that was killed
        place = stack.enter_context(_linked_folder(folder / "ray"))
        family = stack.enter_context(_ended_afterwards())
        store = stack.enter_context(local_store(folder / "store"))
        gcs, *others = free_ports(3)
        dashboard, tensorboard = (usual if _free(usual) else other for usual, other in zip(USUAL_PORTS, others))
        environment = _environment(folder, store) | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
        state = LocalState(
            dashboard=environment["RAY_API_SERVER_ADDRESS"],
            ray=f"127.0.0.1:{gcs}",
            tensorboard=f"http://127.0.0.1:{tensorboard}",
            store=store.url,
            environment=environment,
            pid=os.getpid(),
        )
        ours = store.child_environment() | environment
        ours["PATH"] = f"{Path(sys.executable).parent}:{ours.get('PATH', os.defpath)}"  # a job's python is this one
        parts: Parts = []

        def start(name: str, words: list[str], ready: Callable[[], bool]) -> None:
            log = folder / f"{name}.log"
            parts.append((stack.enter_context(child(words, log, ours)), log))
            _wait(ready, parts)

        try:
            start("ray-0", _head_words(config, gcs, dashboard, place), lambda: _alive(state) == 1)
            for number in range(1, config.nodes):
                start(f"ray-{number}", _further_words(config, state), lambda: _alive(state) == len(parts))
            words = [_program("tensorboard"), "--logdir", f"{store.url}/runs", "--port", str(tensorboard)]
            ready = f"{state.tensorboard}/data/logdir"
            start("tensorboard", [*words, "--host", "127.0.0.1"], lambda: requests.get(ready, timeout=5).ok)
            (folder / EXPORTS).write_text(_exports(environment), encoding="utf-8")
            stack.callback((folder / STATE).unlink, missing_ok=True)
            staged = folder / f".{STATE}"
            staged.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
            staged.replace(folder / STATE)
            yield parts
        finally:
            family += psutil.Process().children(recursive=True)


@contextmanager
def _linked_folder(link: Path) -> Iterator[str]:
    """A folder with a short path, since Ray puts sockets into it; `link` shows where."""
    link.unlink(missing_ok=True)  # of one that was killed
    with short_folder() as place:
        link.symlink_to(place)
        try:
            yield str(place)
        finally:
            link.unlink(missing_ok=True)


@contextmanager
def _ended_afterwards() -> Iterator[list[psutil.Process]]:
    """Processes that are ended as the block is left, where they are not by then: agents of Ray's outlive their node."""
    family: list[psutil.Process] = []
    try:
        yield family
    finally:
        _, alive = psutil.wait_procs(family, timeout=2)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=5)


def hold(config: LocalConfig) -> None:
    """Run a cluster until SIGTERM or Ctrl-C, or until a part of it ends (UserError)."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with local_cluster(config) as parts:
            while True:
                _check(parts)
                time.sleep(1)
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _exports(environment: dict[str, str]) -> str:
    """For a shell: what makes ray, aws and our commands use this cluster."""
    overrides = [name for name in os.environ if re.fullmatch(OVERRIDES, name)]
    unset = f"unset {' '.join(overrides)}\n" if overrides else ""
    return unset + "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())


def _environment(folder: Path, store: LocalStore) -> dict[str, str]:
    """What a process needs to use the cluster and its store; where keys are, not what they are."""
    path = folder / TOKEN
    if not path.exists():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32))
    alone = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # what keeps Ray's servers to loopback addresses
    return {**alone, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path), **ENVIRONMENT, **store.environment}


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _head_words(config: LocalConfig, gcs: int, dashboard: int, place: str) -> list[str]:
    ports = [f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    more = ["--include-dashboard=true", f"--temp-dir={place}", f"--ray-client-server-port={free_ports(1)[0]}"]
    return [_program("ray"), "start", "--head", *ports, *more, *_node_words(config)]


def _further_words(config: LocalConfig, state: LocalState) -> list[str]:
    return [sys.executable, "-m", "cluster.loopback_node", "start", f"--address={state.ray}", *_node_words(config)]


def _node_words(config: LocalConfig) -> list[str]:
    agent, metrics = free_ports(2)
    sizes = [f"--num-cpus={config.cpus}", f"--object-store-memory={config.object_store}"]
    ports = [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
    return ["--block", "--node-ip-address=127.0.0.1", *sizes, *ports]


def _alive(state: LocalState) -> int:
    """Nodes that the dashboard knows to be alive."""
    token = Path(state.environment["RAY_AUTH_TOKEN_PATH"]).read_text(encoding="utf-8").strip()
    answer = requests.get(
        f"{state.dashboard}/nodes?view=summary", headers={"Authorization": f"Bearer {token}"}, timeout=5
    )
    answer.raise_for_status()
    return sum(node["raylet"].get("state") == "ALIVE" for node in answer.json()["data"]["summary"])


def _check(parts: Parts) -> None:
    """UserError where one has ended."""
    for process, log in parts:
        if process.poll() is not None:
            raise UserError(f"{log}: says why a part of the cluster ended with status {process.returncode} - see there")


def _wait(ready: Callable[[], bool], parts: Parts) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        _check(parts)
        try:
            if ready():
                return
        except (requests.RequestException, KeyError, ValueError):
            pass  # not yet
        time.sleep(0.3)
    raise UserError(f"{parts[-1][1]}: a part of the cluster is not ready after {READY_SECONDS:.0f} s - see there")
