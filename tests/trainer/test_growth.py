"""The schedule: the paper's totals and boundaries, and its purity."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.presets import PRESETS, cifar_car, kth
from trainer.schedule import phase_at


def test_kth_phases():
    phases = kth().schedule()
    ends = [(p.resolution, p.fading, p.end // 1000, p.batch) for p in phases]
    assert ends == [
        (4, False, 600, 128),
        (8, True, 1200, 128),
        (8, False, 1800, 128),
        (16, True, 2400, 128),
        (16, False, 3000, 128),
        (32, True, 3600, 64),
        (32, False, 4200, 64),
        (64, True, 4800, 32),
        (64, False, 5280, 32),
    ]
    assert phases[-1].end == 5_280_000


def test_cifar_car_phases():
    phases = cifar_car().schedule()
    assert [(p.resolution, p.fading) for p in phases[-2:]] == [(32, True), (32, False)]
    assert [p.end for p in phases[-3:]] == [3_000_000, 3_600_000, 4_000_000]
    assert {p.learning_rate for p in phases} == {0.001}


@pytest.mark.parametrize("name", PRESETS)
def test_phases_join_and_presets_are_valid(name):
    config = PRESETS[name]()
    assert config.preset == name
    phases = config.validated().schedule()
    assert phases[0].start == 0
    assert all(a.end == b.start for a, b in itertools.pairwise(phases))
    assert not phases[0].fading and phases[-1].resolution == config.resolution


@given(st.integers(0, 5_279_999))
def test_alpha_rises_through_a_fade_and_is_one_outside(images_seen):
    phase = phase_at(kth().schedule(), images_seen)
    assert phase and phase.start <= images_seen < phase.end
    alpha = phase.alpha(images_seen)
    expected = (images_seen - phase.start) / 600_000 if phase.fading else 1
    assert alpha == pytest.approx(expected)


def test_training_is_over_at_the_end():
    assert phase_at(kth().schedule(), 5_280_000) is None
