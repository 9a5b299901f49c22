"""What a run says while it trains: metrics.jsonl, TensorBoard, pictures, and lines of progress in log.txt.

metrics.jsonl is the truth about every curve; TensorBoard's events are written again from it when a run goes on, so that
both hold each step once after any number of restarts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from data_tools.storage import (
    Guarded,
    StillOurs,
    always_ours,
    inside,
    local_path,
    open_storage,
    read_bytes,
    write_bytes,
)
from trainer.report.figures import save_picture, tile
from trainer.schedule import Phase, work

LOG, METRICS, EVENTS, PICTURES = "log.txt", "metrics.jsonl", "events", "pictures"
PICTURE = re.compile(r"([0-9]{9,15})-([\w-]{1,80})\.png")
"""A picture's name: images seen, what it shows."""
PICTURE_SCALE = 2
FORMER = rf"{EVENTS}/events\.out\.tfevents\.[^/]+|{PICTURES}/\d{{9,15}}-[^/]+\.png"
"""What an interrupted run logged, of which what does not count any more is removed with the first upload."""
NO_CURVES = ("images_seen", "time", "fingerprint")
PAGES = {
    "validation": {
        "separation of synthetic anomalies (no labels)": ["Multiline", ["validation/separation$"]],
        "AUC of terms": ["Multiline", ["validation/(?!a_|best_lambda|separation$).*"]],
        "AUC of a": ["Multiline", ["validation/a_.*"]],
    },
    "training": {
        "losses": ["Multiline", ["(?!critic|generator).*/loss"]],
        "Wasserstein estimate": ["Multiline", ["critic/wasserstein$"]],
        "gradient penalty": ["Multiline", ["critic/penalty$"]],
        "encoder: distance": ["Multiline", ["encoder/distance$"]],
        "encoder: norm of z_hat": ["Multiline", ["encoder/z_hat_norm$"]],
    },
    "growth and speed": {
        "resolution": ["Multiline", ["growth/resolution$"]],
        "fade (alpha)": ["Multiline", ["growth/alpha$"]],
        "seconds per 1,000 images": ["Multiline", ["speed/sec_per_kimg$"]],
    },
}
"""What TensorBoard shows side by side, under "custom scalars": one scale a chart; names are regular expressions."""


