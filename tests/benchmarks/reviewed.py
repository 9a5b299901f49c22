"""What decisions teach: AUC and recall of `reviewed` after 20 to 200 decisions, labels in the reviewer's place.

python -m tests.benchmarks.reviewed OUT.csv RUN ...: the reviewer takes the images from the top of the label-free list,
as a person does. A row for each run and number of decisions: AUC on the test set, recall of planted anomalies among the
2 % of training images ranked first, and the weights.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from data_tools.dataset.cache import open_cache
from trainer.run.folder import read_config, run_dataset, run_images_by_sample
from trainer.scoring.detector import Detector
from trainer.scoring.join import fused
from trainer.scoring.p_values import p_values
from trainer.scoring.reviewed import MIN_DECISIONS, MIN_EACH, learned_weights

DECISIONS = (0, 20, 50, 100, 200)


def rows_of(run: str) -> list[dict[str, object]]:
    detector = Detector.load(run)
    known = detector.calibrated
    config, _ = read_config(run)
    dataset = run_dataset(run, "", open_cache())
    images = run_images_by_sample(run, config, dataset)
    junk = np.array(["anomaly" in json.loads(line)["pool"] for line in images.lines])[known.samples]
    inside = np.full(len(junk), True)
    surprise = {name: -np.log(p_values(column, column, inside)) for name, column in known.terms.items()}
    order = np.argsort(-fused(known.terms, known.terms, known.weights, inside), kind="stable")
    tests = [dataset.images("test-normal"), dataset.images("test-anomaly")]
    labels = np.repeat([False, True], [len(each) for each in tests])
    terms = {
        name: np.concatenate(columns)
        for name, columns in zip(
            known.terms, zip(*[detector.score(each).terms.values() for each in tests], strict=True), strict=True
        )
    }
    found = []
    for count in DECISIONS:
        top = order[:count]
        enough = count >= MIN_DECISIONS and min(junk[top].sum(), (~junk[top]).sum()) >= MIN_EACH
        weights = known.weights
        if enough:
            weights = learned_weights({name: each[top] for name, each in surprise.items()}, junk[top], known.weights)
        scores = fused(known.terms, known.terms, weights, inside)
        ranking = np.argsort(-scores, kind="stable")
        first, undecided = ranking[: int(0.02 * len(scores))], ranking[~np.isin(ranking, top)]
        found.append(
            {
                "run": Path(run).name,
                "decisions": count,
                "junk": int(junk[top].sum()),
                "learned": "yes" if enough else "no",
                "auc": round(float(roc_auc_score(labels, fused(terms, known.terms, weights))), 4),
                "recall_2": round(float(junk[first].sum() / junk.sum()), 4),
                "next_100": int(junk[undecided[:100]].sum()),
                "left": int(junk[undecided].sum()),
                **{f"w_{name}": round(weight, 3) for name, weight in weights.items()},
            }
        )
    return found


def main(argv: list[str]) -> int:
    if len(argv) < 2:
        print(__doc__)
        return 2
    rows = [row for run in argv[1:] for row in rows_of(run)]
    with Path(argv[0]).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
