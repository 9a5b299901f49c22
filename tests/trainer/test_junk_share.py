"""How much junk there is at most: closed forms, a slow second computation, and what cannot be told."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from trainer.scoring.junk_share import LEVELS, MAX_SHARE, MIN_SHARE, junk_share

KINDS = ("cut-paste", "blot")


def mixture(share: float, n: int, away: float, made_away: float, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Normal scores N(0, 1), a share of junk N(away, 1), and synthetic anomalies N(made_away, 1)."""
    draw = np.random.default_rng(seed)
    known = draw.normal(size=n) + away * (draw.random(n) < share)
    return known, {kind: draw.normal(made_away, 1, 512) for kind in KINDS}


@pytest.mark.parametrize("share", [0, 0.01, 0.02, 0.05, 0.1])
def test_it_holds_the_truth_where_junk_is_as_easy_to_see_as_made_anomalies(share: float) -> None:
    bounds = [junk_share(*mixture(share, 5000, 3.5, 3.5, seed)).most for seed in range(20)]
    told = [bound for bound in bounds if bound is not None]
    assert len(told) == 20
    assert np.mean([bound >= share for bound in told]) >= 0.8
    assert np.median(told) <= share + 0.015  # and says something


def test_the_easier_junk_is_to_see_the_closer_the_bound() -> None:
    bounds = [junk_share(*mixture(0.02, 5000, away, away, 0)).most or 1 for away in (3, 4, 5, 6)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] == pytest.approx(0.02, abs=0.006)


def plainly(known: np.ndarray, made: Mapping[str, np.ndarray]) -> float:
    """The least S / p over thresholds, without resampling."""
    least = np.inf
    for level in LEVELS:
        limit = sorted(known)[len(known) - 1 - round(level * len(known))]
        exceed = sum(x > limit for scores in made.values() for x in scores) / sum(map(len, made.values()))
        least = min(least, sum(x > limit for x in known) / len(known) / exceed if exceed else np.inf)
    return float(least)


@pytest.mark.parametrize("share", [0, 0.03])
def test_it_is_the_least_ratio_and_a_margin(share: float) -> None:
    known, made = mixture(share, 2000, 3, 3, 1)
    found, least = junk_share(known, made).most, plainly(known, made)
    assert found is not None and least <= found <= 1.5 * least + 0.01


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), share=st.floats(0, 0.2), n=st.integers(200, 2000))
def test_scale_and_order_do_not_matter(seed: int, share: float, n: int) -> None:
    known, made = mixture(share, n, 3, 2.5, seed)
    found = junk_share(known, made)
    assert junk_share(known, made) == found
    assert junk_share(np.exp(known), {kind: np.exp(scores) for kind, scores in made.items()}) == found
    order = np.random.default_rng(seed).permutation(n)
    assert junk_share(known[order], dict(reversed(made.items()))) == found
    if found.most is not None and found.expected is not None:
        assert 0 < found.expected <= found.most <= MAX_SHARE and not found.reason
    else:
        assert found.expected is found.most is None and found.reason in found.sentence()


def test_the_guess_is_the_mean_of_a_share_of_any_magnitude() -> None:
    found = junk_share(*mixture(0.03, 5000, 4, 4, 0))
    assert found.most is not None
    magnitudes = np.log(found.most / MIN_SHARE)
    mean, _ = quad(lambda share: share / (share * magnitudes), MIN_SHARE, found.most)
    assert found.expected == pytest.approx(mean)
    assert f"at most {100 * found.most:.2g} %" in found.sentence()


@pytest.mark.parametrize(
    ("known", "made", "word"),
    [
        (np.arange(199.0), {"blot": np.full(50, 500.0)}, "199"),
        (np.arange(1000.0), {}, "no anomalies"),
        (np.arange(1000.0), {"blot": np.arange(0, 1000.0, 7)}, "hardly"),
        (np.arange(1000.0), {"blot": np.full(50, -1.0)}, "hardly"),
        (np.zeros(1000), {"blot": np.zeros(50)}, "hardly"),
    ],
)
def test_it_says_when_it_cannot_tell(known: np.ndarray, made: dict[str, np.ndarray], word: str) -> None:
    found = junk_share(known, made)
    assert found.most is found.expected is None
    assert word in found.reason and "cannot be told" in found.sentence()


def test_where_nothing_stands_out_from_few_images_the_bound_is_one_of_them() -> None:
    found = junk_share(np.arange(300.0), {"blot": np.full(100, 1e6)})
    assert found.most is not None and 1 / 300 <= found.most <= 0.02
    assert found.expected is not None and found.expected >= 1 / 300
