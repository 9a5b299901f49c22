"""The terms that look at the training images, against plain second implementations."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.terms import FUSED, direction_distance, fused

RNG = np.random.default_rng(3)


def by_hand(z_hat: np.ndarray, reference: np.ndarray, leave_out: bool) -> list[float]:
    """One query and one training image at a time."""
    found = []
    for i, z in enumerate(z_hat):
        u = z / np.sqrt((z**2).sum())
        distances = [
            np.sqrt(((u - r / np.sqrt((r**2).sum())) ** 2).sum())
            for j, r in enumerate(reference)
            if not (leave_out and i == j)
        ]
        found.append(float(np.mean(sorted(distances)[:5])))
    return found


def test_the_distance_to_the_five_nearest_directions() -> None:
    z_hat, reference = RNG.normal(size=(7, 6)), RNG.normal(size=(30, 6))
    np.testing.assert_allclose(direction_distance(z_hat, reference), by_hand(z_hat, reference, False), rtol=1e-9)


def test_a_training_image_is_no_neighbour_of_its_own() -> None:
    z_hat = RNG.normal(size=(20, 6))
    own = direction_distance(z_hat, z_hat, are_reference=True)
    np.testing.assert_allclose(own, by_hand(z_hat, z_hat, True), rtol=1e-9)
    assert (own > direction_distance(z_hat, z_hat)).all()


def test_lengths_of_latents_do_not_matter() -> None:
    z_hat, reference = RNG.normal(size=(5, 6)), RNG.normal(size=(9, 6))
    scaled = direction_distance(z_hat * RNG.uniform(1, 9, (5, 1)), reference * RNG.uniform(1, 9, (9, 1)))
    np.testing.assert_allclose(scaled, direction_distance(z_hat, reference), rtol=1e-6)


def test_fewer_training_images_than_neighbours() -> None:
    z_hat, reference = RNG.normal(size=(4, 3)), RNG.normal(size=(2, 3))
    np.testing.assert_allclose(direction_distance(z_hat, reference), by_hand(z_hat, reference, False), rtol=1e-9)


def test_fused_is_a_sum_of_terms_in_units_of_their_spread_on_training_images() -> None:
    reference = {name: np.arange(101.0) * scale for name, scale in zip(FUSED, (1e-4, 1.0, 30.0, 0.1))}
    queries = {name: np.array([column[50], column[75], column[100]]) for name, column in reference.items()}
    # medians are 0, upper quartiles half an interquartile range, maxima a whole one
    assert fused(queries, reference) == pytest.approx([0.0, 0.5 * len(FUSED), 1.0 * len(FUSED)])


def test_fused_bears_with_gross_outliers_among_the_training_images() -> None:
    reference = {name: RNG.normal(size=1000) for name in FUSED}
    spoilt = {name: np.concatenate([column, np.full(20, 1e6)]) for name, column in reference.items()}
    queries = {name: RNG.normal(size=50) for name in FUSED}
    np.testing.assert_allclose(fused(queries, spoilt), fused(queries, reference), atol=0.25 * len(FUSED))


def test_a_term_that_says_nothing_on_training_images_is_left_out() -> None:
    reference = {name: RNG.normal(size=100) for name in FUSED}
    queries = {name: RNG.normal(size=10) for name in FUSED}
    constant = {**reference, "D": np.zeros(100)}
    without = {**queries, "D": np.zeros(10)}
    whole = fused(queries, constant)
    assert np.isfinite(whole).all() and np.array_equal(whole, fused(without, constant))
