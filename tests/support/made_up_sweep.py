"""A finished sweep's folder of made-up figures, and a dataset to go with it, for tests of the report."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.dataset.patch import Patch
from data_tools.dataset.writer import write_dataset
from tests.support.checks import plan_of

LAMBDAS = [0.0, 0.05, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0]
METHODS = ("proposed", "proposed-dz", "fanogan", "search")
SIDE = 8
MEASURES = ("agreement_seeds", "agreement_checkpoints", "mass_volume", "excess_mass")


@dataclasses.dataclass(frozen=True)
class Made:
    """What to make up: a sweep's grid, its test set and what it varies."""

    name: str = "CIFAR_CAR"
    gammas: tuple[float, ...] = (0.0, 0.02)
    seeds: tuple[int, ...] = (0, 1)
    methods: tuple[str, ...] = METHODS
    options: tuple[dict[str, Any], ...] = ({},)
    lambdas: tuple[float, ...] = tuple(LAMBDAS)
    each_kind: int = 12
    latent: int = 6
    labelled: bool = True
    digest: str = "0"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def keys_of(made: Made) -> list[str]:
    return [f"{kind}-{i:04d}" for kind in ("normal", "anomaly") for i in range(made.each_kind)]


def make_trial(folder: Path, made: Made, trial: dict[str, Any], rng: np.random.Generator) -> None:
    """Scores on the method's scales, apart by some; latents of which the anomalous are shorter."""
    count, apart = 2 * made.each_kind, {"proposed": 1.2, "proposed-dz": 0.7, "fanogan": 0.3}.get(trial["method"], 0.1)
    labels = np.arange(count) >= made.each_kind
    names = ["L_n", "L_o", "L_r", "A", "D", *(["L_k", "fused"] if trial["method"] != "search" else [])]
    scales = {"L_n": (1e-3, 2e-4), "L_o": (-0.5, 0.03)}
    columns = {}
    for name in names:
        middle, spread = scales.get(name, (1.0, 0.5))
        shift = apart * rng.uniform(0.3, 1) * (1 - 5 * trial["gamma"])
        columns[name] = middle + spread * (rng.normal(size=count) + shift * labels)
    z = rng.normal(size=(count, made.latent)) - 0.4 * apart * labels[:, None]
    rows = [
        {"key": key, "label": "anomaly" if label else "normal"}
        | {name: repr(float(column[i])) for name, column in columns.items()}
        | {"source": "made-up", "class": "car, red", "angle": ""}
        for i, (key, label) in enumerate(zip(keys_of(made), labels))
    ]
    if not made.labelled:
        rows = [{key: value for key, value in row.items() if key != "label"} for row in rows]
    write_rows(folder / "scores.csv", rows)
    if made.labelled:
        np.savez(folder / "latents.npz", test=z.astype(np.float32))
    facts = {"images_seen": 44_000, "resolution": SIDE, "labelled": made.labelled, "scored_images": count}
    write_json(folder / "result.json", facts)


def make_sweep(folder: Path, made: Made | None = None, seed: int = 0) -> Path:
    """A finished sweep as `python -m tuning sweep` leaves it, of made-up figures."""
    made, rng = made or Made(), np.random.default_rng(seed)
    trials = []
    for method, gamma, number, options in itertools.product(made.methods, made.gammas, made.seeds, made.options):
        ending = "".join(f"_{key}-{value}" for key, value in options.items())
        place = {"method": method, "gamma": gamma, "seed": number, "options": options}
        config = {"resolution": SIDE, "width": 64}
        trials.append({"name": f"{method}_gamma-{gamma:g}_seed-{number}{ending}", **place, "config": config})
        make_trial(folder / "trials" / trials[-1]["name"], made, trials[-1], rng)
    counts = {"train-normal": 50, "train-anomaly": 12, "test-normal": made.each_kind, "test-anomaly": made.each_kind}
    dataset = {"url": "data", "digest": made.digest, "counts": counts, "channels": 1}
    options = {"name": made.name, "data": str(folder.parent / "data"), "preset": "cifar_car"}
    plan = {
        "version": 1,
        "digest": "0",
        "sweep": options,
        "dataset": dataset,
        "lambdas": made.lambdas,
        "trials": trials,
    }
    write_json(folder / "plan.json", plan)
    if made.labelled:
        for gamma, number in itertools.product(made.gammas, made.seeds):
            labels = np.arange(2 * made.each_kind) >= made.each_kind
            shifts = {"minus_std": 0.6, "neighbours": 0.3, "pca": -0.2, "kde": 0.1}
            rows = [
                {"key": key, "label": "anomaly" if label else "normal"}
                | {name: repr(float(rng.normal() + shift * label)) for name, shift in shifts.items()}
                for key, label in zip(keys_of(made), labels)
            ]
            write_rows(folder / f"baselines/gamma-{gamma:g}_seed-{number}/scores.csv", rows)
    label_free, choice = [], []
    for method, options, gamma in itertools.product(made.methods, made.options, made.gammas):
        if method == "search":
            continue
        place = {"method": method, "options": " ".join(f"{k}={v}" for k, v in options.items()), "gamma": gamma}
        for lam in made.lambdas:
            bend = 0.7 + 0.2 * np.sin(6 * lam**9) + rng.normal() * 0.005
            kinds = {
                f"separation_{kind}": bend + step for kind, step in (("cut-paste", 0.05), ("noise", 0), ("blot", -0.05))
            }
            row = place | {"lambda": lam, "separation": bend, **kinds} | dict.fromkeys(MEASURES, bend)
            row["agreement_seeds"] = bend if len(made.seeds) > 1 else ""
            label_free.append(row | {"agreement_checkpoints": bend - 0.1, "auc": bend if made.labelled else ""})
        aucs = dict(zip(("auc_chosen", "auc_paper", "auc_best", "lambda_best"), (0.7, 0.65, 0.75, 0.9)))
        chosen = {
            "chosen_lambda": 0.99,
            "criterion": "separation",
            **(aucs if made.labelled else dict.fromkeys(aucs, "")),
        }
        choice.append(place | chosen)
    if label_free:
        write_rows(folder / "label_free.csv", label_free)
        write_rows(folder / "choice.csv", choice)
    return folder


def make_dataset(folder: Path, made: Made | None = None) -> Path:
    """The dataset whose images a made-up sweep scored."""
    made, rng = made or Made(), np.random.default_rng(1)
    y, x = np.mgrid[:SIDE, :SIDE]
    patches = []
    for key in keys_of(made):
        disc = np.hypot(y - SIDE / 2, x - SIDE / 2) < rng.uniform(0.2, 0.4) * SIDE
        image = np.where(disc if key.startswith("normal") else ~disc, 220, 60) + rng.integers(-30, 30, (SIDE, SIDE))
        pool = f"test-{key.split('-')[0]}" if made.labelled else "train-unlabelled"
        patches.append(Patch(image.astype(np.uint8)[..., None], pool, key))
    if made.labelled:
        patches.append(Patch(np.zeros((SIDE, SIDE, 1), np.uint8), "train-normal", "train"))
    write_dataset(plan_of(patches), str(folder), SIDE, 1, {})
    return folder
