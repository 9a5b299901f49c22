"""What people decided about a run's training images, as weights for its terms; kept beside the decisions."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from data_tools.dataset.by_sample import ImagesBySample
from data_tools.dataset.cache import Cache
from data_tools.errors import UserError
from data_tools.storage import open_storage, read_bytes, write_bytes
from data_tools.untrusted import JSON_BYTES, parse_json
from trainer.run.checkpoint import CheckpointInfo
from trainer.run.decisions import FINE, FOLDER, JUNK, Decision, Decisions
from trainer.run.folder import run_dataset, run_images_by_sample
from trainer.scoring.calibration import Calibration, run_of, terms_of
from trainer.scoring.inference import Inference
from trainer.scoring.p_values import p_values
from trainer.scoring.reviewed import MIN_DECISIONS, MIN_EACH, learned_weights

WEIGHTS = "weights.json"


def decided(runs: Sequence[str]) -> dict[str, bool]:
    """Of the keys that people called junk or fine in the reviews of some runs whether they are junk.

    UserError where these are too few to learn from.
    """
    latest: dict[str, Decision] = {}
    for run in runs:
        for key, each in Decisions(f"{run}/{FOLDER}/decisions", "").latest.items():
            latest[key] = max(each, latest.get(key, each))
    result = {key: each.choice == JUNK for key, each in latest.items() if each.choice in (JUNK, FINE)}
    junk = sum(result.values())
    if len(result) < MIN_DECISIONS or min(junk, len(result) - junk) < MIN_EACH:
        raise UserError(
            f"--by reviewed: {runs[0]} has {junk} images that were called junk and {len(result) - junk} called fine -"
            f" decide on {MIN_DECISIONS} at least, {MIN_EACH} of each: python -m trainer review {runs[0]}"
        )
    return result


def with_decisions(
    info: CheckpointInfo,
    inference: Inference,
    calibration: Calibration,
    is_junk: Mapping[str, bool],
    cache: Cache,
    data: str,
) -> Calibration:
    """The calibration with weights learned from decisions, by key; data: where the run's dataset lies now.

    The weights are kept in the run, since to learn them takes the dataset.
    """
    run = run_of(info.url)
    text = json.dumps([info.sha256, calibration.weights, sorted(is_junk.items())], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    weights = _kept(run, digest, calibration)
    if weights is None:
        images = run_images_by_sample(run, info.config, run_dataset(run, data, cache))
        weights = _learned(inference, calibration, is_junk, images)
        content = json.dumps({"digest": digest, "weights": weights, "decisions": len(is_junk)}, indent=2) + "\n"
        with contextlib.suppress(UserError, OSError):  # learned again each time then
            write_bytes(open_storage(f"{run}/{FOLDER}"), WEIGHTS, content.encode())
    return replace(calibration, weights=weights)


def _learned(
    inference: Inference, calibration: Calibration, is_junk: Mapping[str, bool], images: ImagesBySample
) -> dict[str, float]:
    keys = [json.loads(line)["key"] for line in images.lines]
    samples = np.array([i for i, key in enumerate(keys) if key in is_junk], np.int64)
    terms, known = terms_of(inference, calibration, images.gather(samples), samples)
    surprise = {name: -np.log(p_values(terms[name], calibration.terms[name], known)) for name in calibration.terms}
    return learned_weights(surprise, np.array([is_junk[keys[i]] for i in samples]), calibration.weights)


def _kept(run: str, digest: str, calibration: Calibration) -> dict[str, float] | None:
    """None where there are none, or such as were learned from other decisions or of another checkpoint."""
    try:
        values = parse_json(read_bytes(open_storage(f"{run}/{FOLDER}"), WEIGHTS, JSON_BYTES))
        weights = {name: float(values["weights"][name]) for name in calibration.terms}
        sound = all(0 <= weight < math.inf for weight in weights.values()) and any(weights.values())
        return weights if values["digest"] == digest and sound else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
