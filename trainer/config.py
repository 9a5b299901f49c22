"""The configuration of a run: one frozen dataclass; every field is a command line option."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from data_tools.cache import DEFAULT_LIMIT
from data_tools.errors import UserError
from trainer.objectives import Coupling, Distance

Precision = Literal["auto", "float32", "bf16"]
PAPER_MINIBATCH = {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4}
OPERATIONAL = ("data", "out", "workers", "cache", "cache_limit", "log_images", "snapshots")
"""Options that say where and how a run runs, not what it computes."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a detector on a dataset."""

    data: str = ""
    """The dataset: the URL that data_tools wrote to."""
    out: str = ""
    """The run folder. If it holds an unfinished run of the same configuration, that run goes on."""
    preset: str = "kth"
    """kth, cifar-car (the paper's), cells-small, cifar-small or demo; other options override it."""
    workers: int = 0
    """Ray Train workers; 0 trains in this process."""
    gamma: float = 0.0
    """Contamination: the share of anomalies in the training set, in [0, 1)."""
    seed: int = 1000
    """Seeds weights, sample order, latents and the draw of contaminants."""

    resolution: int = 64
    """Final side of the images in pixels; larger patches are averaged down."""
    width: int = 512
    """Feature maps at low resolutions, and the size of the latent vector."""

    fade_images: int = 600_000
    """Images shown while a resolution fades in (none at 4x4)."""
    stable_images: int = 600_000
    """Images shown at a resolution after its fade."""
    final_images: int = 480_000
    """Images shown at the last resolution after its fade."""
    minibatch: dict[int, int] = field(default_factory=lambda: dict(PAPER_MINIBATCH))
    """Global minibatch per resolution."""
    learning_rate: float = 0.001
    """Adam's step size (the paper's schedule raises it to 0.0015 at 1024x1024)."""
    ema_decay: float = 0.999
    """Decay of the generator's moving average, per critic step."""

    penalty: float = 10.0
    """Weight of the gradient penalty."""
    drift: float = 0.001
    """Weight of E[D(x)^2]."""
    distance: Distance = "image"
    """What ties the encoder: image |G(z) - G(E(G(z)))| or latent |z - E(G(z))|."""
    coupling: Coupling = "joint"
    """joint: the distance trains generator and encoder; encoder-only: the encoder alone."""
    distance_weight: float = 1.0
    """Weight of the distance."""

    precision: Precision = "auto"
    """auto: bf16 autocast where the device computes it natively, float32 elsewhere."""
    log_images: int = 20_000
    """Images between two lines of metrics."""
    snapshots: int = 2
    """Pictures and validation scores per phase; the last falls on the phase's end."""
    cache: str = ""
    """Folder for decoded images on each node (default: the user's cache folder)."""
    cache_limit: str = DEFAULT_LIMIT
    """Bytes that folder may hold; what was used for longest goes first."""
    window: int = 0
    """For a dataset larger than that: shards decoded at a time, shuffled among themselves; 0 decodes all."""

    def validated(self) -> TrainConfig:
        """Return self, or raise a UserError that names the first option out of range."""
        if self.resolution < 4 or self.resolution & (self.resolution - 1):
            raise UserError(f"--resolution {self.resolution} is not a power of two from 4 up - give 4, 8, 16, 32, ...")
        if not 0 <= self.gamma < 1:
            raise UserError(f"--gamma {self.gamma} is outside [0, 1) - give the share of anomalies, e.g. 0.02")
        if self.width < 4 or self.width % 4:
            raise UserError(f"--width {self.width} is not a positive multiple of 4 - give e.g. 64 or 512")
        if 32 * self.width < self.resolution:
            raise UserError(
                f"--width {self.width} leaves no feature map at {self.resolution}x{self.resolution} "
                f"- give {self.resolution // 32} or more"
            )
        for name in ("stable_images", "final_images", "log_images", "snapshots"):
            if getattr(self, name) <= 0:
                raise UserError(f"{_option(name)} {getattr(self, name)} is not positive - give at least 1")
        for name in ("fade_images", "workers", "window", "seed", "penalty", "drift", "distance_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{_option(name)} {getattr(self, name)} is negative or not finite - give 0 or more")
        if self.seed >= 2**63:
            raise UserError(f"--seed {self.seed} needs more than 63 bits - give less than {2**63}")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"--ema-decay {self.ema_decay} is outside [0, 1) - give e.g. 0.999")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"--learning-rate {self.learning_rate} is not positive and finite - give e.g. 0.001")
        for name, choices in (("distance", Distance), ("coupling", Coupling), ("precision", Precision)):
            if getattr(self, name) not in get_args(choices):
                raise UserError(
                    f"{_option(name)} {getattr(self, name)} is unknown - give {' or '.join(get_args(choices))}"
                )
        share = 4 * max(self.workers, 1)
        resolution = 4
        while resolution <= self.resolution:
            batch = self.minibatch.get(resolution)
            if batch is None or batch <= 0:
                raise UserError(
                    f"--minibatch has no positive batch for {resolution}x{resolution} - give"
                    f" --minibatch.{resolution} 4, or --resolution {resolution // 2}"
                )
            if batch % share:
                raise UserError(
                    f"--minibatch.{resolution} {batch} is no multiple of {share} (groups of 4 on "
                    f"{max(self.workers, 1)} workers) - change it or --workers"
                )
            resolution *= 2
        return self

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> TrainConfig:
        minibatch = {int(r): int(n) for r, n in values["minibatch"].items()}  # JSON keys are text
        return TrainConfig(**{**values, "minibatch": minibatch})


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def differing_options(a: TrainConfig, b: TrainConfig) -> list[str]:
    """The options, as typed, in which two runs' computations differ."""
    names = [f.name for f in dataclasses.fields(TrainConfig) if f.name not in OPERATIONAL]
    return [_option(name) for name in names if getattr(a, name) != getattr(b, name)]
