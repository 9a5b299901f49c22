"""Ray Train around the loop: the same training on N workers, on this machine or on a cluster."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from data_tools.errors import UserError
from trainer.config import TrainConfig
from trainer.loop import Surroundings, train

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # Ray's default of 15 lets any other program on the machine starve a training
}
ATTEMPTS = 5
"""Failures at the same count of images after which a run stops: starting it again is no help."""


class Desk:
    """A Ray actor through which the workers talk to the program that started them, wherever they run."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.verdict: Exception | None = None  # why starting again is no help
        self.last_failure = ""
        self.begun_at, self.attempts = -1, 0

    def hear(self, line: str) -> None:
        self.lines.append(line)

    def read(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines

    def begun(self, images_seen: int) -> None:
        self.attempts = self.attempts + 1 if images_seen == self.begun_at else 1
        self.begun_at = images_seen

    def failed(self, error: Exception, for_good: bool) -> None:
        self.last_failure = str(error).splitlines()[0] if str(error) else type(error).__name__
        if for_good:
            self.verdict = error

    def judged(self) -> Exception | None:
        if self.verdict is None and self.attempts > ATTEMPTS:
            self.verdict = UserError(
                f"workers stopped {ATTEMPTS} times in a row after {self.begun_at:,} images"
                f" ({self.last_failure or 'killed without a word'}) - look for memory or hardware that is short"
            )
        return self.verdict


def train_on_ray(config: TrainConfig) -> None:
    """Train with Ray Train workers: on the cluster of RAY_ADDRESS, else on one started here.

    Workers that fail or go with their node are started again, from the newest checkpoint. Raises UserError when that
    is no help.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    cores, (fewest, most) = os.cpu_count() or 1, config.worker_range()
    # The run's own log is shown instead of everything that Ray's processes say; theirs stays in Ray's session folder.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if "RAY_ADDRESS" in os.environ:
        ray.init(**quiet)
    else:
        # As many CPUs as workers at least, so that small machines can run them; threads are set in the worker.
        ray.init(num_cpus=max(cores, most), include_dashboard=False, object_store_memory=100 * 2**20, **quiet)
    desk: Any = ray.remote(num_cpus=0)(Desk).remote()
    over = threading.Event()
    follower = threading.Thread(target=_follow, args=(desk, over), daemon=True)
    follower.start()
    try:
        with tempfile.TemporaryDirectory(prefix="stratagan-ray-") as place:  # Ray's notes; the run has its own
            trainer = TorchTrainer(
                _worker,
                train_loop_config={"config": config.to_json(), "threads": max(cores // most, 1), "desk": desk},
                torch_config=TorchConfig(timeout_s=int(config.patience)),
                scaling_config=ScalingConfig(
                    num_workers=most if fewest == most else (fewest, most),
                    use_gpu=ray.cluster_resources().get("GPU", 0) >= fewest,
                    elastic_resize_monitor_interval_s=float(os.environ.get("STRATAGAN_RESIZE_S", 60)),
                ),
                run_config=RunConfig(name="run", storage_path=place, failure_config=FailureConfig(max_failures=-1)),
            )
            trainer.fit()
        verdict: Any = ray.get(desk.judged.remote())
        if verdict:
            raise verdict
    finally:
        over.set()
        follower.join()
        ray.shutdown()


def _worker(values: dict[str, Any]) -> None:
    import ray
    import ray.train
    import torch

    desk, config = values["desk"], TrainConfig.from_json(values["config"])
    if ray.get(desk.judged.remote()):
        return
    torch.set_num_threads(values["threads"])
    first = ray.train.get_context().get_world_rank() == 0
    around = Surroundings(
        report=ray.train.report,
        hear=lambda line: desk.hear.remote(line),
        begun=lambda images_seen: ray.get(desk.begun.remote(images_seen)) if first else None,
        ending_soon=_preemption_watch(),
        node=ray.util.get_node_ip_address(),
    )
    try:
        train(config, around)
    except Exception as error:
        ray.get(desk.failed.remote(error, isinstance(error, UserError)))
        raise


def _preemption_watch() -> Callable[[], bool]:
    """Whether Ray has announced that a node of ours goes, once for each announcement; waits for all workers."""
    from ray.train import get_preemption_info

    known: set[str] = set()

    def new_announcement() -> bool:
        info = get_preemption_info()
        nodes = set(info.preempted_node_ids) if info else set()
        new = bool(nodes - known)
        known.update(nodes)
        return new

    return new_announcement


def _follow(desk: Any, over: threading.Event) -> None:
    """Print what the workers say, until all is over."""
    import ray

    last = False
    while not last:
        last = over.wait(0.5)
        for line in ray.get(desk.read.remote()):
            print(line, flush=True)
