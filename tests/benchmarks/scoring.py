"""How fast a run scores, beside the same detector exported to ONNX: images a second of each way in.

python -m tests.benchmarks.scoring RUN ...: for one thread and for all cores, by turns, the best of three rounds each:
onnxruntime at its best batch with all terms; the networks alone; `Detector.score` of images in memory; `audit` and the
calibration of the run's training images; what a worker of `cluster score` does with a tar of PNGs, beside onnxruntime
with PNGs that Pillow decodes. What a calibration knows already is not spared here; the calibration's images are those
that pass the networks, with synthetic anomalies and those whose heat is measured.
"""

from __future__ import annotations

import dataclasses
import io
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime
import torch
from PIL import Image

from cluster.images import Unit
from cluster.unit_table import score_unit
from data_tools.dataset.cache import open_cache
from data_tools.dataset.training_set import TrainingSet
from data_tools.storage import open_storage
from trainer.export.formats import write_model
from trainer.run.folder import read_config, run_dataset, run_images
from trainer.scoring.audit import ranked
from trainer.scoring.calibration import calibrated
from trainer.scoring.criterion import Criterion
from trainer.scoring.detector import Detector
from trainer.scoring.inference import Inference

ROUNDS = 3
IMAGES = 2048
ONNX_BATCHES, DECODED = (16, 64, 256), 64


def ways(run: str, threads: int, folder: Path) -> dict[str, tuple[int, Callable[[], object]]]:
    """By name: how many images one call scores, and the call."""
    torch.set_num_threads(threads)
    loaded, cache = Detector.load(run, Criterion(false_alarms=0.01)), open_cache()
    known = loaded.calibrated
    strangers = dataclasses.replace(known, samples=known.samples + 2**40)  # nobody's own scores are looked up
    detector = dataclasses.replace(loaded, calibration=strangers)
    config, _ = read_config(run)
    data = run_images(run, config, run_dataset(run, "", cache))
    images = data.at(np.arange(IMAGES) % len(data))
    side, inference = detector.resolution, detector.inference
    small = images.reshape(len(images), side, images.shape[1] // side, side, -1, images.shape[3]).mean((2, 4))
    pixels = small.astype(np.float32)
    if not (folder / "model.onnx").exists():
        write_model(loaded, "onnx", folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "model.onnx", options)
    names, given = [term.name for term in inference.joined], session.get_inputs()[0].name

    def by_onnx(batch: int) -> None:
        for start in range(0, len(pixels), batch):
            session.run(names, {given: pixels[start : start + batch]})

    pngs = [png_of(image) for image in pixels.astype(np.uint8)]
    tar_of(pngs, folder / "images.tar")

    def from_pngs() -> None:
        for start in range(0, len(pngs), DECODED):
            images = [np.asarray(Image.open(io.BytesIO(png)), np.float32) for png in pngs[start : start + DECODED]]
            session.run(
                names, {session.get_inputs()[0].name: np.stack(images).reshape(-1, side, side, pixels.shape[3])}
            )

    storage, unit = open_storage(str(folder)), Unit("tar", ("images.tar",))
    return {
        **{f"onnx, {batch}": (IMAGES, lambda batch=batch: by_onnx(batch)) for batch in ONNX_BATCHES},
        "onnx, PNGs": (IMAGES, from_pngs),
        "networks": (IMAGES, lambda: inference.values(images, inference.joined)),
        "score": (IMAGES, lambda: detector.score(images)),
        "audit": (len(data), lambda: ranked(run, detector, cache, 100)),
        "calibration": (passed(inference, data), lambda: calibrated(inference, data)),
        "cluster score": (IMAGES, lambda: score_unit(storage, unit, detector, heatmaps=False)),
    }


def passed(inference: Inference, data: TrainingSet) -> int:
    """How many images pass the networks for a calibration."""
    count, batches = 0, Inference.batches

    def counted(self: Inference, images: np.ndarray, batch: int | None = None) -> Iterator[torch.Tensor]:
        nonlocal count
        count += len(images)
        return batches(self, images, batch)

    with mock.patch.object(Inference, "batches", counted):
        calibrated(inference, data)
    return count


def png_of(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG")
    return file.getvalue()


def tar_of(pngs: list[bytes], path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for i, png in enumerate(pngs):
            member = tarfile.TarInfo(f"{i:06d}.png")
            member.size = len(png)
            tar.addfile(member, io.BytesIO(png))


def main(runs: list[str]) -> None:
    for run in runs:
        with tempfile.TemporaryDirectory() as folder:
            for threads in sorted({1, os.cpu_count() or 1}):
                measured = ways(run, threads, Path(folder))
                best = dict.fromkeys(measured, float("inf"))
                for _ in range(ROUNDS):
                    for name, (_, call) in measured.items():
                        begun = time.perf_counter()
                        call()
                        best[name] = min(best[name], time.perf_counter() - begun)
                rates = {name: count / best[name] for name, (count, _) in measured.items()}
                onnx = max(rate for name, rate in rates.items() if name.startswith("onnx"))
                print(f"{run}, {threads} thread(s): onnx {onnx:,.0f} images/s, from PNGs {rates['onnx, PNGs']:,.0f}")
                for name in (each for each in rates if not each.startswith("onnx")):
                    beside = rates["onnx, PNGs"] if name == "cluster score" else onnx
                    print(f"  {name:14}{rates[name]:8,.0f} images/s, {rates[name] / beside:.2f} of onnx", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
