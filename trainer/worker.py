"""Ray Train around the loop: the same training on N workers, on this machine or on a cluster."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from data_tools.errors import UserError
from trainer.config import TrainConfig
from trainer.loop import train
from trainer.monitor import LOG

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # Ray's default of 15 lets any other program on the machine starve a training
}


def train_on_ray(config: TrainConfig) -> None:
    """Train with `config.workers` Ray Train workers: on the cluster of RAY_ADDRESS, else on one started here.

    The run folder must be a path that every node sees. Raises UserError when that is what stopped a worker.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import WorkerGroupError

    run, cores = Path(config.out).resolve(), os.cpu_count() or 1
    # The run's own log is shown instead of everything that Ray's processes say; theirs stays in Ray's session folder.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if "RAY_ADDRESS" in os.environ:
        ray.init(**quiet)
    else:
        # As many CPUs as workers at least, so that small machines can run them; threads are set in the worker.
        ray.init(num_cpus=max(cores, config.workers), include_dashboard=False, object_store_memory=100 * 2**20, **quiet)
    over = threading.Event()
    follower = threading.Thread(target=_follow, args=(run / LOG, over), daemon=True)
    follower.start()
    try:
        use_gpu = ray.cluster_resources().get("GPU", 0) >= config.workers
        trainer = TorchTrainer(
            _worker,
            train_loop_config={**config.to_json(), "out": str(run), "threads": max(cores // config.workers, 1)},
            scaling_config=ScalingConfig(num_workers=config.workers, use_gpu=use_gpu),
            run_config=RunConfig(name=".ray", storage_path=str(run)),
        )
        trainer.fit()
    except WorkerGroupError as error:
        raise _own_error(error) or error from None
    finally:
        over.set()
        follower.join()
        ray.shutdown()
        shutil.rmtree(run / ".ray", ignore_errors=True)


def _worker(values: dict[str, Any]) -> None:
    import ray.train
    import torch

    torch.set_num_threads(values.pop("threads"))
    train(TrainConfig.from_json(values), ray.train.report)


def _follow(log: Path, over: threading.Event) -> None:
    """Print what is added to the run's log, until all is over."""
    place = log.stat().st_size if log.exists() else 0
    last = False
    while not last:
        last = over.wait(0.5)
        if log.exists():
            with log.open() as file:
                file.seek(place)
                print(file.read(), end="", flush=True)
                place = file.tell()


def _own_error(error: Any) -> UserError | OSError | None:
    """What the user can mend, if that is what stopped a worker; Ray wraps it in the failure of its actor."""
    for failure in error.worker_failures.values():
        cause = failure
        while cause is not None:
            if isinstance(cause, UserError | OSError):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    return None
