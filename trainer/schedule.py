"""The growth schedule: a pure function of the number of images seen (Berg et al. 2019, appendix A).

Every worker computes it for itself, so nothing about growth is ever negotiated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.config import TrainConfig

STDDEV_GROUP = 4
"""Minibatch-stddev groups are runs of 4 consecutive samples: what divides a batch divides it into whole groups."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training at one resolution; the optimisers' moments start again with each.

    kind: "fade", in which the newest layers blend in by alpha, or whatever else the method tells its phases apart by.
    start, end: images seen; the phase holds the steps that begin in [start, end).
    critic_steps: batches, one after the other, that the critic sees in a step.
    decay: over this share of the phase, its last one, the learning rate falls to 0 by a straight line.
    milestone: from this share of the phase on it is a tenth.
    """

    index: int
    resolution: int
    kind: str
    start: int
    end: int
    batch: int
    learning_rate: float
    critic_steps: int = 1
    decay: float = 0.0
    milestone: float = 1.0

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

    def rate(self, images_seen: int) -> float:
        """The learning rate of the step that begins at this count."""
        images = self.end - self.start
        tenth = images_seen - self.start >= self.milestone * images
        rate = self.learning_rate * 0.1 if tenth else self.learning_rate
        falling = self.decay * images
        return rate * min((self.end - images_seen) / falling, 1.0) if falling else rate


def resolutions(final: int) -> list[int]:
    """4, 8, ... up to `final`."""
    return [2**power for power in range(2, final.bit_length())]


def grown(config: TrainConfig) -> tuple[Phase, ...]:
    """The phases of growing networks, in order: per resolution a fade (none at 4x4), then a stable phase."""
    phases: list[Phase] = []
    seen = 0
    for r in resolutions(config.resolution):
        stable = config.final_images if r == config.resolution else config.stable_images
        rate = config.learning_rate * (1.5 if r >= 1024 else 1.0)
        for kind, images in (("fade", config.fade_images if r > 4 else 0), ("stable", stable)):
            if images:
                last = r == config.resolution and kind == "stable"
                about = (len(phases), r, kind, seen, seen + images, config.minibatch[r], rate)
                phases.append(Phase(*about, decay=config.final_decay if last else 0.0))
                seen += images
    return tuple(phases)


def ends_a_phase(phases: tuple[Phase, ...], images_seen: int) -> bool:
    """Whether a phase's last step ends at this count, which may pass its end by part of a batch."""
    seen = 0
    for phase in phases:
        seen += -(-(phase.end - seen) // phase.images_a_step) * phase.images_a_step  # whole steps
        if seen == images_seen:
            return True
    return False


def phase_at(phases: tuple[Phase, ...], images_seen: int) -> Phase | None:
    """The phase whose step begins at this count; None when training is over."""
    return next((phase for phase in phases if images_seen < phase.end), None)


def work(phases: tuple[Phase, ...], images_seen: int) -> float:
    """Roughly how much computation the first `images_seen` images cost: a step's cost grows with its pixels."""
    spans = ((max(min(images_seen, phase.end) - phase.start, 0), phase.resolution) for phase in phases)
    return sum(images * (100 + resolution**2) for images, resolution in spans)
