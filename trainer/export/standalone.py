"""Score images with this folder: numpy, and onnxruntime or torch, are all it needs.

    python score.py IMAGES.npy [--out scores.csv] [--heat heat.npy]

IMAGES.npy: N x H x W x C, or N x H x W where the detector takes grey images; uint8, or, where detector.json names an
intensity, integers of more bits or floats: its first number becomes 0, its second 255, by a straight line, as it
was with the images that the detector learned from. H = W is the detector's side or a whole multiple of it, and is then
averaged down. From Python:

    detector = Detector("this folder")
    scored = detector.score(images)  # score, p_value, anomalous, the terms that detector.json names, heat

A constant image counts as one without contrast: its min-max scaled self is 0 everywhere.

This file is a program, and a model.pt2 may hold code as well, which torch runs as it loads it: take such folders from
people you trust. That the model is the one that was exported is checked by its SHA-256.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np

BATCH = 64


class Detector:
    """What detector.json, calibration.npz and the model beside this file say."""

    def __init__(self, folder: str | Path = Path(__file__).parent) -> None:
        """ValueError, one line, where these files are not what export wrote."""
        self.folder = Path(folder)
        self.facts = self._read("detector.json", _facts)
        self.terms, self.heat = list(self.facts["terms"]), self.facts["heat"]
        known = self._read("calibration.npz", lambda path: _calibration(path, (*self.terms, "score")))
        self.known_scores = known.pop("score")
        self.known = known
        name, load = ("model.onnx", _onnx) if self.facts["format"] == "onnx" else ("model.pt2", _torch)
        self.run = self._read(name, lambda path: load(path, self.facts.get("sha256")))

    def _read(self, name: str, parse):
        try:
            return parse(self.folder / name)
        except FileNotFoundError:
            raise ValueError(f"{self.folder / name}: is missing - export the detector again") from None
        except ImportError:  # of onnxruntime or torch
            raise
        except Exception as error:  # parsers of foreign files raise anything
            reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
            raise ValueError(f"{self.folder / name}: damaged ({reason}) - export the detector again") from None

    def score(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """All that is known of N images, by name; ValueError, one line, for images that it cannot score.

        score: the greater, the more anomalous; p_value: the share of training images that score as high; anomalous:
        whether score is above the threshold in detector.json; the terms by their names; heat, where the method has
        heat maps: N x r x r, in units of what is usual at each pixel: 0 is usual, 3 is rare.
        """
        pixels = self._prepared(images)
        parts = [self._computed(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)]
        side = self.facts["resolution"]
        empty = [np.zeros(0, np.float32)] * len(self.terms) + [np.zeros((0, side, side), np.float32)] * self.heat
        columns = [np.concatenate(column) for column in zip(*parts)] if parts else empty
        result = {name: term.astype(np.float64) for name, term in zip(self.terms, columns)}
        heat = {"heat": columns[-1]} if self.heat else {}
        if not all(np.isfinite(term).all() for term in result.values()):
            raise ValueError(f"{self.folder}: the model gave NaN or infinite numbers - export the detector again")
        score = self.joined(result)
        p_value = _p_values(score, self.known_scores)
        return {"score": score, "p_value": p_value, "anomalous": score > self.facts["threshold"], **result, **heat}

    def _computed(self, pixels: np.ndarray) -> list[np.ndarray]:
        """What the model makes of a batch, if it is such as detector.json says."""
        n, side = len(pixels), self.facts["resolution"]
        try:
            columns = [np.asarray(column) for column in self.run(pixels)]
            what = [column.shape for column in columns]
            fits = what == [(n,)] * len(self.terms) + [(n, side, side)] * self.heat
        except Exception as error:  # a model for other images
            columns, what, fits = [], " ".join(f"{type(error).__name__} {error}".split())[:200], False
        if not fits:
            raise ValueError(f"{self.folder}: the model is not the one of detector.json ({what}) - export it again")
        return columns

    def joined(self, terms: dict[str, np.ndarray]) -> np.ndarray:
        """One score from the terms, as detector.json says."""
        weights = self.facts["weights"]
        if self.facts["by"] in ("fused", "reviewed"):  # folders of earlier versions name no weights then
            weights = weights or dict.fromkeys(self.terms, 1.0)
            logs = [weight * np.log(_p_values(terms[name], self.known[name])) for name, weight in weights.items()]
            return -np.sum(logs, axis=0)
        return np.sum([weight * terms[name] for name, weight in weights.items()], axis=0)

    def _prepared(self, images: np.ndarray) -> np.ndarray:
        """Checked and averaged down: float32 N x r x r x C in [0, 255]."""
        side, channels = self.facts["resolution"], self.facts["channels"]
        wanted = f"give uint8, N x {side} x {side} x {channels}"
        images = self._eight_bit(images)
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            kind = getattr(images, "dtype", type(images).__name__)
            raise ValueError(f"images of type {kind} - {wanted}, 0 to 255; of floats in [0, 1] np.rint(255 * x)")
        if images.ndim == 3 and channels == 1:
            images = images[..., None]
        if images.ndim != 4:
            raise ValueError(f"images of shape {images.shape} - {wanted}")
        n, height, width, depth = images.shape
        if depth != channels:
            raise ValueError(f"images with {depth} channels for a detector of {channels} - {wanted}")
        if height != width or height < side or height % side:
            raise ValueError(f"images of {height}x{width} for a detector of {side}x{side} - {wanted}")
        factor = height // side
        return images.reshape(n, side, factor, side, factor, channels).mean(axis=(2, 4), dtype=np.float32)

    def _eight_bit(self, images: np.ndarray) -> np.ndarray:
        """Values of more than 8 bits by the line that the detector's images went through, where there was one."""
        line = self.facts.get("intensity")
        if (
            not line
            or not isinstance(images, np.ndarray)
            or images.dtype.kind not in "uif"
            or images.dtype.itemsize == 1
        ):
            return images
        low, high = line
        result = np.empty(images.shape, np.uint8)
        for i, image in enumerate(images):
            values = image.astype(np.float64)
            if not np.isfinite(values).all():
                raise ValueError(f"image {i} holds NaN or infinite values - leave it out")
            result[i] = np.rint((np.clip(values, low, high) - low) * (255 / (high - low)))
        return result


