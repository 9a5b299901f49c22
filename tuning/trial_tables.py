"""The tables of one trial, from its trained networks: scores of images, latents, probes without labels."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import Dataset, open_dataset
from data_tools.dataset.training_set import training_set
from data_tools.storage import open_storage, write_bytes
from trainer.config import TrainConfig
from trainer.run.checkpoint import CheckpointInfo, checkpoint_names, newest_checkpoint, read_info
from trainer.run.folder import read_config, run_images
from trainer.scoring.by_class import auc_by_planted
from trainer.scoring.comparison import compared, kept_of
from trainer.scoring.evaluation import heading, provenance_columns, summary
from trainer.scoring.inference import Inference, Values
from trainer.scoring.join import WEIGHTED, fused, has_a
from trainer.scoring.synthetic import LOCAL, corrupted
from trainer.scoring.terms.base import Compared
from trainer.scoring.trust import judged_of, synthetic_terms, trusted
from tuning.costs import parameter_count, training_minutes
from tuning.label_free import uniform_images
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
    inference = Inference.from_checkpoint(info)
    dataset = open_dataset(config.data, open_cache(config.cache, config.cache_limit))
    storage, judged = open_storage(trial), scored_images(dataset)
    ready = inference.method.ready(config, info.images_seen)
    values, scores = _score(inference, ready, config, dataset, judged)
    write_bytes(storage, SCORES, _score_csv(scores, judged).encode())
    aucs: dict[str, float] = {}
    kinds: dict[str, dict[str, float]] = {}
    if judged.labels is not None:
        aucs = summary(values, judged.labels)
        kinds = _by_kind(scores, judged.labels, judged.provenance, config)
        if values.z_hat is not None:
            array = io.BytesIO()
            np.savez(array, test=values.z_hat)
            write_bytes(storage, LATENTS, array.getvalue())
    if ready and has_a(scores):
        write_bytes(storage, PROBES, _probe_csv(config, info, inference, dataset).encode())
    facts = {
        "images_seen": info.images_seen,
        "resolution": info.resolution,
        "labelled": judged.labels is not None,
        "scored_images": len(judged.images),
        "terms": list(scores),
        "kinds": kinds,
        "minutes": round(training_minutes(storage), 2),
        "parameters": parameter_count(config, dataset.channels),
    }
    write_bytes(storage, RESULT, (json.dumps(facts, indent=2) + "\n").encode())
    return aucs


def _by_kind(
    scores: dict[str, np.ndarray], labels: np.ndarray, provenance: list[dict[str, Any]], config: TrainConfig
) -> dict[str, dict[str, float]]:
    """AUCs by score, of anomalies of planted classes and of others; empty where the training names none."""
    result: dict[str, dict[str, float]] = {}
    for name, score in scores.items():
        for kind in auc_by_planted(score, labels, provenance, config):
            result.setdefault(kind.name, {})[name] = kind.auc
    return result


def _score(
    inference: Inference, ready: bool, config: TrainConfig, dataset: Dataset, judged: ScoredImages
) -> tuple[Values, dict[str, np.ndarray]]:
    """Images' terms, and all their scores: those that compare with training images too where these are a pass away.

    Where nothing is labelled the images are training images, and stand for all of them.
    """
    if not ready:
        values = inference.values(judged.images, [term for term in inference.terms if not isinstance(term, Compared)])
        return values, values.terms
    values = known = inference.values(judged.images)
    images = judged.images
    own = np.arange(len(images))
    if judged.labels is not None:
        data = run_images(config.out, config, dataset)
        own = np.arange(min(len(data), REFERENCE))
        images = data.at(own)
        known = inference.values(images)
    kept = kept_of(inference.terms, known)
    reference = compared(inference.joined, known, kept, own)
    scores = compared(inference.terms, values, kept, own if known is values else None)
    weights = trusted(
        inference.joined, *synthetic_terms(inference, inference.joined, images[: judged_of(len(images))], known)
    )
    is_known = np.full(len(own), True) if known is values else None
    return values, scores | {"fused": fused(scores, reference, weights, is_known)}


def _score_csv(scores: dict[str, np.ndarray], judged: ScoredImages) -> str:
    others = [name for name in provenance_columns(judged.provenance) if name != "key"]
    labels = [""] * len(judged.images) if judged.labels is None else np.where(judged.labels, "anomaly", "normal")
    rows = [
        [origin["key"], label, *(column[i] for column in scores.values()), *(origin.get(name) for name in others)]
        for i, (label, origin) in enumerate(zip(labels, judged.provenance))
    ]
    return csv_text(["key", "label", *scores, *map(heading, others)], rows)


def _probe_csv(config: TrainConfig, info: CheckpointInfo, inference: Inference, dataset: Dataset) -> str:
    """L_n and L_o of some training images, the same for all trials, of corrupted copies, and of uniform images.

    Also those of the images by the checkpoint before: a ranking that is worth something does not change at once.
    """
    data = training_set(dataset, 0.0, 0, config.window)
    images = data.at(np.arange(min(len(data), PROBED)))
    probes = {"reference": images} | {kind: corrupted(images, kind, seed=0) for kind in LOCAL}
    probes["uniform"] = uniform_images(images, 4 * PROBED, COMPONENTS, seed=0)
    terms = [term for term in inference.terms if term.name in WEIGHTED]
    scored = {kind: inference.values(each, terms) for kind, each in probes.items()}
    earlier = checkpoint_names(f"{config.out}")[:-1]
    if earlier:
        before = read_info(f"{config.out}/checkpoints/{earlier[-1]}")
        if inference.method.ready(config, before.images_seen) and before.resolution == info.resolution:
            scored["before"] = Inference.from_checkpoint(before).values(images, terms)
    columns = {kind: [each[name] for name in WEIGHTED] for kind, each in scored.items()}
    rows = [[kind, i, *numbers] for kind, each in columns.items() for i, numbers in enumerate(zip(*each))]
    return csv_text(["kind", "image", *WEIGHTED], rows)
