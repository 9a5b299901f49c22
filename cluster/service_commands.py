"""python -m cluster score and serve: what each takes, as a typed command line."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated

import tyro

from cluster.commands import no_command
from data_tools.errors import UserError
from data_tools.storage import absolute
from trainer.on_ray.session import ray_session
from trainer.run.checkpoint import chosen_checkpoint
from trainer.scoring.criterion import Criterion

Run = Annotated[str, tyro.conf.arg(name="run")]


@dataclass(frozen=True)
class Score:
    """Score any number of images with a run's detector on a Ray cluster; the same command goes on after any end."""

    from_run: Run
    """URL of a run, or of one checkpoint."""
    images: str
    """URL of WebDataset tars, Parquet files or image files, at any depth."""
    out: str
    """URL for the scores: Parquet files."""
    best: bool = False
    """The best checkpoint instead of the newest."""
    criterion: tyro.conf.OmitArgPrefixes[Criterion] = field(default_factory=Criterion)
    """By what, and above what an image is called anomalous: a column more."""
    heatmaps: bool = False
    """Add a column: heat maps, as grey PNGs."""
    actors: int = 0
    """Processes that score; 0 for as many as the cluster has GPUs, or CPUs where it has none."""

    def run(self, command: Sequence[str]) -> None:
        from cluster.scoring import ScoringConfig, score_images

        no_command(command)
        config = ScoringConfig(
            self.from_run, self.images, self.out, self.best, self.criterion, self.heatmaps, self.actors
        )
        done = score_images(config)
        if done.units_before:
            print(f"{done.units_before} of {done.units} files were there already")
        rate = f", {done.images / done.seconds:,.0f} images/s" if done.images else ""
        print(f"scored {done.images:,} images, {done.errors:,} of them with errors{rate}: {self.out}")


@dataclass(frozen=True)
class Serve:
    """Serve a run's detector over HTTP with Ray Serve, until Ctrl-C or SIGTERM."""

    from_run: Run
    """URL of a run, or of one checkpoint."""
    best: bool = False
    """The best checkpoint instead of the newest."""
    criterion: tyro.conf.OmitArgPrefixes[Criterion] = field(default_factory=Criterion)
    """By what, and above what an image is called anomalous."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """Port to listen on."""
    replicas: int = 1
    """Processes that score."""

    def run(self, command: Sequence[str]) -> None:
        no_command(command)
        self.criterion.check()
        if self.replicas < 1:
            raise UserError(f"--replicas {self.replicas}: must be at least 1")
        url = absolute(self.from_run)
        checkpoint = chosen_checkpoint(url, self.best)  # one that is not there is said before Ray starts
        with ray_session(self.replicas + 1):
            from ray import serve
            from ray.serve.config import HTTPOptions

            from cluster.calibration import calibrated_once
            from cluster.serve import DetectorService, Settings
            from trainer.on_ray.session import has_gpus

            if meaning := calibrated_once(checkpoint, self.criterion):
                print(meaning, flush=True)
            settings = Settings(run=url, best=self.best, **asdict(self.criterion))
            placed = {"num_cpus": 1, "num_gpus": 1 if has_gpus(self.replicas) else 0}
            deployment = DetectorService.options(num_replicas=self.replicas, ray_actor_options=placed)
            serve.start(http_options=HTTPOptions(host=self.host, port=self.port))
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
