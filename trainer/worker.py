"""Ray Train around the loop: the same training on N workers, on this machine or on a cluster."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from data_tools.errors import UserError
from trainer.config import TrainConfig
from trainer.loop import train

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def train_on_ray(config: TrainConfig) -> None:
    """Train with `config.workers` Ray Train workers: on the cluster of RAY_ADDRESS, else on one started here.

    The run folder must be a path that every node sees.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import WorkerGroupError

    run, cores = Path(config.out).resolve(), os.cpu_count() or 1
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=True)
    else:
        # One more CPU than workers, so that small machines can run them; threads are set in the worker.
        ray.init(num_cpus=max(cores, config.workers), include_dashboard=False, object_store_memory=100 * 2**20)
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
        raise _users_error(error) or error from None
    finally:
        ray.shutdown()
        shutil.rmtree(run / ".ray", ignore_errors=True)


def _users_error(error: Any) -> UserError | None:
    """What the user can mend, if that is what stopped a worker; Ray wraps it in the failure of its actor."""
    for failure in error.worker_failures.values():
        cause = failure
        while cause is not None:
            if isinstance(cause, UserError):
                return UserError(str(cause))
            cause = getattr(cause, "cause", None) or cause.__cause__
    return None


def _worker(values: dict[str, Any]) -> None:
    import ray.train
    import torch

    torch.set_num_threads(values.pop("threads"))
    train(TrainConfig.from_json(values), ray.train.report)
