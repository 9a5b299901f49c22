"""Pictures and figures: grids of images, ROC and lambda curves, histograms, closest matches."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.metrics import roc_curve

from trainer.scoring.evaluation import auc, lambda_curve
from trainer.scoring.inference import Values
from trainer.scoring.join import FUSED, PAPER_LAMBDA, WEIGHTED

NORMAL, ANOMALY = "#2a78b5", "#d1495b"
SHOWN_TERMS = 4


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Float images N x H x W x C in [-1, 1] to one uint8 grid, two pixels of white between them."""
    n, h, w, c = images.shape
    rows = -(-n // columns)
    grid = np.full((rows * (h + 2) - 2, columns * (w + 2) - 2, c), 255, np.uint8)
    pixels = np.clip(np.rint((images + 1) * 127.5), 0, 255).astype(np.uint8)
    for i, image in enumerate(pixels):
        top, left = i // columns * (h + 2), i % columns * (w + 2)
        grid[top : top + h, left : left + w] = image
    return grid


def save_picture(grid: np.ndarray, path: Path, scale: int = 1) -> None:
    """Write uint8 H x W x C (C 1 or 3) as PNG, each pixel `scale` pixels wide."""
    picture = Image.fromarray(grid.squeeze(2) if grid.shape[2] == 1 else grid)
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(path)


def shown_scores(scores: Values, best_lambda: float | None) -> tuple[dict[str, np.ndarray], str]:
    """The scores that figures show, by title, and which of them ranks: `fused`, where it is there.

    Besides it a with its terms where there is one, else the first terms, of which the method is known by the first.
    best_lambda: of a; None where there is none.
    """
    if FUSED in scores.terms:
        others = Values({name: each for name, each in scores.terms.items() if name != FUSED}, {}, None)
        return {FUSED: scores[FUSED], **shown_scores(others, best_lambda)[0]}, FUSED
    if best_lambda is None:
        shown = dict(list(scores.terms.items())[:SHOWN_TERMS])
        return shown, next(iter(shown))
    ranks = f"a, best λ {best_lambda:.4g}"
    terms = {name: scores[name] for name in WEIGHTED}
    return {**terms, f"a, λ {PAPER_LAMBDA:g}": scores.anomaly(), ranks: scores.anomaly(best_lambda)}, ranks


def roc_figure(shown: dict[str, np.ndarray], labels: np.ndarray, path: Path) -> None:
    """ROC curves of scores by title."""
    figure, axes = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
    for name, score in shown.items():
        false_positive, true_positive, _ = roc_curve(labels, score)
        style = "--" if name == f"a, λ {PAPER_LAMBDA:g}" else "-"  # almost L_o, whose curve it would hide
        axes.plot(false_positive, true_positive, style, label=f"{name}: AUC {auc(labels, score):.3f}")
    axes.plot([0, 1], [0, 1], color="0.8", zorder=0)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC on the test set", aspect="equal")
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def histogram_figure(shown: dict[str, np.ndarray], labels: np.ndarray, path: Path) -> None:
    """Normal against anomalous: distributions of scores by title, without a at the paper's lambda, which is L_o."""
    panels = {name: score for name, score in shown.items() if name != f"a, λ {PAPER_LAMBDA:g}"}
    count = len(panels)
    figure, grid = plt.subplots(1, count, figsize=(11 * count / 3, 3), layout="constrained", squeeze=False)
    for axes, (name, score) in zip(grid[0], panels.items()):
        bins = np.histogram_bin_edges(score, bins=40)
        for label, color, wanted in (("normal", NORMAL, False), ("anomalous", ANOMALY, True)):
            axes.hist(score[labels == wanted], bins=bins, color=color, alpha=0.6, label=label, density=True)
        axes.set(xlabel=name, yticks=[])
    grid[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def lambda_figure(scores: Values, labels: np.ndarray, path: Path) -> None:
    """AUC of a over lambda, on a logit axis: the interesting values crowd near 1."""
    grid, aucs = lambda_curve(scores, labels)
    inside = (grid > 0) & (grid < 1)
    figure, axes = plt.subplots(figsize=(4.6, 3.4), layout="constrained")
    axes.plot(grid[inside], aucs[inside], color="0.2")
    axes.axvline(PAPER_LAMBDA, color=NORMAL, linestyle=":", label=f"λ {PAPER_LAMBDA:g} (paper)")
    axes.axvline(grid[aucs.argmax()], color=ANOMALY, linestyle=":", label="best on this test set")
    axes.set_xscale("logit")
    axes.set_xticks([0.05, 0.5, 0.95, 0.999, 0.99999], ["0.05", "0.5", "0.95", "0.999", "0.99999"])
    axes.minorticks_off()
    axes.set(xlabel="λ  (0: L_o alone, 1: L_n alone)", ylabel="AUC of a")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def matches_figure(
    queries: np.ndarray, matches: np.ndarray, heat: np.ndarray, scores: np.ndarray, path: Path, title: str
) -> None:
    """Columns of query, closest match (float N x r x r x C in [-1, 1]) and heat map (N x r x r)."""
    n = len(queries)
    figure, axes = plt.subplots(3, n, figsize=(n * 0.95, 3.5), layout="constrained", squeeze=False)
    top = max(float(heat.max()), 1e-6)
    for i in range(n):
        for row, image in enumerate((queries[i], matches[i])):
            axes[row, i].imshow(np.clip((image.squeeze() + 1) / 2, 0, 1), cmap="gray", vmin=0, vmax=1)
        axes[2, i].imshow(heat[i], cmap="magma", vmin=0, vmax=top)
        axes[0, i].set_title(f"{scores[i]:.4f}", fontsize=7)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for row, name in enumerate(("query", "closest match", "heat map")):
        axes[row, 0].set_ylabel(name, fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
