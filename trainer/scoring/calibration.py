"""What the training images say of a detector's scores; all that a verdict without labels rests on.

Made once for a checkpoint, kept as RUN/calibration/CHECKPOINT.safetensors, or where that cannot be written to in the
user's cache folder. Only scores are in it, and latent directions, no images.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from data_tools.dataset.cache import open_cache
from data_tools.dataset.training_set import BLOCK, TrainingSet
from data_tools.errors import UserError
from data_tools.progress import progress
from data_tools.storage import Folder, Storage, open_storage, read_bytes
from data_tools.untrusted import parse_json
from trainer.methods import method_of
from trainer.run.checkpoint import CheckpointInfo
from trainer.run.folder import read_config, run_dataset, run_images
from trainer.scoring.comparison import compared, kept_of
from trainer.scoring.heat import HeatScale, blurred_kind
from trainer.scoring.inference import Inference, Values
from trainer.scoring.kept import keep, own_folder
from trainer.scoring.synthetic import CORRUPTIONS
from trainer.scoring.terms.base import Compared, Term
from trainer.scoring.trust import judged_of, synthetic_terms, trusted

MAX_IMAGES = 20_000
"""Training images, at most, that calibrate and among which latents' neighbours are found."""
MAX_MAPS = 2_000
"""Of these, at most, whose heat maps tell what is usual at a pixel."""
MADE = f"{','.join(CORRUPTIONS)} and of the whole image, of images that nothing is compared with"
"""How the synthetic anomalies came about: a calibration that was made otherwise is made again."""
HEAT = "difference"
"""The kind of map that is shown: of those of heat.py it found synthetic defects best."""


@dataclass(frozen=True)
class Calibration:
    """Of n training images.

    terms: those that `fused` joins, float64 n, an image left out of its own neighbours. kept: what terms that compare
    with training images keep of them, by their `kept_as`. samples: int64 n, which of the training set's samples they
    are. heat: of the kind HEAT; None where the method makes no closest matches. weights: of the terms in `fused`. made:
    the terms of synthetic anomalies made from the first m images, by the kinds of CORRUPTIONS, float64 m; empty where
    images are too small for them, and in old runs.
    """

    terms: dict[str, np.ndarray]
    kept: dict[str, np.ndarray]
    samples: np.ndarray
    heat: HeatScale | None
    weights: dict[str, float]
    made: dict[str, dict[str, np.ndarray]]

    def rows_of(self, samples: np.ndarray) -> np.ndarray:
        """Which rows here samples of the training set are, -1 where they are none: int64."""
        order = np.argsort(self.samples)
        places = np.minimum(np.searchsorted(self.samples[order], samples), len(order) - 1)
        result = order[places]
        return np.where(self.samples[result] == samples, result, -1)


def joined_in(inference: Inference, calibration: Calibration) -> tuple[Term, ...]:
    """The terms that `fused` joins here: those of the calibration, which in an old run are fewer."""
    return tuple(term for term in inference.joined if term.name in calibration.terms)


