"""The tables of one trial, from its trained networks: scores of images, latents, probes without labels."""

from __future__ import annotations

import io
import json

import numpy as np

from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import Dataset, open_dataset
from data_tools.dataset.training_set import training_set
from data_tools.storage import open_storage, write_bytes
from trainer.config import TrainConfig
from trainer.methods.table import can_score
from trainer.run.checkpoint import CheckpointInfo, checkpoint_names, newest_checkpoint, read_info
from trainer.run.folder import read_config, run_images
from trainer.scoring.evaluation import PROVENANCE, summary
from trainer.scoring.inference import AnomalyDetector, Scores
from trainer.scoring.terms import direction_distances, fused, unit_length
from tuning.label_free import CORRUPTIONS, corrupted, uniform_images
from tuning.scored import ScoredImages, scored_images
from tuning.sweep_files import csv_text

SCORES, PROBES, LATENTS = "scores.csv", "probes.csv", "latents.npz"
RESULT, STOPPED = "result.json", "stopped.json"
"""The last file of a trial that is finished, and the only one of a trial that was stopped early."""
REFERENCE = 2000
"""Training images, at most, that terms are calibrated on and nearest latents are looked for among."""
PROBED, COMPONENTS = 256, 5
"""Training images that stand for all where there are no labels; principal components of their uniform counterpart."""


def write_tables(trial: str) -> dict[str, float]:
    """Write all tables of a trial whose training is finished, result.json last; returns AUCs, with labels."""
    config, _ = read_config(f"{trial}/run")
    info = read_info(newest_checkpoint(f"{trial}/run"))
    detector = AnomalyDetector.from_checkpoint(info, with_critic=True)
    dataset = open_dataset(config.data, open_cache(config.cache, config.cache_limit))
    storage, judged = open_storage(trial), scored_images(dataset)
    scores, terms = _score(detector, config, dataset, judged)
    write_bytes(storage, SCORES, _score_csv(terms, judged).encode())
    aucs: dict[str, float] = {}
    if judged.labels is not None:
        aucs = summary(scores, judged.labels)
        array = io.BytesIO()
        np.savez(array, test=scores.z_hat)  # type: ignore[arg-type]
        write_bytes(storage, LATENTS, array.getvalue())
    if can_score(config, info.images_seen):
        write_bytes(storage, PROBES, _probe_csv(config, info, detector, dataset).encode())
    facts = {
        "images_seen": info.images_seen,
        "resolution": info.resolution,
        "labelled": judged.labels is not None,
        "scored_images": len(judged.images),
    }
    write_bytes(storage, RESULT, (json.dumps(facts, indent=2) + "\n").encode())
    return aucs


def _score(
    detector: AnomalyDetector, config: TrainConfig, dataset: Dataset, judged: ScoredImages
) -> tuple[Scores, dict[str, np.ndarray]]:
    """Images' scores and terms; those that need the training images' latents, where these are a pass away.

    Where nothing is labelled the images are training images, and stand for all of them.
    """
    scores = detector.score(judged.images)
    terms, known = scores.columns(), scores
    if config.method != "search":
        if judged.labels is not None:
            data = run_images(config.out, config, dataset)
            known = detector.score(data.at(np.arange(min(len(data), REFERENCE))))
        assert scores.z_hat is not None and known.z_hat is not None
        directions, own = unit_length(known.z_hat), np.arange(len(known.z_hat))
        reference = known.columns() | {"L_k": direction_distances(known.z_hat, directions, own)}
        terms["L_k"] = direction_distances(scores.z_hat, directions, own if known is scores else None)
        terms["fused"] = fused(terms, reference, np.full(len(own), True) if known is scores else None)
    return scores, terms


def _score_csv(terms: dict[str, np.ndarray], judged: ScoredImages) -> str:
    others = [name for name in PROVENANCE if name != "key"]
    labels = [""] * len(judged.images) if judged.labels is None else np.where(judged.labels, "anomaly", "normal")
    rows = [
        [origin["key"], label, *(column[i] for column in terms.values()), *(origin.get(name) for name in others)]
        for i, (label, origin) in enumerate(zip(labels, judged.provenance))
    ]
    return csv_text(["key", "label", *terms, *others], rows)


def _probe_csv(config: TrainConfig, info: CheckpointInfo, detector: AnomalyDetector, dataset: Dataset) -> str:
    """L_n and L_o of some training images, the same for all trials, of corrupted copies, and of uniform images.

    Also those of the images by the checkpoint before: a ranking that is worth something does not change at once.
    """
    data = training_set(dataset, 0.0, 0, config.window)
    images = data.at(np.arange(min(len(data), PROBED)))
    probes = {"reference": images} | {kind: corrupted(images, kind, seed=0) for kind in CORRUPTIONS}
    probes["uniform"] = uniform_images(images, 4 * PROBED, COMPONENTS, seed=0)
    scored = {kind: detector.score(each) for kind, each in probes.items()}
    earlier = checkpoint_names(f"{config.out}")[:-1]
    if earlier:
        before = read_info(f"{config.out}/checkpoints/{earlier[-1]}")
        if can_score(config, before.images_seen) and before.resolution == info.resolution:
            scored["before"] = AnomalyDetector.from_checkpoint(before).score(images)
    rows = [[kind, i, n, o] for kind, each in scored.items() for i, (n, o) in enumerate(zip(each.L_n, each.L_o))]
    return csv_text(["kind", "image", "L_n", "L_o"], rows)
