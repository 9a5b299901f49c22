"""A Ray cluster to work on: the one of RAY_ADDRESS, or one started here."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

from data_tools.errors import UserError

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # Ray's default of 15 lets any other program on the machine starve a training
}


@contextlib.contextmanager
def ray_session(cpus: int) -> Iterator[None]:
    """Connect to the cluster of RAY_ADDRESS, or start one here, with as many CPUs as asked for at least."""
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    import ray

    # The run's own log is shown instead of everything that Ray's processes say; theirs stays in Ray's session folder.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if "RAY_ADDRESS" in os.environ:
        ray.init(**quiet)
    else:
        own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
        ray.init("local", num_cpus=max(os.cpu_count() or 1, cpus), **own, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


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
    return room("GPU") >= max(workers, 1)


def room(kind: str) -> int:
    """CPUs ("CPU") or GPUs ("GPU") that the cluster has, or may have where it grows with its work."""
    import ray

    from trainer.private import greatest_resources

    most = greatest_resources()
    return int(max(ray.cluster_resources().get(kind, 0), most.get(kind, 0)))
