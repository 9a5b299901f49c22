"""Checkpoints that cannot run code: safetensors for tensors, readable JSON for the rest, in a folder or in S3.

A checkpoint is `checkpoints/images-000123456` under the run's URL. checkpoint.json, which holds the checksum of every
other file, is written last and removed first: what has none is not a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from data_tools.dataset.intensity import Intensity
from data_tools.errors import UserError
from data_tools.storage import (
    Guarded,
    StillOurs,
    always_ours,
    local_path,
    open_storage,
    read_document,
    write_bytes,
)
from data_tools.untrusted import whole
from trainer.config import TrainConfig
from trainer.contrast import FULL, Contrast
from trainer.methods import network_names

FORMAT_VERSION = 4
"""Since 3 there is the dataset's intensity, since 4 the run's contrast; one that has neither is written as 2 was."""
FACTS, BEST = "checkpoint.json", "best.json"
NAME = "images-[0-9]{9,15}"
FILE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}\.safetensors")
REMEDY = "delete this checkpoint, the one before it serves"


class DamagedError(UserError):
    """A checkpoint is not what was written; an earlier one serves."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What checkpoint.json says."""

    url: str
    images_seen: int
    resolution: int  # at which the networks last trained
    alpha: float | None  # fade factor, None outside a fade
    channels: int
    dataset_digest: str
    config: TrainConfig
    versions: dict[str, str]
    sha256: dict[str, str]
    intensity: Intensity | None = None  # how the dataset's values of more than 8 bits became 8
    contrast: Contrast = FULL  # how its pixels become what the networks see
    ailing: int = 0  # marks in a row, up to this one, at which the training looked dead
    recoveries: int = 0  # how often the run had gone back by then

    @property
    def name(self) -> str:
        return self.url.rstrip("/").rpartition("/")[2]

    @property
    def optimisers(self) -> list[str]:
        """The optimisers whose moments are there; at a phase's end none are."""
        files = [file.removesuffix(".safetensors") for file in self.sha256]
        return [name for name in files if name not in network_names(self.config, self.channels)]


@dataclass(frozen=True)
class Snapshot:
    """A moment of a training run, copied away from it; files: "critic" and so on to named tensors on the CPU."""

    images_seen: int
    resolution: int
    alpha: float | None
    channels: int
    dataset_digest: str
    config: TrainConfig
    files: dict[str, dict[str, Tensor]]
    intensity: Intensity | None = None
    contrast: Contrast = FULL
    ailing: int = 0
    recoveries: int = 0

    @property
    def name(self) -> str:
        return f"images-{self.images_seen:09d}"


def versions() -> dict[str, str]:
    """Of what decides the bits of a run, besides the processor."""
    return {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}


def version_note(info: CheckpointInfo) -> str:
    """A line where a checkpoint was made with other versions of torch or numpy than are here; else ""."""
    here = {name: version for name, version in versions().items() if name != "python"}
    then = {name: info.versions.get(name) for name in here}
    if then == here:
        return ""
    made, ours = (", ".join(f"{name} {version}" for name, version in each.items()) for each in (then, here))
    return f"note: {info.url} was made with {made}, here are {ours}: the bits of the run may differ"


def write_checkpoint(
    run: str,
    snapshot: Snapshot,
    before_it_counts: Callable[[], object] = lambda: None,
    still_ours: StillOurs = always_ours,
) -> None:
    """Write a whole checkpoint; at any failure there is none.

    before_it_counts: done when all but checkpoint.json is written.
    """
    storage = Guarded(open_storage(f"{run}/checkpoints/{snapshot.name}"), still_ours)
    storage.remove(FACTS)  # of one that was damaged
    sha256 = {}
    for name, tensors in snapshot.files.items():
        content = safetensors.torch.save(tensors)
        write_bytes(storage, f"{name}.safetensors", content)
        sha256[f"{name}.safetensors"] = hashlib.sha256(content).hexdigest()
    facts = {
        "format_version": 4 if snapshot.contrast != FULL else 3 if snapshot.intensity else 2,
        "images_seen": snapshot.images_seen,
        "resolution": snapshot.resolution,
        "alpha": snapshot.alpha,
        "channels": snapshot.channels,
        "dataset_digest": snapshot.dataset_digest,
        "versions": versions(),
        "sha256": sha256,
        "config": snapshot.config.to_json(),
    }
    if snapshot.intensity:
        facts["intensity"] = snapshot.intensity.to_json()
    if snapshot.contrast != FULL:
        facts["contrast"] = snapshot.contrast.to_json()
    facts |= {name: value for name in ("ailing", "recoveries") if (value := getattr(snapshot, name))}
    before_it_counts()
    still_ours(now=True)
    write_bytes(storage, FACTS, (json.dumps(facts | {"checksum": checksum(facts)}, indent=2) + "\n").encode())


