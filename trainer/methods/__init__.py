"""The methods: one file (or folder) each, and a line in this list, in the order of tables.

A new one is a file and a line. What is half added fails here, at import, with one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_tools.errors import UserError
from data_tools.registry import listed_module
from trainer.methods.base import Method, Variant, check_method

if TYPE_CHECKING:
    from trainer.config import TrainConfig

NAMES = (
    "fanogan",
    "proposed",
    "search",
    "aae",
    "adgan",
    "ae",
    "alad",
    "drae",
    "egbad",
    "fence_gan",
    "ganomaly",
    "geom",
    "itsr",
    "skip_ganomaly",
    "svdd",
    "vae",
)


def _loaded(name: str) -> Method:
    module, place = listed_module(__name__, name)
    kinds = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Method)]
    own = [each for each in kinds if each.__module__ == module.__name__]
    if len(own) != 1:
        raise UserError(f"{place}: has {len(own)} classes of methods - write one, see trainer/methods/base.py")
    check_method(own[0], place)
    return own[0]()


METHODS: dict[str, Method] = {name: _loaded(name) for name in NAMES}
"""By name, each with its default options."""

VARIANTS: dict[str, tuple[str, Variant]] = {
    called: (name, variant) for name, method in METHODS.items() for called, variant in method.variants().items()
}
"""By what a sweep calls them: the method's name, and the variant."""


def method_of(config: TrainConfig) -> Method:
    """A run's method with its options."""
    return METHODS[config.method].chosen(config)


def known_terms() -> dict[str, str]:
    """All terms that any method has: name to meaning."""
    return {term.name: term.meaning for method in METHODS.values() for term in method.terms()}


def network_names(config: TrainConfig, channels: int) -> tuple[str, ...]:
    """The names of a run's networks, by which its checkpoints name their files."""
    import torch

    with torch.device("meta"):
        return tuple(method_of(config).networks(config, channels, 0).by_name())
