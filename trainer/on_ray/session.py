"""A Ray cluster to work on: the one of RAY_ADDRESS, or one started here."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from data_tools.errors import UserError
from trainer.on_ray.address import check_cluster, cluster_address, refused
from trainer.on_ray.own_node import OBJECTS, check_open_files, short_folder

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # Ray's default of 15 lets any other program on the machine starve a training run
}
WORKER_STARTS = 60.0
"""Seconds in which a process of Ray's that is started here has to answer."""
TERMINATED = 128 + signal.SIGTERM
"""The exit status of a program that SIGTERM ended."""

# The run's own log is shown instead of everything that Ray's processes say; theirs is in Ray's session folder.
QUIET_SECONDS: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


@contextlib.contextmanager
def ray_session(cpus: int) -> Iterator[None]:
    """Connect to the cluster of RAY_ADDRESS, or start one here, with as many CPUs as asked for at least.

    One that is started here listens on loopback alone. SIGTERM ends the block by SystemExit.
    UserError, within a minute or so, where there is no such cluster, or Ray cannot be started here.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    address = cluster_address()
    check_open_files()
    with _joined(address) if address else _started(cpus):
        yield


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray

    check_cluster(address)
    try:
        ray.init(address, **QUIET_SECONDS)
    except (ConnectionError, RuntimeError, ValueError) as error:
        ray.shutdown()
        raise refused(address, str(error.__cause__ or error)) from error
    try:
        with _ended_by_sigterm():
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _started(cpus: int) -> Iterator[None]:
    import ray

    from trainer.private import loopback_alone

    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECTS}
    with short_folder() as place, loopback_alone():
        try:
            try:
                ray.init("local", num_cpus=max(os.cpu_count() or 1, cpus), _temp_dir=str(place), **own, **QUIET_SECONDS)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise _not_started(place, " ".join(str(error).split())[:200]) from error
            with _ended_by_sigterm():
                _check_a_worker_starts(place)
                yield
        finally:
            ray.shutdown()


def _check_a_worker_starts(place: object) -> None:
    """Ray itself would start one process after another for ever."""
    import ray
    from ray.exceptions import RayError

    def answer() -> None: ...

    try:
        ray.get(ray.remote(num_cpus=0)(answer).remote(), timeout=WORKER_STARTS)
    except RayError as error:
        raise _not_started(place, f"no worker process answers: {type(error).__name__}") from error


def _not_started(place: object, reason: str) -> UserError:
    return UserError(f"Ray does not start on this machine ({reason}) - its logs are in {place}/session_latest/logs")


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block in an orderly way; Ray's own answer is to abort with a trace of its C++ code."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = threading.Event()

    def take(*_: object) -> None:
        told.set()
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, take)
    try:
        yield
    except SystemExit:  # which Ray's C++ makes one of status 1
        if not told.is_set():
            raise
        print("terminated", file=sys.stderr)
        raise SystemExit(TERMINATED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def on_a_worker(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns on one worker, with a GPU where the cluster has any; its UserError is raised here."""
    import ray
    from ray.exceptions import RayTaskError

    remote = ray.remote(num_cpus=1, num_gpus=1 if has_gpus(1) else 0)(function)
    try:
        return ray.get(remote.remote(*args))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise


def has_gpus(workers: int) -> bool:
    """Whether the cluster has a GPU for each worker, or gets them when they are asked for."""
    return available("GPU") >= max(workers, 1)


def available(kind: str) -> int:
    """CPUs ("CPU") or GPUs ("GPU") that the cluster has, or may have where it grows with its work."""
    import ray

    from trainer.private import greatest_resources

    most = greatest_resources()
    return int(max(ray.cluster_resources().get(kind, 0), most.get(kind, 0)))
