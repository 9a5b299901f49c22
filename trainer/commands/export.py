"""python -m trainer export: write the folder, hold its scores against ours, and only then let it appear."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

import trainer.export.standalone as standalone
from data_tools.dataset.cache import DEFAULT_LIMIT, open_cache
from data_tools.dataset.reader import open_dataset
from data_tools.errors import UserError
from data_tools.storage import open_storage
from data_tools.storage.transfer import sent
from trainer.export.formats import Format, write_model
from trainer.export.parity import difference
from trainer.run.checkpoint import chosen_checkpoint
from trainer.run.folder import read_config, run_images
from trainer.scoring.calibration import run_of
from trainer.scoring.criterion import PAPER_LAMBDA, Criterion
from trainer.scoring.detector import Detector
from trainer.scoring.join import weights

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
    format: Format = "onnx"
    """onnx: for onnxruntime and whatever else reads it; torch: a torch.export program."""
    best: bool = False
    """The best checkpoint instead of the newest."""
    by: str = "fused"
    """fused: all terms, calibrated on the training images; a: the paper's score; or one term by its name, as L_n."""
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
        if open_storage(self.out).tree():
            raise UserError(f"--out {self.out}: is not empty - give a new folder")
        checkpoint = chosen_checkpoint(self.run, self.best)
        share = 0.01 if self.false_alarms is None and self.contamination is None else self.false_alarms
        criterion = Criterion(self.by, self.lam, share, self.contamination)
        detector = Detector.load(checkpoint, criterion, False, self.cache, self.cache_limit)
        run = run_of(checkpoint)
        config, _ = read_config(run)
        data = run_images(run, config, open_dataset(config.data, open_cache(self.cache, self.cache_limit)))
        images = data.at(np.arange(min(len(data), CHECKED)))
        with sent(Path(self.out)) as folder:
            staged = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            try:
                self._write(staged, detector, checkpoint)
                worst = difference(detector, staged, images)
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
        print(detector.meaning)
        print(f"wrote {self.out}: scores as ours to {worst:.1g} on {len(images)} training images")
        print(f"next: python {self.out}/score.py IMAGES.npy")

    def _write(self, folder: Path, detector: Detector, checkpoint: str) -> None:
        calibration, limit = detector.calibration, detector.limit
        assert calibration and limit
        write_model(detector, self.format, folder)
        facts = {
            "format": self.format,
            "resolution": detector.resolution,
            "channels": detector.channels,
            "by": self.by,
            "lambda": self.lam,
            "weights": {} if self.by == "fused" else weights(self.by, self.lam),
            "threshold": limit.value,
            "meaning": limit.sentences(),
            "terms": {term.name: term.meaning for term in detector.inference.joined},
            "heat": calibration.heat is not None,
            "checkpoint": checkpoint,
        }
        (folder / "detector.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        np.savez(folder / "calibration.npz", score=detector.known, **calibration.terms)  # type: ignore[arg-type]
        shutil.copy(standalone.__file__, folder / "score.py")
