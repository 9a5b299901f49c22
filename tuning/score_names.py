"""Which methods and scores tables and figures show, and in which order: all of it follows from the registries."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from trainer.config import TrainConfig
from trainer.methods import METHODS, VARIANTS, known_terms
from trainer.scoring.join import WEIGHTED, has_a
from tuning.report.published import TABLE_2

DEFAULT = TrainConfig.method
"""The method of a training run for which none is named; figures of one method show this one where it was swept."""
A, FUSED = "a", "fused"


def title_of_method(called: str) -> str:
    """A method's name in figures and tables, by what a sweep calls it."""
    return VARIANTS[called][1].title if called in VARIANTS else called


def siblings(called: str) -> list[str]:
    """What a sweep calls a method's variants."""
    return [other for other, (name, _) in VARIANTS.items() if name == VARIANTS[called][0]]


def rivals(called: str) -> list[str]:
    """The methods that figures of one method set beside it: those that are no part of another one."""
    own = VARIANTS[called][0]
    return [name for name, method in METHODS.items() if name != own and not method.ablation]


def known_by(called: str) -> str:
    """The score by which a method's paper judges."""
    return METHODS[VARIANTS[called][0]].known_by


def main_scores(called: str) -> list[str]:
    """A method's scores, a apart, in the paper's order: those that it published, and the one the method is known by."""
    scores = dict.fromkeys([*(score for _, score in TABLE_2), known_by(called)])
    return [score for score in scores if score != A]


def in_order(names: Iterable[str], called: str = DEFAULT) -> list[str]:
    """Scores in the order of a method's terms, then those of other methods, `fused` last."""
    terms = [term.name for term in METHODS[VARIANTS[called][0]].terms()]
    order = list(dict.fromkeys([*terms, *known_terms()]))
    return sorted(names, key=lambda name: (name == FUSED, order.index(name) if name in order else len(order)))


def score_columns() -> list[str]:
    """What the score files of sweeps may hold that do not say it themselves."""
    return [*known_terms(), FUSED]


def meanings(names: Collection[str]) -> dict[str, str]:
    """What these scores are, and a and `fused` where they follow from them, in the order of tables."""
    said = known_terms() | {FUSED: "the trusted terms, each calibrated on the training images, joined by Fisher's sum"}
    result = {name: said.get(name, "") for name in in_order(names)}
    return {A: "λ L_n + (1 − λ) L_o", **result} if has_a(names) else result


def headline_scores() -> list[str]:
    """What stands for all scores where there is room for a few: a and its terms, what methods are known by, fused."""
    return list(dict.fromkeys([A, *WEIGHTED, *(method.known_by for method in METHODS.values()), FUSED]))
