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

PEERS: dict[tuple[str, str], float] = {
    ("geom", "dirichlet"): 0.957,
    ("svdd", "d"): 0.659,
    ("ae", "e"): 0.574,
    ("adgan", "adgan"): 0.39,
    ("baseline", "one_class_svm"): 0.638,
    ("baseline", "isolation_forest"): 0.508,
    ("baseline", "neighbours"): 0.442,
}
"""Method and score to AUC on CIFAR-10 with cars normal, without contamination, at 32x32."""
PEERS_SOURCE = (
    "of other systems Goyal et al. 2020 (DROCC) and, for ADGAN, Golan and El-Yaniv 2018, at 32x32, with"
    " the authors' networks, on all test images, the nearest neighbour being one"
)


def published(method: str, score: str) -> dict[tuple[str, float], float]:
    """AUCs of a method's score by dataset and contamination, as papers have them; empty where none does."""
    if (method, score) in PEERS:
        return {("CIFAR_CAR", 0.0): PEERS[method, score]}
    rows = TABLE_2.get((method, score), ())
    return {(name, gamma): value for name, row in zip(DATASETS, rows) for gamma, value in zip(GAMMAS, row)}
