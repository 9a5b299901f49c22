"""The configuration of a run: one frozen dataclass; every field is a command line option."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

import tyro

from data_tools.dataset.cache import DEFAULT_LIMIT
from data_tools.errors import UserError
from data_tools.untrusted import typed
from trainer.methods import METHODS, method_of
from trainer.schedule import STDDEV_GROUP, Phase

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]
Distance = Literal["image", "latent", "latent-squared"]
Coupling = Literal["joint", "encoder-only"]
Precision = Literal["auto", "float32", "bf16"]
ContrastName = Literal["full", "learned"]
MAX_SIDE, MAX_WIDTH = 2**15, 2**16
PAPER_MINIBATCH = {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4}
OPERATIONAL = (
    "data",
    "out",
    "exclude",  # what the list said when the run began is in the run folder
    "workers",
    "cache",
    "cache_limit",
    "log_images",
    "pictures",
    "checkpoint_images",
    "keep",
    "best_by",
    "patience",
)
"""Options that say where and how a run runs, not what it computes."""
METHOD_HELP = "What is trained; --method NAME --help says what it is and shows its options. " + ", ".join(
    each.title if name == each.title else f"{name}: {each.title}" for name, each in METHODS.items()
)
SEPARATION = "separation"
"""Of synthetic anomalies from their originals: a measure of a checkpoint that needs no labels."""
A_SCORES = ("a_paper", "a_best")
"""AUCs of a at the paper's lambda, and at the best one on the test images."""

T = TypeVar("T")


def with_options_of_methods(after: str) -> Callable[[type[T]], type[T]]:
    """Give a class a field NAME for each method that has options of its own, behind the field `after`."""

    def changed(kind: type[T]) -> type[T]:
        own = {name: type(each) for name, each in METHODS.items() if dataclasses.fields(each)}
        fields = dict(kind.__annotations__)
        place = list(fields).index(after) + 1
        kind.__annotations__ = dict([*list(fields.items())[:place], *own.items(), *list(fields.items())[place:]])
        for name, options in own.items():
            setattr(kind, name, field(default_factory=options))
        return kind

    return changed