def _p_values(scores: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(1 + training images that score as high or higher) / (1 + training images); known: ascending."""
    return (1 + len(known) - np.searchsorted(known, scores, side="left")) / (1 + len(known))


def _facts(path: Path) -> dict:
    """detector.json, as far as scores follow from it."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    side, channels, terms, weights = (facts[name] for name in ("resolution", "channels", "terms", "weights"))
    if type(side) is not int or not 4 <= side <= 2**15 or type(channels) is not int or not 1 <= channels <= 3:
        raise ValueError("resolution or channels")
    if facts["format"] not in ("onnx", "torch") or type(facts["heat"]) is not bool or not isinstance(terms, dict):
        raise ValueError("format, heat or terms")
    numbers = [facts["threshold"], *weights.values()]
    if not set(weights) <= set(terms) or not all(type(n) in (int, float) and np.isfinite(n) for n in numbers):
        raise ValueError("threshold or weights")
    if not weights and facts["by"] != "fused":
        raise ValueError("no weights")
    return facts


def _calibration(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Of n training images: terms and scores, each ascending."""
    with np.load(path, allow_pickle=False) as saved:
        known = {name: saved[name] for name in names}
    (shape, *others) = {values.shape for values in known.values()}
    if others or len(shape) != 1 or not shape[0] or not all(np.isfinite(values).all() for values in known.values()):
        raise ValueError("columns that are not finite numbers, all of one length")
    return {name: np.sort(values) for name, values in known.items()}


def _check(path: Path, sha256: str | None) -> None:
    """sha256: None in folders of earlier versions."""
    content = path.read_bytes()
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError("another model than detector.json names")


def _onnx(path: Path, sha256: str | None):
    import onnxruntime

    _check(path, sha256)
    session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
    return lambda pixels: session.run(None, {"images": pixels})


def _torch(path: Path, sha256: str | None):
    import torch

    _check(path, sha256)
    model = torch.export.load(path).module()

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [each.numpy() for each in model(torch.from_numpy(pixels))]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description="Score images with the detector in this folder.")
    parser.add_argument("images", help="a .npy file: uint8, N x H x W x C")
    parser.add_argument("--out", default="scores.csv", help="where the scores go, in the order of the images")
    parser.add_argument("--heat", help="a .npy file for the heat maps")
    options = parser.parse_args()
    try:
        detector = Detector()
        scored = detector.score(np.load(options.images, allow_pickle=False))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    heat, count = scored.pop("heat", None), len(scored["score"])
    if options.heat and heat is None:
        sys.exit("error: --heat: this detector has no heat maps - leave it out")
    staged = f"{options.out}.partial"
    with open(staged, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *scored])
        writer.writerows([i, *row] for i, row in enumerate(zip(*(column.tolist() for column in scored.values()))))
    os.replace(staged, options.out)
    if options.heat and heat is not None:
        np.save(options.heat, heat)
    print(detector.facts["meaning"])
    print(f"wrote {options.out}: {count} images, {int(scored['anomalous'].sum())} of them anomalous")


if __name__ == "__main__":
    main()
