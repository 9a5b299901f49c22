"""The growth schedule: a pure function of the number of images seen (Berg et al. 2019, appendix A).

Every worker computes it for itself, so nothing about growth is ever negotiated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainer.config import TrainConfig
from trainer.networks.progressive import resolutions

Kind = Literal["fade", "stable", "gan", "encoder"]


@dataclass(frozen=True)
class Phase:
    """A stretch of training at one resolution; the optimisers' moments start anew with each.

    kind: a fade, what follows it; or f-AnoGAN's two, generator and critic first and the encoder after them.
    start, end: images seen; the phase holds the steps that begin in [start, end).
    critic_steps: batches, one after the other, that the critic sees in a step.
    """

    index: int
    resolution: int
    kind: Kind
    start: int
    end: int
    batch: int
    learning_rate: float
    critic_steps: int = 1

    @property
    def name(self) -> str:
        return f"{self.resolution}x{self.resolution} {self.kind}"

    @property
    def fading(self) -> bool:
        return self.kind == "fade"

    @property
    def images_a_step(self) -> int:
        return self.batch * self.critic_steps

    def alpha(self, images_seen: int) -> float:
        """The fade factor at this count, in [0, 1]; 1 outside a fade."""
        return min((images_seen - self.start) / (self.end - self.start), 1.0) if self.fading else 1.0


def schedule(config: TrainConfig) -> tuple[Phase, ...]:
    """All phases in order: per resolution a fade (none at 4x4), then a stable phase."""
    if config.method == "fanogan":
        return _fanogan_schedule(config)
    phases: list[Phase] = []
    seen = 0
    for r in resolutions(config.resolution):
        stable = config.final_images if r == config.resolution else config.stable_images
        rate = config.learning_rate * (1.5 if r >= 1024 else 1.0)
        kinds: tuple[tuple[Kind, int], ...] = (("fade", config.fade_images if r > 4 else 0), ("stable", stable))
        for kind, images in kinds:
            if images:
                phases.append(Phase(len(phases), r, kind, seen, seen + images, config.minibatch[r], rate))
                seen += images
    return tuple(phases)


def _fanogan_schedule(config: TrainConfig) -> tuple[Phase, ...]:
    """Generator and critic, then the encoder, all at the final resolution (Schlegl et al. 2019)."""
    f, r = config.fanogan, config.resolution
    end = f.gan_images + f.encoder_images
    return (
        Phase(0, r, "gan", 0, f.gan_images, f.minibatch, f.learning_rate, f.critic_steps),
        Phase(1, r, "encoder", f.gan_images, end, f.minibatch, f.encoder_learning_rate),
    )


def phase_at(phases: tuple[Phase, ...], images_seen: int) -> Phase | None:
    """The phase whose step begins at this count; None when training is over."""
    return next((phase for phase in phases if images_seen < phase.end), None)


def work(phases: tuple[Phase, ...], images_seen: int) -> float:
    """Roughly how much computation the first `images_seen` images cost: a step's cost grows with its pixels."""
    spans = ((max(min(images_seen, phase.end) - phase.start, 0), phase.resolution) for phase in phases)
    return sum(images * (100 + resolution**2) for images, resolution in spans)
