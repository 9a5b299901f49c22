"""Contrast: the line from pixels to what networks see is the set's own, recorded, and the same wherever it is used."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import training_set
from tests.support.runs import words_of
from trainer.__main__ import main as trainer
from trainer.contrast import FULL, MIN_WIDTH, Contrast, contrast_of
from trainer.run.checkpoint import newest_checkpoint, read_info
from trainer.scoring.inference import Inference
from trainer.training.batches import at_resolution, to_float

PIXELS = arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(4), st.just(4), st.integers(1, 3)))


@dataclasses.dataclass(frozen=True)
class Images:
    """A training set of these images, in this order."""

    images: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def at(self, positions: np.ndarray) -> np.ndarray:
        return self.images[positions % len(self.images)]

    def samples(self, positions: np.ndarray) -> np.ndarray:
        return positions % len(self.images)


@settings(deadline=None)
@given(PIXELS)
def test_the_full_range_is_what_it_was_to_the_bit(images: np.ndarray) -> None:
    there = torch.from_numpy(images)
    assert torch.equal(to_float(there), there.permute(0, 3, 1, 2).float() / 127.5 - 1)


@settings(deadline=None)
@given(PIXELS)
def test_the_learned_ends_are_percentiles_at_least_eight_levels_apart(images: np.ndarray) -> None:
    found = contrast_of(Images(images), learned=True)
    low, high = np.percentile(images, [0.5, 99.5], method="inverted_cdf").astype(float)
    assert 0 <= found.low < found.high <= 255
    if high - low >= MIN_WIDTH:
        assert (found.low, found.high) == (low, high)
    else:
        assert found.high - found.low == MIN_WIDTH and found.low <= low and found.high >= high


def test_specks_and_junk_do_not_move_it() -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(60, 120, (400, 8, 8, 1), np.uint8)
    clean = contrast_of(Images(images), learned=True)
    images[::50, 3, 3] = 255  # dust: a pixel in every fiftieth image
    dusty = contrast_of(Images(images), learned=True)
    assert (dusty.low, dusty.high) == (clean.low, clean.high)


@settings(deadline=None)
@given(PIXELS, st.integers(0, 100), st.integers(20, 155))
def test_pixels_come_back(images: np.ndarray, low: int, width: int) -> None:
    contrast = Contrast(low, low + width)
    seen = to_float(torch.from_numpy(images), contrast).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(contrast.pixels(seen), images)


def test_a_darker_copy_of_a_set_looks_the_same_to_its_networks() -> None:
    images = np.random.default_rng(0).integers(0, 100, (300, 8, 8, 1), np.uint8)
    bright = (2 * images + 20).astype(np.uint8)
    seen = [to_float(torch.from_numpy(x), contrast_of(Images(x), learned=True)) for x in (images, bright)]
    torch.testing.assert_close(seen[0], seen[1])


@pytest.mark.parametrize(
    "value",
    [
        [1, 2],
        [3, 3, 0, 1],
        [5, 2, 0, 1],
        ["0", "9", 0, 1],
        "0,255",
        [0, 9, 0, float("inf")],
        [0, 9, 0, 0],
        [True, 9, 0, 1],
    ],
)
def test_what_is_no_contrast_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        Contrast.from_json(value)


def test_a_run_records_it_and_scores_by_it(full: Path) -> None:
    info = read_info(newest_checkpoint(full))
    facts = json.loads((Path(info.url) / "checkpoint.json").read_text())
    data = training_set(open_dataset(info.config.data), info.config.gamma, info.config.seed)
    assert info.contrast == contrast_of(data, learned=True) != FULL
    assert (facts["format_version"], facts["contrast"]) == (4, info.contrast.to_json())
    images = data.at(np.arange(8))
    queries = next(Inference.from_checkpoint(info).batches(images, 8))
    assert torch.equal(queries, at_resolution(to_float(torch.from_numpy(images), info.contrast), info.resolution))


def train(dataset: Path, out: Path, *more: str) -> Path:
    trainer([*words_of(dataset, out, dataset.parent / "cache"), *more])
    return out


@pytest.mark.slow
def test_weights_to_start_from_bring_theirs(dataset: Path, full: Path, tmp_path: Path) -> None:
    """A run that asks for the full range goes on with what the weights know."""
    more = ["--contrast", "full", "--final-images", "128", "--from", str(full)]
    found = read_info(newest_checkpoint(train(dataset, tmp_path / "longer", *more))).contrast
    assert found == read_info(newest_checkpoint(full)).contrast != FULL


def test_the_full_range_is_the_same_for_any_set(dataset: Path, tmp_path: Path) -> None:
    run = train(dataset, tmp_path / "run", "--contrast", "full")
    found = read_info(newest_checkpoint(run)).contrast
    assert (found.low, found.high) == (FULL.low, FULL.high)


@settings(deadline=None)
@given(PIXELS, st.booleans())
def test_what_is_usual_is_the_mean_and_the_median_spread_of_what_is_seen(images: np.ndarray, learned: bool) -> None:
    contrast = contrast_of(Images(images), learned)
    seen = to_float(torch.from_numpy(images), contrast).double().flatten(1)
    assert contrast.mean == pytest.approx(float(seen.mean()), abs=1e-5)
    spread = float(np.median(seen.std(1, correction=0).numpy()))  # of an even count the mean of the middle two
    assert contrast.spread == pytest.approx(max(spread, 1e-3), abs=1e-5)


@settings(deadline=None)
@given(PIXELS)
def test_standardised_images_have_what_is_usual_whatever_their_light(images: np.ndarray) -> None:
    contrast = Contrast(20, 200, -0.3, 0.4)
    seen = to_float(torch.from_numpy(images), contrast).double()
    found = contrast.standardised(seen)
    flat = found.flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.full((len(images),), -0.3, dtype=torch.float64))
    lively = seen.flatten(1).std(1, correction=0) > 1e-3
    torch.testing.assert_close(flat.std(1, correction=0)[lively], torch.full((int(lively.sum()),), 0.4).double())
    torch.testing.assert_close(contrast.standardised(3 * seen[lively] + 1), found[lively])
