"""Measurements of the detector without labels, on trained runs of labelled datasets: `make label-free DO="KIND RUN …"`.

    scores RUN …       AUC of every term and every plain baseline, three joins of the terms
    audit RUN …        recall of planted anomalies near the top of the training set
    alarms RUN …       realised false alarms on held-out normal images against the interval
    heat RUN …         pixel AUROC of each kind of heat map on synthetic defects
    neighbours RUN     what a part of the training images costs in L_k, and its speed
    carried RUN        images/s of exported detectors

Each prints CSV; labels are only ever used to measure.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from data_tools.commands.options import CacheOptions
from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import Dataset, open_dataset
from data_tools.dataset.training_set import all_images
from tests.support.defects import DEFECTS, with_defects
from trainer.commands.export import Export
from trainer.config import TrainConfig
from trainer.export.standalone import Detector as Carried
from trainer.run.checkpoint import newest_checkpoint, read_info
from trainer.run.folder import run_images
from trainer.scoring.calibration import Calibration
from trainer.scoring.detector import Detector
from trainer.scoring.evaluation import auc, test_images
from trainer.scoring.heat import KINDS, HeatScale, blurred, full_size
from trainer.scoring.p_values import p_values
from trainer.scoring.synthetic import CORRUPTIONS, corrupted, separation
from trainer.scoring.terms.neighbours import TERM as L_K
from trainer.scoring.terms.neighbours import unit_length
from tuning.baselines import baseline_scores
from tuning.sweep import BASELINE_IMAGES, averaged

Row = dict[str, Any]
TOP = (0.02, 0.05, 0.1)


def place(run: str) -> tuple[TrainConfig, Dataset, Detector, Calibration]:
    config = read_info(newest_checkpoint(run)).config
    judge = Detector.load(run, cache=config.cache)
    assert judge.calibration
    return config, open_dataset(config.data, open_cache(config.cache)), judge, judge.calibration


def joins(terms: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Ways to join terms that were tried: p-values by Fisher, sums over interquartile ranges, all or above 0 only."""
    scaled = [(terms[t] - np.median(known[t])) / np.subtract(*np.percentile(known[t], [75, 25])) for t in known]
    surprise = [-np.log(p_values(terms[t], known[t])) for t in known]
    return {
        "join: Fisher's sum of -log p": np.sum(surprise, axis=0),
        "join: sum over interquartile ranges": np.sum(scaled, axis=0),
        "join: the same, above 0 only": np.sum(np.maximum(scaled, 0), axis=0),
        "join: greatest -log p": np.max(surprise, axis=0),
    }


def scores(run: str) -> Iterator[Row]:
    config, dataset, judge, calibration = place(run)
    images, labels = test_images(dataset)
    found = judge.score(images)
    columns = {**found.terms, "a": 0.05 * found.terms["L_n"] + 0.95 * found.terms["L_o"], "fused": found.score}
    columns |= joins(found.terms, calibration.terms)
    data = run_images(run, config, dataset)
    factor = dataset.resolution // config.resolution
    train = averaged(data.at(np.arange(min(len(data), BASELINE_IMAGES))), factor)
    columns |= {f"plain: {n}": s for n, s in baseline_scores(train, averaged(images, factor), config.seed).items()}
    for name, column in columns.items():
        yield {"run": run, "gamma": config.gamma, "seed": config.seed, "score": name, "auc": auc(labels, column)}
    own = data.samples(
        np.arange(512)
    )  # how joins can be chosen without a label: synthetic anomalies among training images
    sound = judge.score(data.at(np.arange(512)), own).terms
    spoilt = {kind: _as_own(judge, corrupted(data.at(np.arange(512)), kind, 0), own) for kind in CORRUPTIONS}
    for name, base in joins(sound, calibration.terms).items():
        each = [separation(base, joins(terms, calibration.terms)[name]) for terms in spoilt.values()]
        row = {"run": run, "gamma": config.gamma, "seed": config.seed, "score": f"without labels, {name}"}
        yield row | {"auc": float(np.mean(each))}


