"""P-values and thresholds: uniform on normals, right as often as they say, and what contamination does to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from tests.support.checks import refuses
from trainer.scoring.p_values import p_values
from trainer.scoring.thresholds import threshold


def test_p_values_of_normals_are_uniform() -> None:
    draw = np.random.default_rng(0)
    found = np.concatenate([p_values(draw.normal(size=20), draw.normal(size=400)) for _ in range(200)])
    assert kstest(found, "uniform").pvalue > 0.01
    for level in (0.01, 0.05, 0.2, 0.5):
        assert (found <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level / len(found)))
    own = draw.normal(size=300)
    np.testing.assert_allclose(np.sort(p_values(own, own, np.full(300, True))), np.arange(1, 301) / 300)


def test_p_values_by_counting() -> None:
    known = np.array([3.0, 1.0, 2.0, 2.0])
    assert p_values(np.array([0.0, 2.0, 2.5, 9.0]), known) == pytest.approx([1.0, 0.8, 0.4, 0.2])
    assert p_values(known, known, np.array([True] * 4)) == pytest.approx([0.25, 1.0, 0.75, 0.75])


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.floats(0.0, 0.3), st.floats(0.01, 0.5))
def test_high_scoring_contamination_only_makes_verdicts_milder(seed: int, junk: float, level: float) -> None:
    draw = np.random.default_rng(seed)
    known, queries = draw.normal(size=300), draw.normal(size=200)
    spoilt = np.concatenate([known, np.full(int(junk / (1 - junk) * 300), 50.0)])
    assert (p_values(queries, spoilt) >= p_values(queries, known)).all()
    assert threshold(spoilt, "false-alarms", level).value >= threshold(known, "false-alarms", level).value


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.0, 0.3), st.floats(0.01, 0.5))
def test_the_bound_of_the_sentence_holds_for_junk_of_any_score(seed: int, junk: float, level: float) -> None:
    """Junk that scores lowest lowers the threshold most: normal images exceed it for level / (1 - c) of them."""
    draw = np.random.default_rng(seed)
    normal = draw.normal(size=2000)
    spoilt = np.concatenate([normal, np.full(int(junk / (1 - junk) * 2000), -50.0)])
    share = len(normal) / len(spoilt)
    found = threshold(spoilt, "false-alarms", level)
    assert (normal > found.value).mean() <= level / share + 1 / len(normal)


@settings(deadline=None, max_examples=40)
@given(st.integers(20, 500), st.floats(0.02, 0.9), st.integers(0, 2**32))
def test_above_the_threshold_is_a_p_value_below_the_share(count: int, share: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    known, queries = draw.integers(0, 50, count).astype(float), draw.integers(-5, 60, 300).astype(float)
    if share * (count + 1) < 1:
        return
    found = threshold(known, "contamination", share)
    assert ((queries > found.value) == (p_values(queries, known) <= share + 1e-9)).all()
    assert found.low <= found.value <= found.high or np.isclose([found.low, found.high], found.value, rtol=0.2).any()


@pytest.mark.parametrize("kind", ["false-alarms", "contamination"])
def test_the_interval_holds_what_further_images_do(kind: str) -> None:
    """At 95 %, 200 times: at least 180 hold."""
    held = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        found = threshold(draw.gamma(2, size=800), kind, 0.05, judged=250, seed=seed)  # type: ignore[arg-type]
        held += found.alarms_low <= (draw.gamma(2, size=250) > found.value).mean() <= found.alarms_high
    assert held >= 180


def test_the_threshold_s_interval_holds_the_true_quantile() -> None:
    held, true = 0, -np.log(0.05)
    for seed in range(100):
        found = threshold(np.random.default_rng(seed).exponential(size=1000), "false-alarms", 0.05, seed=seed)
        held += found.low <= true <= found.high
    assert held >= 86


def test_the_interval_is_that_of_resamplings() -> None:
    draw = np.random.default_rng(5)
    known = draw.gamma(2, size=300)
    found = threshold(known, "contamination", 0.04)
    resampled = [np.sort(draw.choice(known, 300))[-12] for _ in range(4000)]
    low, high = np.percentile(resampled, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.06)


def test_sentences_say_what_was_asked() -> None:
    known = np.arange(1000.0)
    alarms, junk = threshold(known, "false-alarms", 0.05), threshold(known, "contamination", 0.02)
    assert "1,000 training images" in alarms.sentences() and "5 % / (1 - c)" in alarms.sentences()
    assert "2 %; whether they are the right ones" in junk.sentences()


def test_shares_that_cannot_be_are_refused() -> None:
    known = np.arange(99.0)
    for share in (0.0, 1.0, -0.1, float("nan")):
        refuses(lambda: threshold(known, "false-alarms", share), "--false-alarms", str(share), "share")  # noqa: B023
    refuses(lambda: threshold(known, "contamination", 0.009), "--contamination 0.009", "99 training images", "0.01")
    assert threshold(known, "contamination", 0.01).value == 98
