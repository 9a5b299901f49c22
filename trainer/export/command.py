"""python -m trainer export: write the folder, hold its scores against ours, and only then let it appear."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

import trainer.export.standalone as standalone
from data_tools.cache import DEFAULT_LIMIT, open_cache
from data_tools.errors import UserError
from data_tools.mirror import sent
from data_tools.reader import open_dataset
from trainer.checkpoint import chosen_checkpoint
from trainer.detector import PAPER_LAMBDA
from trainer.export.graph import OUTPUTS, ScoringGraph
from trainer.run_folder import read_config, run_images
from trainer.verdict.calibration import run_of
from trainer.verdict.judge import Judge, asked_threshold
from trainer.verdict.terms import TERMS

CHECKED = 256
"""Training images that the scores are compared on."""
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Export:
    """Write a folder that scores images without Ray, without this package and without training data."""

    run: tyro.conf.Positional[str]
    """The run's URL, or one checkpoint's."""
    out: str
    """The folder, new or empty."""
    format: Literal["torch", "onnx"] = "onnx"
    """onnx: for onnxruntime and whatever else reads it; torch: a torch.export program."""
    best: bool = False
    """The best checkpoint instead of the newest."""
    by: str = "fused"
    """fused: all terms, calibrated on the training images; a: the paper's score; or one term: L_n, L_o, D, L_k."""
    lam: float = PAPER_LAMBDA
    """lambda in a = lambda L_n + (1 - lambda) L_o."""
    false_alarms: float | None = None
    """The verdict's threshold: at most this share of normal images is called anomalous (default: 0.01)."""
    contamination: float | None = None
    """Or by the share of anomalies that is expected among the training images."""
    cache: str = ""
    """Folder for decoded training images on this node (default: the user's cache folder)."""
    cache_limit: str = DEFAULT_LIMIT
    """Bytes that folder may hold; what was used for longest goes first."""

    def __call__(self) -> None:
        if (
            "://" not in self.out
            and Path(self.out).exists()
            and (not Path(self.out).is_dir() or any(Path(self.out).iterdir()))
        ):
            raise UserError(f"--out {self.out}: is not empty - give a new folder")
        checkpoint = chosen_checkpoint(self.run, self.best)
        judge = Judge.load(checkpoint, False, self.cache, self.cache_limit, self.by, self.lam)
        share = 0.01 if self.false_alarms is None and self.contamination is None else self.false_alarms
        limit = asked_threshold(judge, share, self.contamination)
        assert limit
        run = run_of(checkpoint)
        config, _ = read_config(run)
        data = run_images(run, config, open_dataset(config.data, open_cache(self.cache, self.cache_limit)))
        images = data.at(np.arange(min(len(data), CHECKED)))
        with sent(Path(self.out)) as folder:
            staged = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            try:
                write_model(judge, self.format, staged)
                facts = {
                    "format": self.format,
                    "resolution": judge.detector.resolution,
                    "channels": judge.detector.channels,
                    "by": self.by,
                    "lambda": self.lam,
                    "threshold": limit.value,
                    "meaning": limit.sentences(),
                    "terms": TERMS,
                    "checkpoint": checkpoint,
                    "model_sha256": hashlib.sha256((staged / model_name(self.format)).read_bytes()).hexdigest(),
                }
                (staged / "detector.json").write_text(json.dumps(facts, indent=2) + "\n")
                np.savez(staged / "calibration.npz", score=judge.known, **judge.calibration.terms)  # type: ignore[arg-type]
                shutil.copy(standalone.__file__, staged / "score.py")
                worst = difference(judge, staged, images)
                if not worst <= TOLERANCE:
                    raise UserError(
                        f"--out {self.out}: not written, its scores differ from ours by {worst:.2g} of their size on"
                        f" training images, more than {TOLERANCE:g} - try the other --format"
                    )
                folder.mkdir(parents=True, exist_ok=True)
                for file in staged.iterdir():
                    file.rename(folder / file.name)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
        print(limit.sentences())
        print(f"wrote {self.out}: scores as ours to {worst:.1g} on {len(images)} training images")
        print(f"next: python {self.out}/score.py IMAGES.npy")


def model_name(form: str) -> str:
    return "model.onnx" if form == "onnx" else "model.pt2"


def write_model(judge: Judge, form: str, folder: Path) -> None:
    """Write the graph; any number of images at a time."""
    side, channels = judge.detector.resolution, judge.detector.channels
    graph, example = ScoringGraph(judge).eval(), torch.zeros(2, side, side, channels)
    shapes = {"images": {0: torch.export.Dim("images", min=1)}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(graph, (example,), dynamic_shapes=shapes)
        if form == "torch":
            torch.export.save(program, folder / model_name(form))
            return
        try:
            import onnxscript  # noqa: F401
        except ImportError:
            raise UserError("--format onnx needs packages that are missing - pip install 'stratagan[onnx]'") from None
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that there is no torchvision
        torch.onnx.export(
            program,
            (),
            folder / model_name(form),
            input_names=["images"],
            output_names=list(OUTPUTS),
            external_data=False,
            optimize=False,  # its optimiser takes the 1e-8 under our square roots for 0; the runtime has one of its own
            verbose=False,
        )


def difference(judge: Judge, folder: Path, images: np.ndarray) -> float:
    """The greatest difference of a folder's numbers from ours, relative to their size or, if greater, the median's.

    Of every term, and of the score that follows from our terms: ranks among the training images may turn over a
    difference in the last digit.
    """
    carried = standalone.Detector(folder)
    found, ours = carried.score(images), judge.judged(images)
    pairs = [(found[name], ours.terms[name]) for name in TERMS]
    pairs += [(carried.joined(ours.terms), ours.score)]
    return max(_relative(a, b) for a, b in pairs)


def _relative(found: np.ndarray, ours: np.ndarray) -> float:
    size = np.maximum(np.abs(ours), np.median(np.abs(ours)))
    return float(np.max(np.abs(found - ours) / np.maximum(size, np.finfo(np.float32).tiny)))
