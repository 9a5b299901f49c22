"""What the training images say of a detector's scores; all that a verdict without labels rests on.

Made once for a checkpoint, kept as RUN/calibration/CHECKPOINT.safetensors. Only scores are in it, and latent
directions, no images.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import BLOCK, TrainingSet
from data_tools.errors import UserError
from data_tools.progress import progress
from data_tools.storage import open_storage, read_bytes, write_bytes
from trainer.methods.table import can_score
from trainer.run.checkpoint import CheckpointInfo
from trainer.run.folder import read_config, run_images
from trainer.scoring.heat import HeatScale, heat_maps
from trainer.scoring.inference import AnomalyDetector
from trainer.scoring.terms import TERMS, direction_distances, unit_length

MOST = 20_000
"""Training images, at most, that calibrate and among which latents' neighbours are found."""
MOST_MAPS = 2_000
"""Of these, at most, whose heat maps say what is usual at a pixel."""
HEAT = "difference"
"""The kind of map that is shown: of those of heat.py it found made defects best."""


@dataclass(frozen=True)
class Calibration:
    """Of n training images.

    terms: each of TERMS, float64 n, an image's own latent left out of its neighbours. samples: int64 n, which of the
    training set's samples they are. directions: float32 n x N_z, their z_hat / ||z_hat||. heat: of the kind HEAT.
    """

    terms: dict[str, np.ndarray]
    samples: np.ndarray
    directions: np.ndarray
    heat: HeatScale

    def rows_of(self, samples: np.ndarray) -> np.ndarray:
        """Which rows here samples of the training set are, -1 where they are none: int64."""
        order = np.argsort(self.samples)
        places = np.minimum(np.searchsorted(self.samples[order], samples), len(order) - 1)
        found = order[places]
        return np.where(self.samples[found] == samples, found, -1)


def calibrated(detector: AnomalyDetector, data: TrainingSet) -> Calibration:
    """Calibrate on a training set: on all of it, or on the first 20,000 images that training saw, in random order."""
    count = min(len(data), MOST)
    blocks = [np.arange(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
    maps, latents, columns = [], [], []
    for block in progress(blocks, "calibrating", "blocks", len(blocks)):
        images = data.at(block)
        scores = detector.score(images, with_A=False)
        assert scores.z_hat is not None
        latents.append(scores.z_hat)
        columns.append(scores.columns())
        if block[0] < MOST_MAPS:
            maps.append(heat_maps(detector, images[: MOST_MAPS - block[0]], HEAT))
    z_hat = np.concatenate(latents)
    directions = unit_length(z_hat)
    terms = {name: np.concatenate([each[name] for each in columns]) for name in TERMS if name in columns[0]}
    terms["L_k"] = direction_distances(z_hat, directions, np.arange(count))
    return Calibration(terms, data.samples(np.arange(count)), directions, HeatScale.of(np.concatenate(maps)))


def calibration_of(info: CheckpointInfo, detector: AnomalyDetector, cache: str, cache_limit: str) -> Calibration:
    """The calibration of a run's checkpoint; made and kept where there is none yet, which takes the run's dataset.

    UserError when the method cannot score by one pass, and when the dataset is gone or another.
    """
    run, name = run_of(info.url), f"{info.name}.safetensors"
    if not can_score(info.config, info.images_seen):
        raise UserError(f"{info.url}: has no trained encoder to calibrate - give a finished run, or --by a")
    storage = open_storage(f"{run}/calibration")
    try:
        return _read(read_bytes(storage, name), f"{run}/calibration/{name}", _digest(info))
    except FileNotFoundError:
        pass
    config, digest = read_config(run)
    dataset = open_dataset(config.data, open_cache(cache, cache_limit))
    if dataset.manifest.digest != digest:
        raise UserError(f"{config.data}: is another dataset than {run} was trained on - restore it")
    made = calibrated(detector, run_images(run, config, dataset))
    write_bytes(storage, name, _written(made, _digest(info)))
    return made


def run_of(checkpoint: str) -> str:
    """The run's URL of a checkpoint's."""
    head, _, middle = checkpoint.rstrip("/").rpartition("/")[0].rpartition("/")
    if middle != "checkpoints":
        raise UserError(f"{checkpoint}: lies in no run's folder, by whose images it is calibrated - give the run")
    return head


def _digest(info: CheckpointInfo) -> str:
    """Changes with any weight."""
    return hashlib.sha256(json.dumps(info.sha256, sort_keys=True).encode()).hexdigest()


def _written(made: Calibration, digest: str) -> bytes:
    tensors = {f"terms.{name}": column for name, column in made.terms.items()} | {
        "samples": made.samples,
        "directions": made.directions,
        "heat.middle": made.heat.middle,
        "heat.spread": made.heat.spread,
    }
    return safetensors.numpy.save(tensors, {"checkpoint": digest, "heat": HEAT})


def _read(content: bytes, url: str, digest: str) -> Calibration:
    """FileNotFoundError when it was made for other weights: it is to be made anew."""
    try:
        tensors = safetensors.numpy.load(content)
        length = int.from_bytes(content[:8], "little")
        facts = json.loads(content[8 : 8 + length])["__metadata__"]
        if facts != {"checkpoint": digest, "heat": HEAT}:
            raise FileNotFoundError(url)
        terms = {name: tensors[f"terms.{name}"] for name in TERMS if f"terms.{name}" in tensors}
        heat = HeatScale(tensors["heat.middle"], tensors["heat.spread"])
        return Calibration(terms, tensors["samples"], tensors["directions"], heat)
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{url}: damaged ({error!r}) - delete {PurePosixPath(url).name}, it is made anew") from None
