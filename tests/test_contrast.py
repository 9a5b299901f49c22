"""Contrast: the line from pixels to what networks see is the set's own, recorded, and the same wherever it is used."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import training_set
from tests.runs import words_of
from trainer.__main__ import main as trainer
from trainer.contrast import FULL, LEAST_WIDTH, Contrast, learned_contrast
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


@given(PIXELS)
def test_the_full_range_is_what_it_was_to_the_bit(images: np.ndarray) -> None:
    there = torch.from_numpy(images)
    assert torch.equal(to_float(there), there.permute(0, 3, 1, 2).float() / 127.5 - 1)


@given(PIXELS)
def test_the_learned_ends_are_percentiles_at_least_eight_levels_apart(images: np.ndarray) -> None:
    found = learned_contrast(Images(images))
    low, high = np.percentile(images, [0.5, 99.5], method="inverted_cdf").astype(float)
    assert 0 <= found.low < found.high <= 255
    if high - low >= LEAST_WIDTH:
        assert (found.low, found.high) == (low, high)
    else:
        assert found.high - found.low == LEAST_WIDTH and found.low <= low and found.high >= high


def test_specks_and_junk_do_not_move_it() -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(60, 120, (400, 8, 8, 1), np.uint8)
    clean = learned_contrast(Images(images))
    images[::50, 3, 3] = 255  # dust: a pixel in every fiftieth image
    assert learned_contrast(Images(images)) == clean


@given(PIXELS, st.integers(0, 100), st.integers(20, 155))
def test_pixels_come_back(images: np.ndarray, low: int, width: int) -> None:
    contrast = Contrast(low, low + width)
    seen = to_float(torch.from_numpy(images), contrast).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(contrast.pixels(seen), images)


def test_a_darker_copy_of_a_set_looks_the_same_to_its_networks() -> None:
    images = np.random.default_rng(0).integers(0, 100, (300, 8, 8, 1), np.uint8)
    bright = (2 * images + 20).astype(np.uint8)
    seen = [to_float(torch.from_numpy(x), learned_contrast(Images(x))) for x in (images, bright)]
    torch.testing.assert_close(seen[0], seen[1])


@pytest.mark.parametrize("value", [[1], [3, 3], [5, 2], ["0", "9"], "0,255", [0, float("inf")], [True, 9]])
def test_what_is_no_contrast_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        Contrast.from_json(value)


def test_a_run_records_it_and_scores_by_it(full: Path) -> None:
    info = read_info(newest_checkpoint(full))
    facts = json.loads((Path(info.url) / "checkpoint.json").read_text())
    data = training_set(open_dataset(info.config.data), info.config.gamma, info.config.seed)
    assert info.contrast == learned_contrast(data) != FULL
    assert (facts["format_version"], facts["contrast"]) == (4, info.contrast.to_json())
    images = data.at(np.arange(8))
    queries = next(Inference.from_checkpoint(info).batches(images, 8))
    assert torch.equal(queries, at_resolution(to_float(torch.from_numpy(images), info.contrast), info.resolution))


def train(dataset: Path, out: Path, *more: str) -> Path:
    trainer([*words_of(dataset, out, dataset.parent / "cache"), *more])
    return out


def test_weights_to_start_from_bring_theirs(dataset: Path, full: Path, tmp_path: Path) -> None:
    """A run that asks for the full range goes on with what the weights know."""
    more = ["--contrast", "full", "--final-images", "128", "--from", str(full)]
    found = read_info(newest_checkpoint(train(dataset, tmp_path / "longer", *more))).contrast
    assert found == read_info(newest_checkpoint(full)).contrast != FULL


def test_the_full_range_leaves_no_trace(dataset: Path, tmp_path: Path) -> None:
    run = train(dataset, tmp_path / "run", "--contrast", "full")
    facts = json.loads((Path(newest_checkpoint(run)) / "checkpoint.json").read_text())
    assert facts["format_version"] == 2 and "contrast" not in facts
