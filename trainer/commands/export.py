"""python -m trainer export: write the folder, hold its scores against ours, and only then let it appear."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tyro

from data_tools.commands.options import CacheOptions, Caching
from data_tools.errors import UserError
from trainer.commands.shared import Best, Data, Runs
from trainer.export import Format
from trainer.scoring.criterion import Criterion, ShareCriterion

if TYPE_CHECKING:
    from trainer.scoring.detector import Detector
    from trainer.scoring.ensemble import Ensemble

NOTHING = re.compile(r"(?!)")
"""A former export is not replaced: its files' names are like anybody's."""
CHECKED = 256
"""Training images that the scores are compared on."""
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Export:
    """Write a folder that scores images without Ray, without this package and without training data.

    Where neither --false-alarms nor --contamination is given, the verdict's threshold allows 1 % false alarms.
    """

    run: Runs
    out: str
    """The folder, new or empty."""
    format: Format = "onnx"
    """onnx: for onnxruntime and whatever else reads it; torch: a torch.export program."""
    best: Best = False
    data: Data = ""
    criterion: tyro.conf.OmitArgPrefixes[ShareCriterion] = field(default_factory=ShareCriterion)
    """The score, and the threshold above which an image is called anomalous."""
    caching: Caching = field(default_factory=CacheOptions)

    def __call__(self) -> None:
        from data_tools.storage import open_storage
        from data_tools.storage.output_folder import OutputFolder
        from trainer.export.parity import difference
        from trainer.run.folder import read_config, run_dataset, run_images
        from trainer.scoring.calibration import run_of
        from trainer.scoring.loading import chosen_checkpoints, load_detector, runs_in

        by, cache = self.criterion, self.caching
        if open_storage(self.out).tree():
            raise UserError(f"--out {self.out}: is not empty - give a new folder")
        checkpoint = chosen_checkpoints(self.run, self.best)
        share = 0.01 if by.false_alarms is None and by.contamination is None else by.false_alarms
        criterion = Criterion(by.by, by.lam, share, by.contamination)
        detector = load_detector(checkpoint, criterion, False, cache.cache, cache.cache_limit, self.data)
        run = run_of(runs_in(checkpoint)[0])
        config, _ = read_config(run)
        data = run_images(run, config, run_dataset(run, self.data, cache.open()))
        images = data.at(np.arange(min(len(data), CHECKED)))
        with OutputFolder("an export", NOTHING, "--out ").replaced(self.out) as folder:
            self._write(folder, detector, checkpoint)
            worst = difference(detector, folder, images)
            if not worst <= TOLERANCE:
                raise UserError(
                    f"--out {self.out}: not written, its scores differ from ours by {worst:.2g} of their size on"
                    f" training images, more than {TOLERANCE:g} - try the other --format"
                )
        print(detector.meaning)
        print(f"wrote {self.out}: scores as ours to {worst:.1g} on {len(images)} training images")
        print(f"next: python {self.out}/score.py IMAGES.npy")

    def _write(self, folder: Path, detector: Detector | Ensemble, checkpoint: str) -> None:
        import trainer.export.standalone as standalone
        from trainer.export.formats import model_name, write_model
        from trainer.export.graph import graph_of
        from trainer.export.parts import parts_of

        limit = detector.limit
        assert limit
        write_model(detector, self.format, folder)
        parts = parts_of(detector)
        facts = {
            "format": self.format,
            "resolution": detector.resolution,
            "channels": detector.channels,
            "intensity": detector.intensity and detector.intensity.to_json(),
            "by": parts.by,
            "lambda": self.criterion.lam,
            "weights": parts.weights,
            "threshold": limit.value,
            "meaning": limit.sentences(),
            "terms": parts.meanings,
            "heat": graph_of(detector).has_heat,
            "checkpoint": checkpoint,
            "sha256": hashlib.sha256((folder / model_name(self.format)).read_bytes()).hexdigest(),
        }
        (folder / "detector.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        np.savez(folder / "calibration.npz", score=detector.known, **parts.known)  # type: ignore[arg-type]
        shutil.copy(standalone.__file__, folder / "score.py")
