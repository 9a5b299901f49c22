"""The evaluation of a run: score table, figures and a page that a person wants to look at."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.dataset.reader import Dataset
from data_tools.storage import open_storage, read_bytes
from data_tools.storage.output_folder import OutputFolder
from trainer.report.figures import histogram_figure, lambda_figure, matches_figure, roc_figure, shown_scores
from trainer.report.pages import rendered
from trainer.run.checkpoint import CheckpointInfo
from trainer.scoring.by_class import Kind, auc_by_class, auc_by_planted
from trainer.scoring.evaluation import ScoreTable, auc, summary, test_images
from trainer.scoring.inference import Inference
from trainer.scoring.join import FUSED, PAPER_LAMBDA, WEIGHTED

EVALUATION = OutputFolder("an evaluation", re.compile(r"index\.html|scores\.csv|summary\.json|[a-z-]+\.png"))
SHOWN = 10  # queries per picture of closest matches


@dataclass(frozen=True)
class Row:
    """A line of the result table; meaning: what the score is."""

    name: str
    auc: float
    meaning: str
    is_trained: bool = True

    @property
    def note(self) -> str:
        return self.meaning if self.is_trained else f"{self.meaning}: no training"


PLAIN = {"minus_std": "standard deviation of the image, negated", "minus_max": "largest pixel, negated"}


def result_rows(inference: Inference, table: ScoreTable) -> list[Row]:
    """The AUCs, what needs no labels first: `fused`, the method's terms, a at both lambdas, one number of the image."""
    s = summary(table.scores, table.labels)
    terms = {term.name: term for term in inference.terms}
    rows = [
        Row(name, s[name], terms[name].meaning, terms[name].is_trained) for name in table.scores.terms if name != FUSED
    ]
    if "a_paper" in s:
        mixed = [
            Row(f"a, lambda {PAPER_LAMBDA:g}", s["a_paper"], "the paper's lambda"),
            Row(f"a, lambda {s['best_lambda']:.5g}", s["a_best"], "best lambda on this test set: an upper bound"),
        ]
        place = 1 + max(i for i, row in enumerate(rows) if row.name in WEIGHTED)
        rows = [*rows[:place], *mixed, *rows[place:]]
    plain = [Row(name, auc(table.labels, column), PLAIN[name], False) for name, column in table.plain.items()]
    first = [Row(FUSED, s[FUSED], "the trusted terms joined; needs no labels")] if FUSED in s else []
    return first + rows + plain


def answer(rows: Sequence[Row], labels: np.ndarray) -> str:
    """What the table says, in a sentence or two: the first score against the best number that needs no training."""
    first, best = rows[0], max((row for row in rows if not row.is_trained), key=lambda row: row.auc)
    result = (
        f"Given an anomalous and a normal test image, {first.name} ranks the anomalous one higher in {first.auc:.1%} of"
        f" all pairs ({labels.sum():,} anomalous, {(~labels).sum():,} normal images). "
    )
    if best.auc < first.auc:
        return result + f"The best number that needs no training, the {best.meaning}, does so in {best.auc:.1%}."
    better = f"A number that needs no training does better: the {best.meaning}, {best.auc:.1%}."
    return f"{result}{better} Do not rely on this detector."


def kind_rows(info: CheckpointInfo, table: ScoreTable) -> list[Kind]:
    """The AUCs of the first score by class of the anomalies; none where all are of one."""
    known = (next(iter(table.scores.terms.values())), table.labels, table.provenance, info.config)
    return auc_by_planted(*known) + auc_by_class(*known)


def write_report(run: str, info: CheckpointInfo, inference: Inference, dataset: Dataset, table: ScoreTable) -> str:
    """Write scores.csv, summary.json, figures and index.html into RUN/evaluation; return the page's URL."""
    run = run.rstrip("/")
    with EVALUATION.replaced(f"{run}/evaluation") as out:
        _write(out, run, info, inference, dataset, table)
    return f"{run}/evaluation/index.html"


def _write(
    out: Path, run: str, info: CheckpointInfo, inference: Inference, dataset: Dataset, table: ScoreTable
) -> None:
    s = summary(table.scores, table.labels)
    table.write_csv(out / "scores.csv")
    facts = {"images_seen": info.images_seen, "resolution": info.resolution, "test_images": len(table.labels), **s}
    (out / "summary.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    shown, ranked_by = shown_scores(table.scores, s.get("best_lambda"))
    roc_figure(shown, table.labels, out / "roc.png")
    histogram_figure(shown, table.labels, out / "histograms.png")
    if "best_lambda" in s:
        lambda_figure(table.scores, table.labels, out / "lambda.png")
    if inference.reconstructs:
        _matches(out, inference, dataset, table.labels, shown[ranked_by])
    storage = open_storage(run)
    pictures = [name for name, _ in storage.tree() if name.startswith("pictures/")]
    for kind in ("real", "generated"):
        if drawn := [name for name in pictures if name.endswith(f"-{kind}.png")]:
            (out / f"{kind}.png").write_bytes(read_bytes(storage, drawn[-1]))
    rows = result_rows(inference, table)
    page = rendered(
        Path(__file__).parent / "report.html",
        run=run.rpartition("/")[2],
        info=info,
        config=info.config,
        answer=answer(rows, table.labels),
        rows=rows,
        kinds=kind_rows(info, table),
        first=next(iter(table.scores.terms)),
        summary=s,
        ranked_by=ranked_by,
        matches=inference.reconstructs,
        generated=(out / "generated.png").exists(),
    )
    (out / "index.html").write_text(page, encoding="utf-8")


def _matches(out: Path, inference: Inference, dataset: Dataset, labels: np.ndarray, scores: np.ndarray) -> None:
    """Closest matches of evenly drawn normals and anomalies, and of the most anomalous images of all."""
    images, _ = test_images(dataset)
    normals, anomalies = np.flatnonzero(~labels), np.flatnonzero(labels)
    draws = {
        "normal": (_spread(normals), "normal test images (score above each)"),
        "anomalous": (_spread(anomalies), "anomalous test images (score above each)"),
        "top": (np.argsort(-scores)[:SHOWN], "the images with the highest scores"),
    }
    for name, (chosen, title) in draws.items():
        part = images[chosen]
        queries = inference.seen(part)
        picture = out / f"matches-{name}.png"
        matches_figure(queries, inference.reconstruct(part), inference.heatmap(part), scores[chosen], picture, title)


def _spread(indices: np.ndarray) -> np.ndarray:
    return indices[np.linspace(0, len(indices) - 1, min(SHOWN, len(indices))).round().astype(int)]