class Monitor:
    """Writes a run's logs; only the first worker has one, and its saving thread writes as well.

    A run folder on this machine is written to directly; for one elsewhere everything lies in a temporary folder, and
    `send` uploads what has changed, while the run is still ours.

    On resume at `images_seen`, what was logged beyond it is dropped.
    """

    def __init__(
        self,
        url: str,
        phases: tuple[Phase, ...],
        images_seen: int,
        log: Callable[[str], None],
        still_ours: StillOurs = always_ours,
    ) -> None:
        self.url, self.phases, self.tell = url, phases, log
        self.started, self.first = time.monotonic(), work(phases, images_seen)
        here = local_path(url)
        self.remote = None if here else Guarded(open_storage(url), still_ours)
        self.uploaded, self.former = dict[str, tuple[int, int]](), set[str]()
        self.lock = threading.RLock()
        self.folder = here or Path(tempfile.mkdtemp(prefix="stratagan-run-"))
        self._download()
        (self.folder / PICTURES).mkdir(parents=True, exist_ok=True)
        kept = _kept_lines(self.folder / METRICS, images_seen)
        staged = self.folder / f"{METRICS}.partial"
        staged.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(staged, self.folder / METRICS)
        self.lines = (self.folder / METRICS).open("a", buffering=1, encoding="utf-8")
        self.log = (self.folder / LOG).open("a", buffering=1, encoding="utf-8")
        for path in self.folder.glob(f"{EVENTS}/*"):
            if re.fullmatch(FORMER, f"{EVENTS}/{path.name}"):
                path.unlink()
        self.events = SummaryWriter(str(self.folder / EVENTS))
        self.events.add_custom_scalars(PAGES)
        self.kept: list[dict[str, Any]] = []
        for line in kept:
            self._show(line)
        for path in sorted((self.folder / PICTURES).glob("*-*.png")):
            if not (parts := PICTURE.fullmatch(path.name)):
                continue
            seen, name = int(parts[1]), parts[2]
            if seen > images_seen:
                path.unlink()
            else:
                try:
                    grid = np.asarray(Image.open(path, formats=["PNG"]))[::PICTURE_SCALE, ::PICTURE_SCALE]
                except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                    self.tell(f"warning: {PICTURES}/{path.name} is no PNG, TensorBoard does without")
                    continue
                self.events.add_image(name, _coloured(grid), seen, dataformats="HWC")

    def metrics(self, images_seen: int, values: Mapping[str, float | str]) -> None:
        """Record values at a count of images seen (the step of every curve)."""
        line = {"images_seen": images_seen, "time": round(time.time(), 3), **values}
        with self.lock:
            self.lines.write(json.dumps(line) + "\n")
            self._show(line)

    def warn(self, images_seen: int, phase: Phase, kind: str, warning: str) -> None:
        """Say what is wrong, in TensorBoard too; each kind of trouble once a phase, after a restart as well."""
        name = f"warning/{kind}"
        with self.lock:
            if any(name in line and line["images_seen"] > phase.start for line in self.kept):
                return
            self.metrics(images_seen, {name: warning})
        self.say(f"warning: {warning}")

    def once(self, images_seen: int, name: str, text: str) -> None:
        """Say a line that a restart says again, in TensorBoard too; recorded once."""
        self.say(f"warning: {text}")
        with self.lock:
            if not any(name in line for line in self.kept):
                self.metrics(images_seen, {name: text})

    def _show(self, line: dict[str, Any]) -> None:
        self.kept.append(line)
        for name, value in line.items():
            if name.startswith("warning/"):
                self.events.add_text(name, value, int(line["images_seen"]), walltime=line["time"])
            elif name not in NO_CURVES:
                self.events.add_scalar(name, value, int(line["images_seen"]), walltime=line["time"])

    def validations(self, name: str) -> dict[str, float]:
        """The AUCs of that name by checkpoint."""
        key = f"validation/{name}"
        return {f"images-{line['images_seen']:09.0f}": line[key] for line in self.kept if key in line}

    def is_validated(self, checkpoint: str) -> bool:
        """Whether anything is recorded of how good a checkpoint is."""
        lines = [line for line in self.kept if f"images-{line['images_seen']:09.0f}" == checkpoint]
        return any(name.startswith("validation/") for line in lines for name in line)

    def phase_validated(self, name: str) -> dict[str, float]:
        """The last phase whose end has been validated, counted from one, and the AUC of that name; or nothing.

        AUCs of one phase compare with one another, those of different resolutions do not.
        """
        aucs = {int(checkpoint.removeprefix("images-")): value for checkpoint, value in self.validations(name).items()}
        for phase in reversed(self.phases):
            if ends := [seen for seen in aucs if phase.end <= seen < phase.end + phase.images_a_step]:
                return {"phase": phase.index + 1, "auc": aucs[ends[0]]}
        return {}

    def say(self, line: str) -> None:
        """Tell a line to whoever watches, and add it to the run's log."""
        self.tell(line)
        with self.lock:
            self.log.write(line + "\n")

    def progress(self, images_seen: int, phase: Phase, values: dict[str, float]) -> None:
        """Say one line: how far, how fast, how it goes, how long it may still take."""
        elapsed, total = time.monotonic() - self.started, self.phases[-1].end
        done = work(self.phases, images_seen)
        left = elapsed / (done - self.first) * (work(self.phases, total) - done)
        usual = {"critic/wasserstein": "wasserstein", "encoder/distance": "distance"}
        told = {key: name for key, name in usual.items() if key in values}
        told = told or {key: key.removesuffix("/loss") for key in values if key.endswith("/loss")}
        said = "".join(f"{name} {values[key]:7.3f} | " for key, name in told.items())
        self.say(
            f"{images_seen / 1000:7.1f}/{total / 1000:.0f} kimg | {phase.name:<13} | "
            f"{values['speed/sec_per_kimg']:6.2f} sec/kimg | {said}{elapsed / 60:4.1f} min, about {left / 60:.1f} to go"
        )

    def pictures(self, images_seen: int, rows: dict[str, np.ndarray]) -> None:
        """rows: name to float images N x r x r x C in [-1, 1]; each becomes a grid."""
        for name, images in rows.items():
            grid = tile(images, columns=8)
            with self.lock:
                self.events.add_image(name, grid, images_seen, dataformats="HWC")
            save_picture(grid, self.folder / PICTURES / f"{images_seen:09d}-{name}.png", scale=PICTURE_SCALE)

    def send(self) -> None:
        """Upload all that has changed to a run folder elsewhere; nothing to do for one on this machine."""
        if not self.remote:
            return
        with self.lock:
            self.events.flush()
            files = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*.*")}
            states = {name: (path.stat().st_size, path.stat().st_mtime_ns) for name, path in files.items()}
            contents = {name: files[name].read_bytes() for name in states if states[name] != self.uploaded.get(name)}
        for name, content in contents.items():
            write_bytes(self.remote, name, content)
            self.uploaded[name] = states[name]
        for name in sorted(self.former - set(files)):
            self.remote.remove(name)
        self.former.clear()

    def _download(self) -> None:
        """Download what an interrupted run logged; its events are written again."""
        for name, _ in self.remote.tree() if self.remote else ():
            logged = re.fullmatch(FORMER, name)
            if logged:
                self.former.add(name)
            if name in (LOG, METRICS) or PICTURE.fullmatch(name.removeprefix(f"{PICTURES}/")):
                path = inside(self.folder, name)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(read_bytes(self.remote, name))  # type: ignore[arg-type]

    def close(self) -> None:
        self.lines.close()
        self.log.close()
        try:
            self.events.close()  # on a full disk it raises
        finally:
            if self.remote:
                shutil.rmtree(self.folder, ignore_errors=True)


def _kept_lines(path: Path, images_seen: int) -> list[dict[str, Any]]:
    """Lines of metrics up to a count of images; without one that a crash cut off."""
    kept = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)  # where numbers may be NaN
            numbers = (float(line["images_seen"]), float(line["time"]))
            if numbers[0] <= images_seen and all(type(each) in (int, float, str) for each in line.values()):
                kept.append(line)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
    return kept


def _coloured(grid: np.ndarray) -> np.ndarray:
    return grid if grid.ndim == 3 else grid[:, :, None]