@dataclass(frozen=True)
@with_options_of_methods(after="distance_weight")
class TrainConfig:
    """Train a detector on a dataset."""

    data: str = ""
    """The dataset: the URL that data_tools wrote to."""
    out: str = ""
    """The run's URL, a folder or s3://. If it holds an unfinished run of the same configuration, that run goes on."""
    preset: str = "kth"
    """kth, cifar-car (the paper's), cells-small, cifar-small, study or demo; other options override it."""
    workers: str = "0"
    """Ray Train workers, or MIN:MAX for as many as the cluster can place at any time; 0 trains in this process."""
    start_from: Annotated[str, tyro.conf.arg(name="from")] = ""
    """A checkpoint (or a run, for its newest) whose weights a new run starts from, at its count of images."""
    method: Annotated[MethodName, tyro.conf.arg(help=METHOD_HELP)] = "proposed"
    gamma: float = 0.0
    """Contamination: the share of anomalies in the training set, in [0, 1)."""
    planted: str = ""
    """The anomaly classes that contaminate the training set, separated by commas; "" takes all."""
    exclude: str = ""
    """A list of keys, one a line, of training images to leave out; `audit` writes such lists."""
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
    contrast: ContrastName = "full"
    """What becomes -1 and 1 in the networks. full: black and white; learned: the set's 0.5 and 99.5 percentiles."""
    microbatch: int = 0
    """Images that a worker passes through at a time, to save memory: the step's gradient is summed; 0 takes all."""
    learning_rate: float = 0.001
    """Adam's step size (the paper's schedule raises it to 0.0015 at 1024x1024)."""
    generator_rate: float = 1.0
    """Learning rate of a growing network's generator and encoder, as a multiple of the critic's."""
    final_decay: float = 0.0
    """Share of the last phase over which a growing network's learning rate falls to 0, linearly."""
    ema_decay: float = 0.999
    """Decay of the generator's moving average, per critic step."""

    penalty: float = 10.0
    """Weight of the gradient penalty."""
    drift: float = 0.001
    """Weight of E[D(x)^2]."""
    distance: Distance = "image"
    """What ties the encoder: image |G(z) - G(E(G(z)))|, latent |z - E(G(z))|, or latent-squared, ClusterGAN's."""
    coupling: Coupling = "joint"
    """joint: the distance trains generator and encoder; encoder-only: the encoder alone."""
    distance_weight: float = 1.0
    """Weight of the distance."""

    # The options of methods come here, each method's under its name.

    precision: Precision = "auto"
    """auto: bf16 autocast where the device computes it natively, float32 elsewhere."""
    compile: bool = False
    """Compile each phase's losses with torch.compile: a minute a phase, and worth it only where launches cost most."""
    log_images: int = 20_000
    """Images between two lines of metrics."""
    pictures: int = 2
    """Times a phase that pictures are drawn; the last falls on the phase's end."""
    checkpoint_images: int = 50_000
    """Images between two checkpoints, each of which is validated; there is one at each phase's end as well."""
    keep: int = 3
    """Checkpoints to keep, the newest ones; the best one stays besides."""
    best_by: str = "auto"
    """What makes a checkpoint the best. separation: how well it tells synthetic anomalies, which needs no labels; or an
    AUC on labelled test images: a_paper, a_best, or that of a term that needs no critic. auto: a_paper (where there is
    no a, the method's first term) with labels, separation without."""
    patience: float = 300.0
    """Seconds after which workers that wait for one another give up, and start again from the newest checkpoint."""
    cache: str = ""
    """Folder for decoded images on each node; each user has one of their own."""
    cache_limit: str = DEFAULT_LIMIT
    """Bytes that folder may hold; least recently used entries are evicted first."""
    window: int = 0
    """For a dataset larger than that: shards decoded at a time, shuffled among themselves; 0 decodes all."""

    def validated(self) -> TrainConfig:
        """Return self, or raise a UserError that names the first option out of range."""
        self.check_networks()
        if not 0 <= self.gamma < 1:
            raise UserError(f"--gamma {self.gamma} is outside [0, 1) - give the share of anomalies, e.g. 0.02")
        for name in (
            "stable_images",
            "final_images",
            "log_images",
            "pictures",
            "checkpoint_images",
            "keep",
            "patience",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{flag(name)} {getattr(self, name)} is not positive - give at least 1")
        for name in ("fade_images", "window", "seed", "penalty", "drift", "distance_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{flag(name)} {getattr(self, name)} is negative or not finite - give 0 or more")
        if self.seed >= 2**63:
            raise UserError(f"--seed {self.seed} needs more than 63 bits - give less than {2**63}")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"--ema-decay {self.ema_decay} is outside [0, 1) - give e.g. 0.999")
        if not 0 < self.generator_rate < math.inf:
            raise UserError(f"--generator-rate {self.generator_rate} is not positive and finite - give e.g. 0.5")
        if not 0 <= self.final_decay <= 1:
            raise UserError(f"--final-decay {self.final_decay} is outside [0, 1] - give e.g. 1, or 0 for none")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"--learning-rate {self.learning_rate} is not positive and finite - give e.g. 0.001")
        for name, choices in (
            ("distance", Distance),
            ("coupling", Coupling),
            ("precision", Precision),
            ("contrast", ContrastName),
        ):
            if getattr(self, name) not in get_args(choices):
                raise UserError(
                    f"{flag(name)} {getattr(self, name)} is unknown - give {' or '.join(get_args(choices))}"
                )
        method = method_of(self)
        known = ("auto", SEPARATION, *A_SCORES, *(term.name for term in method.terms() if term.is_quick))
        if self.best_by not in known:
            raise UserError(f"--best-by {self.best_by} is unknown - give one of {', '.join(known)}")
        fewest, most = self.worker_range()
        workers = fewest if fewest == most else 1  # of a range, the counts that fit are used
        for option, batch in method.minibatches(self):
            if batch <= 0 or batch % (STDDEV_GROUP * max(workers, 1)):
                raise UserError(
                    f"{option} {batch} is not a positive multiple of {STDDEV_GROUP * max(workers, 1)} (groups of"
                    f" {STDDEV_GROUP} on {max(workers, 1)} workers) - change it or --workers"
                )
        if self.microbatch < 0 or self.microbatch % STDDEV_GROUP:
            raise UserError(
                f"--microbatch {self.microbatch} is not a multiple of {STDDEV_GROUP}, the size of minibatch-stddev"
                f" groups - give e.g. {4 * STDDEV_GROUP}, or 0 for all at once"
            )
        return self

    def check_networks(self) -> None:
        """UserError for the first option out of range that decides which networks there are, and of what size."""
        if self.method not in METHODS:
            raise UserError(f"--method {self.method} is unknown - give {' or '.join(METHODS)}")
        if self.resolution < 4 or self.resolution & (self.resolution - 1):
            raise UserError(f"--resolution {self.resolution} is not a power of two from 4 up - give 4, 8, 16, 32, ...")
        if self.resolution > MAX_SIDE:
            raise UserError(f"--resolution {self.resolution} is above {MAX_SIDE} - give that or less")
        if self.width < 4 or self.width % 4:
            raise UserError(f"--width {self.width} is not a positive multiple of 4 - give e.g. 64 or 512")
        if self.width > MAX_WIDTH:
            raise UserError(f"--width {self.width} is above {MAX_WIDTH} - give that or less")
        if 32 * self.width < self.resolution:
            raise UserError(
                f"--width {self.width} leaves no feature map at {self.resolution}x{self.resolution} "
                f"- give {self.resolution // 32} or more"
            )
        method_of(self).check(self)

    def schedule(self) -> tuple[Phase, ...]:
        """All phases of the training, in order."""
        return method_of(self).schedule(self)

    @property
    def latent_size(self) -> int:
        """N_z; 0 where the method has no latent vectors."""
        return method_of(self).z_size(self)

    def judged_by(self, labelled: bool) -> str:
        """What --best-by means; labelled: there are labelled test images.

        An AUC of a is that of the first term that validates, where the method has no a.
        """
        from trainer.scoring.join import has_a

        if self.best_by == SEPARATION or (self.best_by == "auto" and not labelled):
            return SEPARATION
        names = [term.name for term in method_of(self).terms() if term.is_quick]
        asked = A_SCORES[0] if self.best_by == "auto" else self.best_by
        return asked if not names or asked in names or has_a(names) else names[0]

    @property
    def pruned_by(self) -> str:
        """The AUC that a sweep compares trials by."""
        measure = self.judged_by(labelled=True)
        return dataclasses.replace(self, best_by="auto").judged_by(labelled=True) if measure == SEPARATION else measure

    def worker_range(self) -> tuple[int, int]:
        """The fewest and the most workers; UserError when the option says neither N nor MIN:MAX."""
        match = re.fullmatch(r"(\d+)(?::(\d+))?", self.workers)
        fewest, most = (int(match[1]), int(match[2] or match[1])) if match else (-1, -1)
        if not match or fewest > most or (fewest < 1 and most > 0):
            raise UserError(f"--workers {self.workers} is not a number of workers - give e.g. 8, or 1:8 for a range")
        return fewest, most

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> TrainConfig:
        """ValueError and the like for what `to_json` has not written; UserError for networks that cannot be."""
        nested: dict[str, Any] = {"minibatch": {int(r): int(n) for r, n in values["minibatch"].items()}}  # from text
        for name, each in METHODS.items():
            if dataclasses.fields(each):
                nested[name] = type(each)(**typed(each, values.get(name, {})))
        config = TrainConfig(**typed(TrainConfig(), {**values, **nested}))
        config.check_networks()
        return config


def flag(name: str) -> str:
    """A field of TrainConfig as it is typed."""
    return "--from" if name == "start_from" else "--" + name.replace("_", "-")


def differing_options(a: TrainConfig, b: TrainConfig) -> list[str]:
    """The options, as typed, in which two runs' computations differ."""
    names = [f.name for f in dataclasses.fields(TrainConfig) if f.name not in OPERATIONAL]
    return [flag(name) for name in names if getattr(a, name) != getattr(b, name)]