def terms_of(
    inference: Inference, calibration: Calibration, images: np.ndarray, samples: np.ndarray | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """These terms of N images, and which of the images are in the calibration, bool N; as of `Detector.score`."""
    rows = np.full(len(images), -1) if samples is None else calibration.rows_of(samples)
    known = rows >= 0
    terms = {name: column[rows] for name, column in calibration.terms.items()}
    if not known.all() or not len(rows):
        joined = joined_in(inference, calibration)
        values = inference.values(images[~known], joined)
        for name, column in compared(joined, values, calibration.kept).items():
            terms[name][~known] = column
    return terms, known


def calibrated(inference: Inference, data: TrainingSet) -> Calibration:
    """Calibrate on a training set: on all of it, or on the first 20,000 images that training saw, in random order."""
    count, terms = min(len(data), MAX_IMAGES), inference.joined
    blocks = [np.arange(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
    parts = []
    for block in progress(blocks, "calibrating", "blocks", len(blocks)):
        images = data.at(block)
        is_mapped = inference.reconstructs and block[0] < MAX_MAPS
        parts.append(inference.values(images, terms, maps=blurred_kind(HEAT) if is_mapped else None))
    values, maps = _joined(parts), [part.maps for part in parts if part.maps is not None]
    kept = kept_of(terms, values)
    heat = HeatScale.of(np.concatenate(maps)[:MAX_MAPS]) if maps else None
    usual = compared(terms, values, kept, np.arange(count))
    originals, made = synthetic_terms(inference, terms, data.at(np.arange(judged_of(count))), values)
    weights = trusted(terms, originals, made)
    stored = {kind: columns for kind, columns in made.items() if kind in CORRUPTIONS}
    return Calibration(usual, kept, data.samples(np.arange(count)), heat, weights, stored)


def calibration_of(
    info: CheckpointInfo, inference: Inference, cache: str, cache_limit: str, data: str = ""
) -> Calibration:
    """The calibration of a run's checkpoint; made and kept where there is none yet, which takes the run's dataset.

    data: where that lies now. UserError when the method cannot score by one pass, and when the dataset is gone or
    another.
    """
    run, name = run_of(info.url), f"{info.name}.safetensors"
    if not (method := method_of(info.config)).ready(info.config, info.images_seen):
        instead = ", or --by a" if "a" in method.scores() else ""
        raise UserError(
            f"{info.url}: --method {method.name()} does not score in one pass here, so there is nothing to calibrate or"
            f" to export - give a finished run of a method that does{instead}"
        )
    opened, digest = open_cache(cache, cache_limit), _digest(info)
    own_name = f"{digest}.safetensors"
    places: list[tuple[Storage, str]] = [(open_storage(f"{run}/calibration"), name)]
    if (own := own_folder(opened.folder, make=False)) is not None:
        places.append((Folder(own), own_name))
    for storage, file in places:
        with contextlib.suppress(FileNotFoundError):
            return _read(read_bytes(storage, file), f"{storage.url}/{file}", digest, inference)
    config, _ = read_config(run)
    made = calibrated(inference, run_images(run, config, run_dataset(run, data, opened)))
    keep(_written(made, digest), run, name, opened.folder, own_name)
    return made


def run_of(checkpoint: str) -> str:
    """The run's URL of a checkpoint's."""
    head, _, middle = checkpoint.rstrip("/").rpartition("/")[0].rpartition("/")
    if middle != "checkpoints":
        raise UserError(f"{checkpoint}: lies in no run's folder, by whose images it is calibrated - give the run")
    return head


def _joined(parts: list[Values]) -> Values:
    def joined(columns: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: np.concatenate([each[name] for each in columns]) for name in columns[0]}

    return Values(joined([part.terms for part in parts]), joined([part.rows for part in parts]), None)


def _digest(info: CheckpointInfo) -> str:
    """Changes with any weight."""
    return hashlib.sha256(json.dumps(info.sha256, sort_keys=True).encode()).hexdigest()


def _written(made: Calibration, digest: str) -> bytes:
    tensors = {f"terms.{name}": column for name, column in made.terms.items()} | made.kept | {"samples": made.samples}
    tensors["weights"] = np.array([made.weights[name] for name in made.terms])
    tensors |= {f"made.{kind}.{name}": column for kind, terms in made.made.items() for name, column in terms.items()}
    if made.heat:
        tensors |= {"heat.middle": made.heat.middle, "heat.spread": made.heat.spread}
    return safetensors.numpy.save(tensors, {"checkpoint": digest, "heat": HEAT, "made": MADE})


def _read(content: bytes, url: str, digest: str, inference: Inference) -> Calibration:
    """FileNotFoundError when it was made for other weights or other terms: it is to be made again."""
    try:
        tensors = safetensors.numpy.load(content)
        length = int.from_bytes(content[:8], "little")
        facts = parse_json(content[8 : 8 + length])["__metadata__"]
        names = [name.removeprefix("terms.") for name in tensors if name.startswith("terms.")]
        joined = [term for term in inference.joined if term.name in names]
        compare = [term for term in joined if isinstance(term, Compared)]
        others = set(names) - {term.name for term in joined}
        if "weights" in tensors:  # else it is of a version that knew of fewer terms and weighed none: it stays
            others |= {term.name for term in inference.joined} - set(names)
        facts = {"made": MADE} | facts if "weights" not in tensors else facts
        if (
            facts != {"checkpoint": digest, "heat": HEAT, "made": MADE}
            or others
            or not {t.kept_as for t in compare} <= set(tensors)
        ):
            raise FileNotFoundError(url)
        heat = HeatScale(tensors["heat.middle"], tensors["heat.spread"]) if inference.reconstructs else None
        terms = {term.name: tensors[f"terms.{term.name}"] for term in joined}
        numbers = tensors["weights"].tolist() if "weights" in tensors else [1.0] * len(terms)
        weights = dict(zip(terms, numbers, strict=True))
        kept = {term.kept_as: tensors[term.kept_as] for term in compare}
        made = {
            kind: {name: tensors[f"made.{kind}.{name}"] for name in terms}
            for kind in CORRUPTIONS
            if any(key.startswith(f"made.{kind}.") for key in tensors)
        }
        result = Calibration(terms, kept, tensors["samples"], heat, weights, made)
        row_each = {term.kept_as for term in compare if term.row_each}
        _check(result, inference.resolution, row_each)
        return result
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        reason = " ".join(repr(error).split())[:200]
        raise UserError(f"{url}: damaged ({reason}) - delete {PurePosixPath(url).name}, it is made again") from None


def _check(calibration: Calibration, side: int, row_each: Collection[str]) -> None:
    """ValueError for numbers that no calibration gives. row_each: what is kept that has a row for each sample."""
    samples = calibration.samples
    if samples.ndim != 1 or samples.dtype != np.int64 or not 0 < len(samples) <= MAX_IMAGES:
        raise ValueError(f"samples of type {samples.dtype} and shape {samples.shape}")
    if samples.min() < 0 or len(np.unique(samples)) < len(samples):
        raise ValueError("samples that are below 0, or twice the same")
    heat = {"heat.middle": calibration.heat.middle, "heat.spread": calibration.heat.spread} if calibration.heat else {}
    shapes = dict.fromkeys(calibration.terms, (len(samples),)) | dict.fromkeys(heat, (side, side))
    for name, values in (calibration.terms | calibration.kept | heat).items():
        rows = len(samples) if name in row_each else values.shape[:1]
        wanted = shapes.get(name, (*np.atleast_1d(rows), *values.shape[1:2]))
        if values.dtype.kind != "f" or values.ndim != len(wanted) or values.shape != wanted:
            raise ValueError(f"{name} of type {values.dtype} and shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds NaN or infinite numbers")
    if not all(type(weight) is float and 0 <= weight < math.inf for weight in calibration.weights.values()):
        raise ValueError("weights that are below 0 or NaN or infinite")
    made = [column for terms in calibration.made.values() for column in terms.values()]
    if any(each.dtype.kind != "f" or each.shape != made[0].shape[:1] or not np.isfinite(each).all() for each in made):
        raise ValueError("terms of synthetic anomalies that are NaN or infinite, as many each")
    if calibration.heat and not (calibration.heat.spread > 0).all():
        raise ValueError("heat.spread is not above 0")
