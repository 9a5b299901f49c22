"""Published areas under the ROC curve, to stand beside ours (Berg, Ahlberg, Felsberg 2019, tables 1 and 2)."""

from __future__ import annotations

SOURCE = "Berg, Ahlberg, Felsberg 2019, arXiv 1905.11034"
DATASETS = ("CIFAR_CAR", "KTH")
GAMMAS = (0.0, 0.02)

TABLE_1: dict[tuple[str, str], float] = {
    ("proposed", "L_n"): 0.77,
    ("proposed", "L_o"): 0.88,
    ("proposed", "a"): 0.90,
    ("proposed-dz", "L_n"): 0.66,
    ("proposed-dz", "L_o"): 0.69,
    ("proposed-dz", "a"): 0.66,
}
"""Method and score to AUC, on KTH-Cellvideos without contamination; a is at lambda 0.05."""

TABLE_2: dict[tuple[str, str], tuple[tuple[float, float], tuple[float, float]]] = {
    ("fanogan", "A"): ((0.45, 0.44), (0.45, 0.43)),
    ("fanogan", "L_r"): ((0.41, 0.40), (0.40, 0.40)),
    ("fanogan", "L_n"): ((0.54, 0.51), (0.78, 0.76)),
    ("fanogan", "L_o"): ((0.53, 0.50), (0.55, 0.43)),
    ("proposed", "A"): ((0.49, 0.47), (0.55, 0.53)),
    ("proposed", "L_r"): ((0.42, 0.41), (0.51, 0.51)),
    ("proposed", "L_n"): ((0.58, 0.56), (0.78, 0.78)),
    ("proposed", "L_o"): ((0.70, 0.63), (0.89, 0.87)),
    ("proposed", "a"): ((0.72, 0.64), (0.90, 0.89)),
}
"""Method and score to AUCs, by dataset as in DATASETS, then by contamination as in GAMMAS; a is at lambda 0.05."""


def published(method: str, score: str) -> dict[tuple[str, float], float]:
    """Table 2's AUCs of a method's score by dataset and contamination; empty where the paper gives none."""
    rows = TABLE_2.get((method, score), ())
    return {(name, gamma): value for name, row in zip(DATASETS, rows) for gamma, value in zip(GAMMAS, row)}
