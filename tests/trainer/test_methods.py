"""The registries of methods and terms: what every entry keeps, and what an entry that does not is told."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from data_tools.registry import listed_module
from tests.support.checks import refuses
from trainer.config import TrainConfig
from trainer.methods import METHODS, NAMES, VARIANTS
from trainer.methods.base import Method, Trained, check_method
from trainer.methods.fanogan import FAnoGan
from trainer.methods.outliers import ALPHA
from trainer.methods.proposed import Proposed
from trainer.scoring.criterion import Criterion
from trainer.scoring.terms import TERMS
from trainer.scoring.terms.base import Compared, Response, Term


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_known_by_what_it_has(name: str) -> None:
    method = METHODS[name]
    terms = [term.name for term in method.terms()]
    assert method.known_by in (terms if method.known_by != "a" else method.scores())
    assert len(set(terms)) == len(terms) and "a" not in terms and "fused" not in terms
    assert method.known_by in (terms[0], "a")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_scores_with_networks_that_it_has(name: str) -> None:
    config = dataclasses.replace(TrainConfig(), method=name, resolution=8, width=8)
    with torch.device("meta"):
        networks = METHODS[name].networks(config, 1, 0).by_name()
    assert set(METHODS[name].scores_with) <= set(networks)


def test_no_method_is_told_the_contamination() -> None:
    """A fair comparison under contamination needs that none knows its share."""
    trainer = Path(__file__).parents[2] / "trainer"
    sources = [path for room in ("methods", "training", "networks") for path in (trainer / room).rglob("*.py")]
    telling = [path for path in sources if re.search(r"config\.gamma", path.read_text())]
    assert len(sources) > 60 and not telling
    assert re.search(r"config\.gamma", (trainer / "run" / "folder.py").read_text())  # or this would find nothing


def test_what_is_assumed_is_one_share_for_all() -> None:
    shares = {(name, x.name): x.default for name, m in METHODS.items() for x in dataclasses.fields(m)}
    assumed = {place: share for place, share in shares.items() if place[1] in ("alpha", "nu")}
    assert len(assumed) >= 5 and set(assumed.values()) == {ALPHA}


def test_names_are_unique() -> None:
    variants = [called for method in METHODS.values() for called in method.variants()]
    titles = [variant.title for _, variant in VARIANTS.values()]
    for names in (NAMES, variants, titles, [term.name for term in TERMS]):
        assert len(set(names)) == len(names)
    assert list(METHODS) == list(NAMES) and set(METHODS) <= set(VARIANTS)
    assert all(method.name() == name and method.meaning() for name, method in METHODS.items())


def test_what_breaks_the_contract_is_named() -> None:
    @dataclass(frozen=True)
    class Misspelt(FAnoGan):
        """A hook that nobody asks for."""

        def shedule(self) -> None: ...

    @dataclass(frozen=True)
    class Bare(Method):
        """Lacks a hook."""

        title = "bare"
        known_by = "L_n"

    @dataclass(frozen=True)
    class Taken(FAnoGan):
        """An option with the name of a hook."""

        encode: int = 1  # type: ignore[reportIncompatibleMethodOverride]

    @dataclass(frozen=True)
    class Unnamed(Proposed):
        title = "unnamed"

    for kind, words in (
        (Misspelt, ("Misspelt.shedule", "schedule")),
        (Bare, ("Bare", "`minibatches`")),
        (Taken, ("option encode",)),
        (Unnamed, ("Unnamed", "docstring")),
    ):
        refuses(lambda: check_method(kind, "trainer/methods/x.py"), "trainer/methods/x.py", *words)  # noqa: B023


def test_a_name_without_a_file_is_named() -> None:
    refuses(lambda: listed_module("trainer.methods", "none"), "trainer/methods/none.py", "is not there")
    assert listed_module("trainer.methods", "search")[1] == "trainer/methods/search/__init__.py"


def test_terms_that_do_not_fit_are_named() -> None:
    @dataclass(frozen=True)
    class Unknown(FAnoGan):
        """Is known by what it has not."""

        known_by = "none"

    @dataclass(frozen=True)
    class Twice(FAnoGan):
        """Has a term of its own with another one's name."""

        def own_terms(self) -> tuple[Term, ...]:
            return (Term("L_n", "another one", lambda response: response.z_hat[:, 0]),)

    @dataclass(frozen=True)
    class Blind(Method):
        """Has no hook at test time."""

        title = "blind"
        known_by = "none"

    refuses(Blind().check_reconstructs, "heat maps")
    refuses(
        lambda: Criterion("L_r").check_fits(METHODS["search"]), "--by L_r", "--method search", "fused, reviewed, a, L_n"
    )
    refuses(Unknown().terms, "known by none", "L_n")
    refuses(Twice().terms, "two terms L_n")


def test_a_methods_own_closest_matches_go_before_those_of_its_generator() -> None:
    @dataclass(frozen=True)
    class Mirror(FAnoGan):
        """Has encoder and generator, and matches that are not theirs."""

        def reconstruct(self, trained: Trained, queries: torch.Tensor) -> torch.Tensor:
            return queries.flip(3)

    queries = torch.arange(8.0).view(1, 1, 2, 4)
    nothing = Trained(TrainConfig(), {}, 4, None, torch.device("cpu"))
    response = Response(Mirror(), nothing, queries)
    assert torch.equal(response.matches, queries.flip(3)) and not response.is_encoded


def test_a_term_that_compares_says_how() -> None:
    with pytest.raises(TypeError, match="kept_as"):
        Compared("x", "half added", lambda response: response.z_hat)  # type: ignore[call-arg]
