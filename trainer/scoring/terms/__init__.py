"""The terms of a score: one file each, and a line in this list, in the order of tables.

A method has those terms whose needs it meets, and whatever it defines itself.
"""

from __future__ import annotations

from data_tools.errors import UserError
from data_tools.registry import listed_module
from trainer.scoring.terms.base import Term

NAMES = (
    "normalised_residual",
    "correlation",
    "latent_norm",
    "residual",
    "feature_residual",
    "critic",
    "neighbours",
    "feature_distance",
    "intensities",
)


def _loaded(name: str) -> Term:
    module, place = listed_module(__name__, name)
    result = getattr(module, "TERM", None)
    if not isinstance(result, Term):
        raise UserError(f"{place}: has no TERM - write one, see base.py there")
    return result


TERMS: tuple[Term, ...] = tuple(_loaded(name) for name in NAMES)
