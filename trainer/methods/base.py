"""What a method is: its options, and what the loop, the detector, sweeps and figures ask of it.

A method is a file (or a folder) of `trainer/methods`, whose frozen dataclass has the method's options as fields and
these hooks as methods, and a name in the list in `trainer/methods/__init__.py`. Nothing else asks which method it is.
This module and those of the methods do without torch until a hook needs it: the command line reads the options.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from data_tools.errors import UserError
from trainer.contrast import FULL, Contrast
from trainer.schedule import Phase

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.scoring.terms.base import Term
    from trainer.training.group import Group
    from trainer.training.step import Step


@dataclass(frozen=True)
class Variant:
    """A method as sweeps and figures name it, with the options of a training run that it stands for."""

    title: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """Networks at test time: those of a checkpoint or of a run, in eval mode, and where in the schedule they are.

    networks: by name, of those that `Method.networks` draws the ones that score. alpha: the fade factor, None outside
    a fade. contrast: by which queries became what the networks see.
    """

    config: TrainConfig
    networks: Mapping[str, nn.Module]
    resolution: int
    alpha: Tensor | None
    device: torch.device
    contrast: Contrast = FULL


@dataclass(frozen=True)
class Method:
    """The contract. Fields of a subclass are the options --NAME.option, its docstring says what the method is."""

    title: ClassVar[str]
    """Its name in tables and figures."""
    known_by: ClassVar[str]
    """The term, or the score `a`, by which its paper judges."""
    ablation: ClassVar[bool] = False
    """Whether it is another method less a part, which figures of rivals leave out."""
    may_be_0: ClassVar[tuple[str, ...]] = ()
    """Its options that 0 turns off; other numbers are above it."""
    scores_with: ClassVar[tuple[str, ...]] = ()
    """The networks that hooks at test time use; all of them where none is named."""

    # What is asked before a training run.

    @staticmethod
    def presets() -> dict[str, Any]:
        """The method's options in those presets of a run where they are not the defaults."""
        return {}

    @classmethod
    def variants(cls) -> dict[str, Variant]:
        """What a sweep's --method may call it."""
        return {cls.name(): Variant(cls.title)}

    def check(self, config: TrainConfig) -> None:
        """UserError that names the first of its options out of range."""
        for name, kind in get_type_hints(type(self)).items():
            if get_origin(kind) is Literal and (value := getattr(self, name)) not in (known := get_args(kind)):
                raise UserError(f"{self.option(name)} {value} is unknown - give one of {', '.join(map(str, known))}")
        numbers = {each.name for each in dataclasses.fields(self) if type(getattr(self, each.name)) in (int, float)}
        self.check_positive(name for name in sorted(numbers) if getattr(self, name) or name not in self.may_be_0)

    def minibatches(self, config: TrainConfig) -> Iterator[tuple[str, int]]:
        """Each option that is a global minibatch of this training run, as typed, with its value."""
        raise NotImplementedError

    def schedule(self, config: TrainConfig) -> tuple[Phase, ...]:
        """All phases in order: a pure function of the configuration."""
        raise NotImplementedError

    def z_size(self, config: TrainConfig) -> int:
        """N_z; 0 where there are no latent vectors."""
        return 0

    # What the loop asks.

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        """Freshly drawn networks, a function of configuration and seed alone.

        samples: of the training set, for state that is kept of each; 0 at test time, where no such state is used.
        """
        raise NotImplementedError

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        """One step, to be begun with a phase."""
        raise NotImplementedError

    def ready(self, config: TrainConfig, images_seen: int) -> bool:
        """Whether this count of images has trained what scores an image in one pass."""
        return True

    # What the detector asks, of each sample by itself; a method leaves out what it does not have.

    def encode(self, trained: Trained, queries: Tensor) -> Tensor:
        """Queries N x C x r x r to latent vectors z_hat, N x N_z."""
        raise NotImplementedError

    def generate(self, trained: Trained, z: Tensor) -> Tensor:
        """Latent vectors N x N_z to images N x C x r x r."""
        raise NotImplementedError

    def reconstruct(self, trained: Trained, queries: Tensor) -> Tensor:
        """Queries to their closest matches, N x C x r x r each; not needed where G(E(Q)) is that."""
        raise NotImplementedError

    def criticise(self, trained: Trained, images: Tensor) -> Tensor:
        """Images to the critic's scores, N: the greater, the more real."""
        raise NotImplementedError

    def features(self, trained: Trained, images: Tensor) -> Tensor:
        """Images to the critic's features, N x F."""
        raise NotImplementedError

    def own_terms(self) -> tuple[Term, ...]:
        """Terms of this method alone, beside those of `trainer/scoring/terms` whose needs it meets."""
        return ()

    # What follows of the above.

    @classmethod
    def name(cls) -> str:
        """What --method calls it: its file's name."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def option(cls, name: str) -> str:
        """One of its options as typed: --NAME.OPTION."""
        return f"--{cls.name()}.{name}".replace("_", "-")

    @classmethod
    def meaning(cls) -> str:
        """What it is, in a sentence."""
        return " ".join((cls.__doc__ or "").partition("\n\n")[0].split()).rstrip(".")

    @classmethod
    def offers(cls) -> frozenset[str]:
        """Which of the hooks at test time it has."""
        there = {name for name in AT_TEST_TIME if cls.has_own(name)}
        return frozenset(there | ({"reconstruct"} if {"encode", "generate"} <= there else set()))

    @classmethod
    def has_own(cls, hook: str) -> bool:
        """Whether it has written a hook, and does not inherit the empty one."""
        return getattr(cls, hook) is not getattr(Method, hook)

    def terms(self) -> tuple[Term, ...]:
        """The terms that it can score by, the one that it is known by first."""
        from trainer.scoring.join import has_a
        from trainer.scoring.terms import TERMS

        result = (*self.own_terms(), *(term for term in TERMS if set(term.needs) <= self.offers()))
        names = [term.name for term in result]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"--method {self.name()} has two terms {twice[0]} - give its own one another name")
        if not (has_a(names) if self.known_by == "a" else self.known_by in names):
            raise UserError(f"--method {self.name()} is known by {self.known_by}, and has {', '.join(names)} - fix it")
        return tuple(sorted(result, key=lambda term: term.name != self.known_by))

    def scores(self) -> tuple[str, ...]:
        """What --by may call the score: the joined ones, `a` where there is one, and the terms that `fused` joins."""
        from trainer.scoring.join import SUMMED, has_a

        names = [term.name for term in self.terms() if term.joined]
        return (*SUMMED, *(["a"] if has_a(names) else []), *names)

    def check_reconstructs(self) -> None:
        """UserError for a method that makes no closest matches, and so no heat maps."""
        if "reconstruct" not in self.offers():
            raise UserError(f"--method {self.name()} makes no closest matches, so no heat maps - leave them out")

    def chosen(self, config: TrainConfig) -> Self:
        """The method with a run's options."""
        return getattr(config, self.name(), self)

    def check_batch_norm(self, config: TrainConfig) -> None:
        """UserError for parts of a batch, and for images too small: networks with batch norm halve them down to 4x4."""
        if config.microbatch:
            raise UserError(
                f"--microbatch {config.microbatch} does not go with --method {self.name()}, whose batch norm needs the"
                " whole batch - leave it out"
            )
        if config.resolution < 8:
            raise UserError(
                f"--resolution {config.resolution} is too small for --method {self.name()} - give 8 or more"
            )

    def check_positive(self, names: Iterable[str]) -> None:
        """UserError for the first of these options that is not above 0 and finite."""
        for name in names:
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UserError(f"{self.option(name)} {value} is not positive and finite - give more than 0")


