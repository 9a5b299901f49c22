"""Learning rates within a run: generator against critic, and the fall at the end, as functions of the count alone."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.test_step import step_of
from trainer.presets import PRESETS, preset
from trainer.schedule import Phase

END = 1200


@settings(deadline=None)
@given(st.floats(0.01, 1), st.integers(200, END - 1))
def test_the_rate_falls_by_a_straight_line_over_the_last_share(decay: float, seen: int) -> None:
    rate = Phase(0, 8, "stable", 200, END, 16, 0.004, decay=decay).rate(seen)
    begins = END - decay * 1000
    expected = 0.004 if seen <= begins else 0.004 * (END - seen) / (END - begins)
    assert rate == pytest.approx(expected) and 0 < rate <= 0.004


@pytest.mark.parametrize("name", PRESETS)
def test_only_the_last_phase_falls(name: str) -> None:
    config = preset(name)
    *others, last = config.schedule()
    assert all(phase.decay == 0 and phase.rate(phase.end - 1) == phase.learning_rate for phase in others)
    assert last.decay == config.final_decay


def test_generator_and_encoder_learn_at_their_multiple_of_the_rate() -> None:
    step = step_of("stable")
    step.config = dataclasses.replace(step.config, generator_rate=0.25)
    step.begin(dataclasses.replace(step.phase, decay=1.0))
    seen = step.phase.start + (step.phase.end - step.phase.start) // 2
    step.run(seen)
    rates = {name: each.param_groups[0]["lr"] for name, each in step.optimisers.items()}
    rate = step.phase.rate(seen)
    assert rate == pytest.approx(step.phase.learning_rate / 2, rel=0.01)
    assert rates == {"critic_adam": rate, "generator_adam": 0.25 * rate}
