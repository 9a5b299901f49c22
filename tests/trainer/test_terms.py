"""The terms that look at the training images, against plain second implementations."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.scoring.gaussian import MIN_VARIANCE, SHRINKAGE, gaussian
from trainer.scoring.inference import Inference, Values
from trainer.scoring.join import fused
from trainer.scoring.synthetic import separation
from trainer.scoring.terms.correlation import TERM as L_C
from trainer.scoring.terms.feature_distance import TERM as L_M
from trainer.scoring.terms.intensities import TERM as L_I
from trainer.scoring.terms.neighbours import TERM as L_K
from trainer.scoring.terms.neighbours import direction_distance, directions, greatest, unit_length
from trainer.scoring.terms.normalised_residual import TERM as L_N
from trainer.scoring.trust import judged_of, synthetic_terms, trusted, weights_by

RNG = np.random.default_rng(3)
TERMS: tuple[str, ...] = ("L_n", "L_o", "D", "L_k")
EQUAL: dict[str, float] = dict.fromkeys(TERMS, 1.0)


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


def own_distances(z_hat: np.ndarray) -> np.ndarray:
    return L_K.distances(z_hat, unit_length(z_hat), np.arange(len(z_hat)))


def test_the_distance_to_the_five_nearest_directions() -> None:
    z_hat, known = RNG.normal(size=(7, 6)), RNG.normal(size=(30, 6))
    found = L_K.distances(z_hat, unit_length(known))
    np.testing.assert_allclose(found, by_hand(z_hat, known, False), rtol=1e-9)


def test_a_training_image_is_no_neighbour_of_its_own() -> None:
    z_hat = RNG.normal(size=(20, 6))
    np.testing.assert_allclose(own_distances(z_hat), by_hand(z_hat, z_hat, True), rtol=1e-9)
    assert (own_distances(z_hat) > L_K.distances(z_hat, unit_length(z_hat))).all()
    rows = np.where(np.arange(20) < 10, np.arange(20), -1)  # only these are training images
    mixed = L_K.distances(z_hat, unit_length(z_hat[:10]), rows)
    np.testing.assert_allclose(mixed[:10], own_distances(z_hat[:10]), rtol=1e-9)
    np.testing.assert_allclose(mixed[10:], by_hand(z_hat[10:], z_hat[:10], False), rtol=1e-9)


def test_lengths_of_latents_do_not_matter() -> None:
    z_hat, known = RNG.normal(size=(5, 6)), unit_length(RNG.normal(size=(9, 6)))
    scaled = L_K.distances(z_hat * RNG.uniform(1, 9, (5, 1)), known)
    np.testing.assert_allclose(scaled, L_K.distances(z_hat, known), rtol=1e-6)


def test_fewer_training_images_than_neighbours() -> None:
    z_hat, known = RNG.normal(size=(4, 3)), RNG.normal(size=(2, 3))
    found = L_K.distances(z_hat, unit_length(known))
    np.testing.assert_allclose(found, by_hand(z_hat, known, False), rtol=1e-9)


def test_twins_keep_their_small_distance_in_float32() -> None:
    one = RNG.normal(size=(8, 64)).astype(np.float32)
    twins = one + np.float32(1e-5) * RNG.normal(size=(8, 64)).astype(np.float32)
    known = np.concatenate([unit_length(twins)] * 5)  # five copies of each twin
    expected = np.linalg.norm(unit_length(one.astype(np.float64)) - unit_length(twins.astype(np.float64)), axis=1)
    np.testing.assert_allclose(L_K.distances(one, known), expected, rtol=0.02)


def test_many_queries_are_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    z_hat, known = RNG.normal(size=(40, 6)), unit_length(RNG.normal(size=(50, 6)))
    whole = L_K.distances(z_hat, known)
    monkeypatch.setattr("trainer.scoring.terms.base.QUERIES", 7)
    np.testing.assert_allclose(L_K.distances(z_hat, known), whole, rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1600, 2300), st.integers(1, 7), st.booleans())
def test_the_greatest_values_are_those_of_topk(seed: int, columns: int, count: int, has_ties: bool) -> None:
    values = torch.rand(9, columns, generator=torch.Generator().manual_seed(seed))
    values = (values * 20).floor() if has_ties else values
    values[0, : columns - count] = -torch.inf
    places = greatest(values, count)
    assert torch.equal(values.gather(1, places), values.topk(count, dim=1).values)
    assert all(len(set(row)) == count for row in places.tolist())


def test_the_distance_among_many_images_is_exported_for_batches_of_any_size() -> None:
    class Graph(torch.nn.Module):
        def forward(self, z_hat: torch.Tensor) -> torch.Tensor:
            return direction_distance(z_hat, known)

    known = directions(torch.randn(2_003, 6, generator=torch.Generator().manual_seed(0)))
    queries = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    program = torch.export.export(Graph(), (queries[:2],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    for some in (queries, queries[:1]):
        torch.testing.assert_close(program.module()(some), direction_distance(some, known))


def test_fused_is_fishers_sum_of_logarithms() -> None:
    known = {name: np.arange(99.0) * scale for name, scale in zip(TERMS, (1e-4, 1.0, 30.0, 0.1))}
    queries = {name: np.array([-1.0, column[49], 1e9]) for name, column in known.items()}  # p = 1, 51 / 100, 1 / 100
    assert fused(queries, known, EQUAL) == pytest.approx([0.0, -4 * np.log(0.51), -4 * np.log(0.01)])
    own = fused(known, known, EQUAL, np.full(99, True))  # each against the other 98: p = 99 / 99 ... 1 / 99
    np.testing.assert_allclose(own, -4 * np.log(np.arange(99, 0, -1) / 99))


def test_fused_does_not_let_one_term_excuse_another() -> None:
    known = {name: RNG.normal(size=1000) for name in TERMS}
    usual = {name: np.zeros(1) for name in TERMS}
    odd = {**usual, "L_n": np.array([9.0])}
    excused = {**odd, "D": np.array([-9.0])}
    assert fused(excused, known, EQUAL) > fused(usual, known, EQUAL) + 4
    assert fused(odd, known, EQUAL) > fused(excused, known, EQUAL)


@pytest.mark.parametrize("name", list(TERMS))
def test_only_the_order_within_each_term_counts(name: str) -> None:
    known = {term: RNG.normal(size=200) for term in TERMS}
    queries = {term: RNG.normal(size=50) for term in TERMS}
    bent = {**known, name: np.exp(known[name])}, {**queries, name: np.exp(queries[name])}
    np.testing.assert_array_equal(fused(queries, known, EQUAL), fused(bent[1], bent[0], EQUAL))


def test_contamination_of_the_training_images_moves_fused_little() -> None:
    known = {name: RNG.normal(size=1000) for name in TERMS}
    spoilt = {name: np.concatenate([column, np.full(20, 1e6)]) for name, column in known.items()}
    queries = {name: RNG.normal(size=50) for name in TERMS}
    clean, moved = fused(queries, known, EQUAL), fused(queries, spoilt, EQUAL)
    assert (moved < clean + 1e-9).sum() > 40 and np.corrcoef(clean, moved)[0, 1] > 0.98


def test_a_term_that_says_nothing_adds_nothing() -> None:
    known = {name: RNG.normal(size=100) for name in TERMS}
    queries = {name: RNG.normal(size=10) for name in TERMS}
    silent = fused({**queries, "D": np.zeros(10)}, {**known, "D": np.zeros(100)}, EQUAL)
    others = -sum(
        np.log([(1 + (known[name] >= q).sum()) / 101 for q in queries[name]]) for name in TERMS if name != "D"
    )
    np.testing.assert_allclose(silent, others)


def test_a_term_of_weight_nothing_has_no_say() -> None:
    known = {name: RNG.normal(size=100) for name in TERMS}
    queries = {name: RNG.normal(size=10) for name in TERMS}
    without = {name: column for name, column in known.items() if name != "L_o"}
    found = fused(queries, known, {**EQUAL, "L_o": 0.0, "D": 2.0})
    expected = fused(queries, without, EQUAL) + fused(queries, {"D": known["D"]}, EQUAL)
    np.testing.assert_allclose(found, expected)


def test_a_term_has_a_say_by_how_well_it_tells_synthetic_anomalies_and_none_when_it_points_the_wrong_way() -> None:
    assert weights_by({"L_n": 0.8, "L_m": 0.7}) == pytest.approx({"L_n": 1.2, "L_m": 0.8})
    assert weights_by({"L_n": 0.8, "L_o": 0.4, "D": 0.5}) == pytest.approx({"L_n": 3.0, "L_o": 0.0, "D": 0.0})
    assert weights_by({"L_n": 0.5, "L_o": 0.1}) == {"L_n": 1.0, "L_o": 1.0}  # nothing to choose by


def test_terms_of_one_family_share_the_weight_of_one() -> None:
    family = {"L_n": "residual", "L_c": "residual"}
    found = weights_by({"L_n": 0.7, "L_c": 0.8, "L_m": 0.9}, family)  # (.4 / 2, .6 / 2, .8) over a mean of 1.3 / 2
    assert found == pytest.approx({"L_n": 0.4 / 1.3, "L_c": 0.6 / 1.3, "L_m": 1.6 / 1.3})
    assert weights_by({"L_n": 0.8, "L_c": 0.8, "L_m": 0.8}, family) == {"L_n": 0.5, "L_c": 0.5, "L_m": 1.0}
    assert weights_by({"L_n": 0.4, "L_c": 0.5}, family) == {"L_n": 0.5, "L_c": 0.5}


def test_weights_are_of_the_mean_over_kinds_and_what_takes_no_training_has_the_mean_of_them() -> None:
    usual = {term.name: np.arange(10.0) for term in (L_N, L_C, L_M, L_K, L_I)}
    told = dict.fromkeys(("L_n", "L_c", "L_m", "L_i"), np.arange(10.0) + 10)
    made = {"told": {**usual, **told}, "not told": usual}
    expected = {"L_n": 0.5, "L_c": 0.5, "L_m": 1.0, "L_k": 0.0, "L_i": 1.0}
    assert trusted([L_N, L_C, L_M, L_K, L_I], usual, made) == expected
    assert trusted([L_N, L_C, L_M, L_K, L_I], usual, {}) == expected  # too small to be made


def mahalanobis_by_hand(query: np.ndarray, rows: np.ndarray, mean_variance: float, divisor: float) -> float:
    centred = rows - rows.mean(axis=0)
    shrunk = (1 - SHRINKAGE) * centred.T @ centred / divisor + SHRINKAGE * mean_variance * np.eye(rows.shape[1])
    d = query - rows.mean(axis=0)
    return float(np.sqrt(d @ np.linalg.solve(shrunk, d)))


def mean_variance(rows: np.ndarray) -> float:
    return float(((rows - rows.mean(axis=0)) ** 2).sum() / (len(rows) - 2) / rows.shape[1])


def test_the_distance_of_features_is_mahalanobis_and_leaves_an_image_of_its_own_out() -> None:
    """Against a covariance of the others, image by image, solved in float64."""
    rows = RNG.normal(size=(40, 12)) @ RNG.normal(size=(12, 12))
    kept, queries = gaussian(rows), RNG.normal(size=(5, 12))
    others = [mahalanobis_by_hand(query, rows, mean_variance(rows), 38) for query in queries]
    np.testing.assert_allclose(L_M.distances(queries.astype(np.float32), kept), others, rtol=1e-4)
    found = L_M.distances(rows.astype(np.float32), kept, np.arange(40))
    expected = [
        mahalanobis_by_hand(row, np.delete(rows, i, axis=0), mean_variance(rows), 38) for i, row in enumerate(rows)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (found > L_M.distances(rows.astype(np.float32), kept)).all()
    mixed = L_M.distances(rows[:2].astype(np.float32), kept, np.array([0, -1]))
    np.testing.assert_allclose(mixed, [found[0], L_M.distances(rows[1:2].astype(np.float32), kept)[0]])


def test_more_features_than_images_and_images_that_are_all_alike_have_finite_distances() -> None:
    few = RNG.normal(size=(5, 20)).astype(np.float32)
    assert np.isfinite(L_M.distances(few, gaussian(few), np.arange(5))).all()
    for count in (1, 2, 9):
        alike = np.full((count, 20), 20**-0.5, np.float32)
        found = L_M.distances(alike, gaussian(alike), np.arange(count))
        np.testing.assert_allclose(found, 0, atol=1e-3 / MIN_VARIANCE**0.5 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("near", [0.0, 0.98])
@pytest.mark.parametrize("count", [200, 400, 2000])
def test_anomalies_that_are_none_are_not_told_however_few_images_there_are(count: int, near: float) -> None:
    """Features of the same distribution, near their originals' or not: 0.5. An original among those that its anomaly is
    compared with would make it look usual, the more so among few."""
    draw = np.random.default_rng(0)
    known = draw.normal(size=(count, 60)).astype(np.float32)

    def values(images: np.ndarray, _: object) -> Values:
        noise = draw.normal(size=(len(images), 60)).astype(np.float32)
        return Values({}, {"L_m": near * known[: len(images)] + np.float32(np.sqrt(1 - near**2)) * noise}, None)

    inference = cast(Inference, SimpleNamespace(values=values))
    images = np.zeros((judged_of(count), 8, 8, 1), np.uint8)
    usual, made = synthetic_terms(inference, [L_M], images, Values({}, {"L_m": known}, None))
    found = [separation(usual["L_m"], each["L_m"]) for each in made.values()]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)