def _as_own(judge: Detector, images: np.ndarray, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Terms of changed training images, the originals left out of their neighbours."""
    found = judge.inference.values(images)
    assert found.z_hat is not None
    assert judge.calibration
    rows = judge.calibration.rows_of(samples)
    return found.terms | {"L_k": L_K.distances(found.z_hat, judge.calibration.kept["directions"], rows)}


def audit(run: str) -> Iterator[Row]:
    config, dataset, judge, _ = place(run)
    blocks = list(all_images(dataset, config.gamma, config.seed))
    images = np.concatenate([block.images for block in blocks])
    planted = np.array([origin["pool"] == "train-anomaly" for block in blocks for origin in block.origins])
    found = judge.score(images, np.arange(len(images)))
    columns = {**found.terms, "a": 0.05 * found.terms["L_n"] + 0.95 * found.terms["L_o"], "fused": found.score}
    small = averaged(images, dataset.resolution // config.resolution)
    plain = baseline_scores(small, small, config.seed)
    low, high = (f(small.reshape(len(small), -1), axis=1, keepdims=True) for f in (np.min, np.max))
    scaled = (small.reshape(len(small), -1) - low) / np.maximum(high - low, 1)
    for name, pixels in (("neighbours", small.reshape(len(small), -1) / 255), ("neighbours, min-max", scaled)):
        near = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(pixels)
        plain[f"{name}, itself left out"] = near.kneighbors()[0].mean(axis=1)
    columns |= {f"plain: {name}": s for name, s in plain.items() if "itself" in name or "neighbour" not in name}
    for name, column in columns.items():
        order = np.argsort(-column, kind="stable")
        row: Row = {"run": run, "seed": config.seed, "score": name, "planted": int(planted.sum()), "of": len(images)}
        for share in TOP:
            row[f"recall in top {share:.0%}"] = planted[order[: int(share * len(images))]].sum() / planted.sum()
        yield row | {"auc": roc_auc_score(planted, column)}


def alarms(run: str) -> Iterator[Row]:
    config, dataset, judge, _ = place(run)
    score = judge.score(dataset.images("test-normal")).score
    draw, half = np.random.default_rng(0), len(score) // 2
    p = p_values(score, judge.known)
    for share in (0.01, 0.05, 0.1):
        limit = judge.threshold("false-alarms", share, judged=half)
        rates = [(draw.choice(score, half, replace=False) > limit.value).mean() for _ in range(20)]
        yield {
            "run": run,
            "gamma": config.gamma,
            "seed": config.seed,
            "wanted": share,
            "from": limit.alarms_low,
            "to": limit.alarms_high,
            "realised": float(np.mean(rates)),
            "inside of 20": sum(limit.alarms_low <= rate <= limit.alarms_high for rate in rates),
            "p below wanted": float((p <= share).mean()),
        }


def heat(run: str) -> Iterator[Row]:
    config, dataset, judge, _ = place(run)
    normal = dataset.images("test-normal")[:256]
    usual = run_images(run, config, dataset).at(np.arange(1000))
    detector, side = judge.inference, dataset.resolution
    for kind, of in KINDS.items():
        for blur in (False, True):

            def maps(images: np.ndarray, of=of, blur=blur) -> np.ndarray:
                return detector.maps(images, lambda response: blurred(of(response)) if blur else of(response))

            scale = HeatScale.of(maps(usual))
            for defect in DEFECTS:
                images, masks = with_defects(normal, defect, 0)
                plain = maps(images)
                measured = scale.applied(plain).astype(np.float32)
                centred = measured - np.median(measured, axis=(1, 2), keepdims=True)
                for name, each in (("no", plain), ("yes", measured), ("and centred", centred)):
                    found = full_size(each, side)
                    row = {"run": run, "map": kind, "blurred": blur, "calibrated": name}
                    yield row | {"defect": defect, "pixel auroc": roc_auc_score(masks.ravel(), found.ravel())}


def neighbours(run: str) -> Iterator[Row]:
    _, dataset, judge, calibration = place(run)
    images, labels = test_images(dataset)
    z_hat, known = judge.inference.values(images).z_hat, calibration.kept["directions"]
    assert z_hat is not None
    whole = L_K.distances(z_hat, known)
    for count in (250, 500, 1000, 2000, 4000, len(known)):
        part = L_K.distances(z_hat, known[:count])
        rank = float(spearmanr(part, whole).statistic)  # type: ignore[union-attr]
        yield {"run": run, "of": len(known), "known": count, "auc of L_k": auc(labels, part), "rank correlation": rank}
    draw = np.random.default_rng(0)
    many = unit_length(draw.normal(size=(20_000, 512)).astype(np.float32))
    begun = time.monotonic()
    L_K.distances(many[:10_000], many)
    rate = 10_000 / (time.monotonic() - begun)
    yield {"run": "made up, 512 long", "of": "", "known": 20_000, "auc of L_k": "", "rank correlation": f"{rate:.0f}/s"}


def carried(run: str) -> Iterator[Row]:
    config, dataset, judge, _ = place(run)
    images = np.resize(dataset.images("test-normal"), (1024, *dataset.images("test-normal").shape[1:]))
    with tempfile.TemporaryDirectory() as scratch:
        for form in ("onnx", "torch"):
            Export(run, f"{scratch}/{form}", form, caching=CacheOptions(config.cache))()
        ours: dict[str, Any] = {form: Carried(Path(scratch) / form).score for form in ("onnx", "torch")}
        ours["the judge, heat maps included"] = lambda batch: (judge.score(batch), judge.heat(batch))
        for name, score in ours.items():
            score(images[:128])
            rates = []
            for _ in range(5):
                begun = time.monotonic()
                score(images)
                rates.append(len(images) / (time.monotonic() - begun))
            yield {"run": run, "by": name, "images/s": float(np.median(rates))}


MEASURES = {each.__name__: each for each in (scores, audit, alarms, heat, neighbours, carried)}


def main(argv: list[str]) -> None:
    if len(argv) < 2 or argv[0] not in MEASURES:
        sys.exit(__doc__)
    writer = None
    for run in argv[1:]:
        for row in MEASURES[argv[0]](run):
            if writer is None:
                writer = csv.DictWriter(sys.stdout, row)
                writer.writeheader()
            short = {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in row.items()}
            writer.writerow(short | {"run": run.rstrip("/").rpartition("/")[2]})
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