def check_at_most(option: str, value: int, most: int) -> None:
    """UserError for a size that no machine has room for."""
    if value > most:
        raise UserError(f"{option} {value} is above {most} - give that or less")


AT_TEST_TIME = ("encode", "generate", "reconstruct", "criticise", "features")
REQUIRED = ("minibatches", "schedule", "networks", "step")


def check_method(kind: type[Method], place: str) -> None:
    """UserError where a class does not keep the contract: a hook is missing, or has a name that nobody asks for."""
    options = {each.name for each in dataclasses.fields(kind)}
    if taken := sorted(name for name in options if hasattr(Method, name)):
        raise UserError(f"{place}: the option {taken[0]} has the name of a hook - give it another name")
    own = {name for name in vars(kind) if not name.startswith("_")} - options
    if unknown := sorted(name for name in own if not hasattr(Method, name) and name not in Method.__annotations__):
        known = sorted(name for name, _ in inspect.getmembers(Method, callable) if not name.startswith("_"))
        raise UserError(f"{place}: {kind.__name__}.{unknown[0]} is not a hook - the hooks are {', '.join(known)}")
    for name in REQUIRED:
        if not kind.has_own(name):
            raise UserError(f"{place}: {kind.__name__} has no `{name}` - see trainer/methods/base.py")
    for name in ("title", "known_by"):
        if not isinstance(getattr(kind, name, None), str):
            raise UserError(f"{place}: {kind.__name__} has no `{name}` - see trainer/methods/base.py")
    if not kind.__doc__ or kind.__doc__.startswith(f"{kind.__name__}("):
        raise UserError(f"{place}: {kind.__name__} has no docstring, which --help shows - say what the method is")
