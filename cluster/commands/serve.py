"""python -m cluster serve."""

from __future__ import annotations

import logging
import signal
import threading
from dataclasses import asdict, dataclass, field

import tyro

from data_tools.errors import UserError
from data_tools.storage import absolute
from trainer.commands.shared import Best, Data, RunsOption
from trainer.scoring.criterion import Criterion


@dataclass(frozen=True)
class Serve:
    """Serve a run's detector over HTTP with Ray Serve, until Ctrl-C or SIGTERM."""

    from_run: RunsOption
    best: Best = False
    data: Data = ""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """Port to listen on."""
    replicas: int = 1
    """Processes that score."""
    body_seconds: float = 30
    """Seconds that a request's body may take to arrive."""
    criterion: tyro.conf.OmitArgPrefixes[Criterion] = field(default_factory=Criterion)
    """The score, and the threshold above which an image is called anomalous."""

    def __call__(self) -> None:
        from cluster.direct import listen_directly
        from cluster.ports import check_free
        from trainer.on_ray.address import cluster_address
        from trainer.on_ray.session import has_gpus, ray_session
        from trainer.scoring.loading import absolute_runs, chosen_checkpoints

        self.criterion.check()
        if self.replicas < 1:
            raise UserError(f"--replicas {self.replicas}: must be at least 1")
        if not 0 < self.body_seconds < float("inf"):
            raise UserError(f"--body-seconds {self.body_seconds}: is no time to wait - give e.g. 30")
        url, data = absolute_runs(self.from_run), absolute(self.data)
        checkpoint = chosen_checkpoints(url, self.best)  # one that is not there is said before Ray starts
        is_here = not cluster_address()
        if is_here:
            check_free(self.host, self.port)
        proxy = listen_directly(self.port) if is_here and self.replicas == 1 else self.port
        with ray_session(self.replicas + 1):
            from ray import serve  # reads the environment
            from ray.serve.config import HTTPOptions

            from cluster.calibration import calibrated_once
            from cluster.serve import DetectorService, Settings

            if meaning := calibrated_once(checkpoint, self.criterion, data).meaning:
                print(meaning, flush=True)
            settings = Settings(
                run=url, best=self.best, data=data, body_seconds=self.body_seconds, **asdict(self.criterion)
            )
            placed = {"num_cpus": 1, "num_gpus": 1 if has_gpus(self.replicas) else 0}
            deployment = DetectorService.options(num_replicas=self.replicas, ray_actor_options=placed)
            serve.start(http_options=HTTPOptions(host=self.host, port=proxy))
            logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it would name the proxy's address
            try:
                serve.run(deployment.bind(settings.model_dump()), name="detector")
                print(f"serving {url}: http://{self.host}:{self.port}/docs", flush=True)
                _until_told()
            finally:
                serve.shutdown()


def _until_told() -> None:
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    told.wait()
