"""The tables of one trial, from its trained networks: scores of the test images, latents, probes without labels."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np

from data_tools.cache import open_cache
from data_tools.reader import Dataset, open_dataset
from data_tools.storage import open_storage, read_bytes, write_bytes
from data_tools.training_set import training_set
from trainer.checkpoint import CheckpointInfo, checkpoint_names, newest_checkpoint, read_info
from trainer.config import TrainConfig
from trainer.detector import AnomalyDetector, Scores
from trainer.evaluation import PROVENANCE, has_labels, summary, test_images
from trainer.methods import can_score
from trainer.run_folder import read_config
from trainer.terms import direction_distance, fused
from tuning.label_free import CORRUPTIONS, corrupted, uniform_images

SCORES, PROBES, LATENTS, VALIDATION = "scores.csv", "probes.csv", "latents.npz", "validation.csv"
RESULT, STOPPED = "result.json", "stopped.json"
"""The last file of a trial that is finished, and the only one of a trial that was stopped early."""
REFERENCE = 2000
"""Training images, at most, that terms are calibrated on and nearest latents are looked for among."""
PROBED, COMPONENTS = 256, 5
"""Training images that stand for all where there are no labels; principal components of their uniform counterpart."""
CURVE = ("L_n", "L_o", "a_paper", "a_best")


def write_tables(trial: str) -> dict[str, float]:
    """Write all tables of a trial whose training is finished, result.json last; returns AUCs, with labels."""
    config, _ = read_config(f"{trial}/run")
    info = read_info(newest_checkpoint(f"{trial}/run"))
    detector = AnomalyDetector.from_checkpoint(info, with_critic=True)
    dataset = open_dataset(config.data, open_cache(config.cache, config.cache_limit))
    storage, labelled = open_storage(trial), has_labels(dataset)
    aucs: dict[str, float] = {}
    if labelled:
        scores = _score_test(detector, config, dataset)
        aucs = summary(scores[0], test_images(dataset)[1])
        write_bytes(storage, SCORES, as_csv(_score_rows(scores, dataset)))
        array = io.BytesIO()
        np.savez(array, test=scores[0].z_hat)  # type: ignore[arg-type]
        write_bytes(storage, LATENTS, array.getvalue())
    if can_score(config, info.images_seen):
        write_bytes(storage, PROBES, as_csv(_probe_rows(config, info, detector, dataset)))
    write_bytes(storage, VALIDATION, as_csv(_validation_rows(f"{trial}/run")))
    facts = {
        "images_seen": info.images_seen,
        "resolution": info.resolution,
        "labelled": labelled,
        "test_images": dataset.count("test-normal") + dataset.count("test-anomaly") if labelled else 0,
    }
    write_bytes(storage, RESULT, (json.dumps(facts, indent=2) + "\n").encode())
    return aucs


def _score_test(
    detector: AnomalyDetector, config: TrainConfig, dataset: Dataset
) -> tuple[Scores, dict[str, np.ndarray]]:
    """The test images' scores and terms; those that need the training images' latents, where these are a pass away."""
    images, _ = test_images(dataset)
    scores = detector.score(images)
    terms = scores.columns()
    if config.method != "search":
        data = training_set(dataset, config.gamma, config.seed, config.window)
        known = detector.score(data.at(np.arange(min(len(data), REFERENCE))))
        assert scores.z_hat is not None and known.z_hat is not None
        reference = known.columns() | {"L_k": direction_distance(known.z_hat, known.z_hat, are_reference=True)}
        terms["L_k"] = direction_distance(scores.z_hat, known.z_hat)
        terms["fused"] = fused(terms, reference)
    return scores, terms


def _score_rows(scored: tuple[Scores, dict[str, np.ndarray]], dataset: Dataset) -> list[list[Any]]:
    _, terms = scored
    origins = {label: dataset.provenance(f"test-{label}") for label in ("normal", "anomaly")}
    labels = [label for label, found in origins.items() for _ in found]
    others = [name for name in PROVENANCE if name != "key"]
    rows: list[list[Any]] = [["key", "label", *terms, *others]]
    for i, origin in enumerate(origin for found in origins.values() for origin in found):
        numbers = [repr(float(column[i])) for column in terms.values()]
        rows.append([origin["key"], labels[i], *numbers, *(origin.get(name, "") for name in others)])
    return rows


def _probe_rows(
    config: TrainConfig, info: CheckpointInfo, detector: AnomalyDetector, dataset: Dataset
) -> list[list[Any]]:
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
    rows: list[list[Any]] = [["kind", "image", "L_n", "L_o"]]
    for kind, scores in scored.items():
        rows += [[kind, i, repr(float(n)), repr(float(o))] for i, (n, o) in enumerate(zip(scores.L_n, scores.L_o))]
    return rows


def _validation_rows(run: str) -> list[list[Any]]:
    """The AUCs of each checkpoint, from the run's own metrics."""
    lines = [json.loads(line) for line in read_bytes(open_storage(run), "metrics.jsonl").splitlines()]
    resolutions = {line["images_seen"]: line["growth/resolution"] for line in lines if "growth/resolution" in line}
    rows: list[list[Any]] = [["images_seen", "resolution", *CURVE]]
    for line in sorted((line for line in lines if "validation/L_n" in line), key=lambda line: line["images_seen"]):
        values = [repr(line[f"validation/{name}"]) for name in CURVE]
        rows.append([line["images_seen"], resolutions.get(line["images_seen"], ""), *values])
    return rows


def as_csv(rows: list[list[Any]]) -> bytes:
    """Rows as the bytes of a CSV file."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