def checksum(facts: dict[str, Any]) -> str:
    """What checkpoint.json says of its own other values."""
    rest = {name: value for name, value in facts.items() if name != "checksum"}
    rest = json.loads(json.dumps(rest))  # keys become text, by which they are sorted
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def remove_checkpoint(run: str, name: str, still_ours: StillOurs = always_ours) -> None:
    """Remove a checkpoint, or what is left of one."""
    storage = Guarded(open_storage(f"{run}/checkpoints/{name}"), still_ours)
    for file in sorted(storage.names(), key=lambda file: file != FACTS):
        storage.remove(file)
    folder = local_path(f"{run}/checkpoints/{name}")
    if folder and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def checkpoint_names(run: str | Path, whole: bool = True) -> list[str]:
    """The names of a run's checkpoints, the oldest first; with whole=False of those without checkpoint.json too."""
    pattern = re.compile(f"({NAME})/" + (re.escape(FACTS) if whole else ".+"))
    matches = [pattern.fullmatch(name) for name, _ in open_storage(f"{run}/checkpoints").tree()]
    return sorted({match[1] for match in matches if match}, key=images_of)


def images_of(name: str) -> int:
    """The count of images in a checkpoint's name."""
    return int(name.removeprefix("images-"))


def newest_checkpoint(url: str | Path) -> str:
    """The URL of a run's newest checkpoint, or the URL itself when it is a checkpoint's."""
    url = str(url).rstrip("/")
    if FACTS in open_storage(url).names():
        return url
    if not (names := checkpoint_names(url)):
        raise UserError(f"{url}: holds no checkpoint - give the --out of a training run")
    return f"{url}/checkpoints/{names[-1]}"


def chosen_checkpoint(run: str, best: bool) -> str:
    """The URL of a run's best checkpoint by best.json, or of its newest; UserError when there is none."""
    if not best:
        return newest_checkpoint(run)
    try:
        name = read_document(open_storage(run), BEST)["checkpoint"]
        if not re.fullmatch(NAME, name):
            raise ValueError(f"{name[:40]!r} is not a checkpoint's name")
    except FileNotFoundError:
        raise UserError(f"{run}: has no {BEST}: no checkpoint was judged by its --best-by - leave out --best") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run}/{BEST}: damaged ({error!r}) - leave out --best, or give a checkpoint's URL") from None
    return f"{run.rstrip('/')}/checkpoints/{name}"


def read_info(url: str) -> CheckpointInfo:
    """Read checkpoint.json; DamagedError when it is damaged, UserError when it is of a newer version."""
    file = f"{url}/{FACTS}"
    try:
        facts: dict[str, Any] = read_document(open_storage(url), FACTS)
        version = whole(facts["format_version"], 1, 2**31, "format_version")
        if version > FORMAT_VERSION:
            raise UserError(f"{file}: format version {version} is newer than {FORMAT_VERSION} - update stratagan")
        if facts["checksum"] != checksum(facts):
            raise DamagedError(f"{file}: differs from its own checksum - {REMEDY}")
        return _info(url, facts)
    except FileNotFoundError:
        raise DamagedError(f"{file}: is missing - {REMEDY}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{file}: damaged ({error!r:.200}) - {REMEDY}") from None


def _info(url: str, facts: dict[str, Any]) -> CheckpointInfo:
    """ValueError and the like for what `write_checkpoint` has not written."""
    alpha, versions, sha256 = facts["alpha"], facts["versions"], facts["sha256"]
    if alpha is not None and not (type(alpha) in (int, float) and 0 <= alpha <= 1):
        raise ValueError(f"alpha is {alpha!r:.40}")
    for name, digest in sha256.items():
        if not FILE.fullmatch(name) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"{name[:80]!r} is not a file of a checkpoint")
    config = config_in(facts["config"], f"{url}/{FACTS}")
    return CheckpointInfo(
        url,
        whole(facts["images_seen"], 0, 10**15, "images_seen"),
        whole(facts["resolution"], 4, config.resolution, "resolution"),
        alpha,
        whole(facts["channels"], 1, 3, "channels"),
        str(facts["dataset_digest"]),
        config,
        {str(name): str(version) for name, version in versions.items()},
        sha256,
        Intensity.from_json(facts.get("intensity")),
        Contrast.from_json(facts.get("contrast")),
        whole(facts.get("ailing", 0), 0, 2**31, "ailing"),
        whole(facts.get("recoveries", 0), 0, 2**31, "recoveries"),
    )


def config_in(values: Any, file: str) -> TrainConfig:
    """The configuration in a file; ValueError and the like for none, UserError for one that cannot be."""
    try:
        return TrainConfig.from_json(values)
    except UserError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file}: is of no run that this version can have ({reason}) - give another") from None
