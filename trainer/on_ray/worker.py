"""Ray Train around the loop: the same training run on N workers, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_tools.errors import TakenOverError, UnreachableError, UserError
from trainer.config import TrainConfig
from trainer.on_ray.session import TERMINATED, has_gpus, ray_session
from trainer.on_ray.supervisor import ATTEMPTS, followed, new_supervisor
from trainer.training.loop import Hooks, train

RESIZED_EVERY = 30.0
"""Seconds between two looks whether more workers can be placed, where their number is a range."""
VISITED_EVERY = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25"
"""Seconds between two visits of Ray's controller, which takes what workers report, one report a visit. Ray's default of
2 holds up a worker that reports more often: small training runs stood still for some 40 % of their time."""
STOP_ASKED_EVERY = 4
"""Steps between two questions whether the program that started the workers has been told to end."""


def train_on_ray(config: TrainConfig) -> None:
    """Train with Ray Train workers: on the cluster of RAY_ADDRESS, else on one started here.

    Raises what `ray_session` and `fit_on_ray` do, and SystemExit after SIGTERM, which is answered by a checkpoint.
    """
    _, most = config.worker_range()
    # As many CPUs as workers at least, so that small machines can run them.
    with ray_session(most), _sigterm_once() as terminated:
        threads = max((os.cpu_count() or 1) // most, 1)
        fit_on_ray(config, threads, log=lambda line: print(line, flush=True), terminated=terminated)
        if terminated.is_set():
            sys.exit(TERMINATED)


@contextlib.contextmanager
def _sigterm_once() -> Iterator[threading.Event]:
    """Set by the first SIGTERM, by which machines announce that they go; a second one ends the program."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def take(*_: object) -> None:
        if told.is_set():
            sys.exit(TERMINATED)
        told.set()

    before = signal.signal(signal.SIGTERM, take)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


def fit_on_ray(
    config: TrainConfig,
    threads: int,
    log: Callable[[str], None],
    cpus: int = 1,
    callbacks: Sequence[Any] = (),
    hold_placement_group: Callable[[Any], None] = lambda placement_group: None,
    terminated: threading.Event | None = None,
) -> None:
    """Train with Ray Train workers, from within a Ray program.

    threads: of each worker. log: is told what the workers say, from a thread. cpus: to claim for each worker.
    callbacks: of Ray Train. hold_placement_group: the first worker calls it with the placement group they run in.
    terminated: set once workers shall save and leave. Workers that fail or go with their node are started again, from
    the newest checkpoint. Raises UserError when that is no help.
    """
    import ray

    supervisor = new_supervisor()
    with followed(supervisor, log, config.workers, terminated):
        _fit(config, supervisor, threads, cpus, list(callbacks), hold_placement_group)
        verdict: Any = ray.get(supervisor.final_error.remote())
        if verdict:
            raise verdict


def _fit(
    config: TrainConfig,
    supervisor: Any,
    threads: int,
    cpus: int,
    callbacks: list[Any],
    hold_placement_group: Callable[[Any], None],
) -> None:
    """Train to the end, or to where the supervisor has judged."""
    import ray
    from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from trainer.on_ray.network import OnRaysInterface

    os.environ.setdefault(*VISITED_EVERY)
    fewest, most = config.worker_range()
    gpu = has_gpus(fewest)
    scaling = ScalingConfig(
        num_workers=most if fewest == most else (fewest, most),
        use_gpu=gpu,
        resources_per_worker={"CPU": cpus} | ({"GPU": 1} if gpu else {}),
        elastic_resize_monitor_interval_s=RESIZED_EVERY,
    )
    for attempt in range(ATTEMPTS):
        try:
            with tempfile.TemporaryDirectory(prefix="stratagan-ray-") as place:  # Ray's notes; the run has its own
                failures = FailureConfig(max_failures=-1)
                TorchTrainer(
                    _worker,
                    train_loop_config={
                        "config": config.to_json(),
                        "threads": threads,
                        "supervisor": supervisor,
                        "hold_placement_group": hold_placement_group,
                    },
                    torch_config=OnRaysInterface(timeout_s=int(config.patience)),
                    scaling_config=scaling,
                    run_config=RunConfig(name="run", storage_path=place, failure_config=failures, callbacks=callbacks),
                ).fit()
            return
        except ControllerError as error:  # Ray does not try again where a worker fails while the group forms
            reason = str(error.controller_failure).splitlines()[0]
            if attempt + 1 == ATTEMPTS:
                raise UserError(
                    f"--workers {config.workers}: no group of workers could be started ({reason})"
                    " - look at the cluster with `ray status`"
                ) from error
            ray.get(supervisor.log.remote(f"warning: no group of workers could be started ({reason}); trying again"))


def _worker(values: dict[str, Any]) -> None:
    import ray
    import ray.train
    import torch

    supervisor, config = values["supervisor"], TrainConfig.from_json(values["config"])
    first = ray.train.get_context().get_world_rank() == 0
    if ray.get((supervisor.worker_started if first else supervisor.should_leave).remote()):
        return
    if first:
        values["hold_placement_group"](ray.util.get_current_placement_group())
    torch.set_num_threads(values["threads"])
    around = Hooks(
        report=ray.train.report,
        log=lambda line: supervisor.log.remote(line),
        begun=lambda images_seen: ray.get(supervisor.training_began.remote(images_seen)) if first else None,
        ending_soon=_preemption_watch(),
        stopped=_stop_watch(supervisor),
        node=ray.util.get_node_ip_address(),
    )
    try:
        train(config, around)
    except Exception as error:
        # Who was paused may have been followed by this very training's next group, which goes on.
        for_good = isinstance(error, UserError) and not isinstance(error, (UnreachableError, TakenOverError))
        ray.get(supervisor.failed.remote(error, for_good))
        raise


def _stop_watch(supervisor: Any) -> Callable[[], bool]:
    """Whether to save and leave, as all workers of a group are told after the same step.

    The answer to one question is looked at when the next is asked, so that no step waits for it.
    """
    import ray

    steps, asked = itertools.count(1), None

    def stopped() -> bool:
        nonlocal asked
        if (step := next(steps)) % STOP_ASKED_EVERY:
            return False
        earlier, asked = asked, supervisor.should_stop.remote(step)
        return earlier is not None and ray.get(earlier)

    return stopped


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
