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
from trainer.scoring.inference import Scores

NORMAL, ANOMALY = "#2a78b5", "#d1495b"


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


def roc_figure(scores: Scores, labels: np.ndarray, best_lambda: float, path: Path) -> None:
    """ROC curves of L_n, L_o and a at both lambdas."""
    figure, axes = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
    rows = {
        "L_n": scores.L_n,
        "L_o": scores.L_o,
        "a, λ 0.05": scores.anomaly(),
        f"a, best λ {best_lambda:.4g}": scores.anomaly(best_lambda),
    }
    for name, score in rows.items():
        false_positive, true_positive, _ = roc_curve(labels, score)
        style = "--" if "0.05" in name else "-"  # almost L_o, whose curve it would hide
        axes.plot(false_positive, true_positive, style, label=f"{name}: AUC {auc(labels, score):.3f}")
    axes.plot([0, 1], [0, 1], color="0.8", zorder=0)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC on the test set", aspect="equal")
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def histogram_figure(scores: Scores, labels: np.ndarray, best_lambda: float, path: Path) -> None:
    """Normal against anomalous: distributions of L_n, L_o and a at the best lambda."""
    figure, all_axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    panels = {"L_n": scores.L_n, "L_o": scores.L_o, f"a, λ {best_lambda:.4g}": scores.anomaly(best_lambda)}
    for axes, (name, score) in zip(all_axes, panels.items()):
        bins = np.histogram_bin_edges(score, bins=40)
        for label, color, wanted in (("normal", NORMAL, False), ("anomalous", ANOMALY, True)):
            axes.hist(score[labels == wanted], bins=bins, color=color, alpha=0.6, label=label, density=True)
        axes.set(xlabel=name, yticks=[])
    all_axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def lambda_figure(scores: Scores, labels: np.ndarray, path: Path) -> None:
    """AUC of a over lambda, on a logit axis: the interesting values crowd near 1."""
    grid, aucs = lambda_curve(scores, labels)
    inside = (grid > 0) & (grid < 1)
    figure, axes = plt.subplots(figsize=(4.6, 3.4), layout="constrained")
    axes.plot(grid[inside], aucs[inside], color="0.2")
    axes.axvline(0.05, color=NORMAL, linestyle=":", label="λ 0.05 (paper)")
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
