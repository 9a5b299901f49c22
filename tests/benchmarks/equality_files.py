"""What tests/benchmarks/equality.py works with: a tree's commands, runs and their copies, and comparisons of files."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import safetensors.numpy

LONGEST = 3600
"""Seconds that one command may take."""


class Difference(Exception):
    """What differs, in a line."""


@dataclass(frozen=True)
class Side:
    """A tree, and a folder for what it writes."""

    name: str
    tree: Path
    folder: Path

    def run(self, words: Sequence[str], cwd: Path) -> str:
        """A command of ours by this tree's code, in Ray's workers too; returns what it printed."""
        cwd.mkdir(parents=True, exist_ok=True)
        return self._process([sys.executable, "-m", *words], cwd)

    def run_script(self, script: Path, words: Sequence[str], cwd: Path) -> str:
        return self._process([sys.executable, str(script), *words], cwd)

    def _process(self, command: list[str], cwd: Path) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "OMP_"))}
        environment |= {"PYTHONPATH": str(self.tree), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        # A session of its own: signals to groups of processes, by Ray or a terminal, do not cross.
        with subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                said, complained = process.communicate(timeout=LONGEST)
            except subprocess.TimeoutExpired:
                raise Difference(f"{self.name}: {' '.join(command[2:5])} … did not end in {LONGEST} s") from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            last = " ".join((complained or said).strip().splitlines()[-3:])
            raise Difference(f"{self.name}: {' '.join(command[2:5])} … ended with {process.returncode}: {last}")
        return said

    def empty(self, folder: Path) -> Path:
        """The folder, without what an earlier attempt left in it."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder

    def copied(self, source: Path, target: Path) -> Path:
        return Path(shutil.copytree(source, self.empty(target)))


@contextlib.contextmanager
def worktree(repository: Path, revision: str, folder: Path) -> Iterator[Path]:
    """The files of a revision, for a while."""
    git = ["git", "-C", str(repository), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def cut_back(run: Path, to: int, out: Path) -> Path:
    """A copy of a finished run as a kill after the checkpoint at `to` leaves it: its logs go further."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(run, out)
    for checkpoint in (out / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("images-")) > to:
            shutil.rmtree(checkpoint)
    (out / "finished.json").unlink()
    return out


def forget_dataset(run: Path) -> None:
    """Let a run's config.json name a dataset that is not there."""
    values = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(values | {"data": str(run / "nowhere")}))


def run_differences(old: Path, new: Path) -> list[str]:
    """Notes; Difference where weights of any checkpoint, metrics or pictures differ in a bit."""
    weights = [_digests(run, "checkpoints/*/*.safetensors") for run in (old, new)]
    _same_names(*weights)
    if changed := [name for name, digest in weights[0].items() if weights[1][name] != digest]:
        worst = max(_greatest_in_weights(old / name, new / name) for name in changed)
        raise Difference(
            f"{len(changed)} of {len(weights[0])} weights files, {changed[0]} for one, by up to {worst:.1e}"
        )
    lines = [_metrics(run) for run in (old, new)]
    notes = _note_columns(*({name for line in each for name in line} for each in lines))
    known = {name for line in lines[0] for name in line}
    told = [
        sorted(json.dumps({k: v for k, v in line.items() if k in known}, sort_keys=True) for line in each)
        for each in lines
    ]
    if told[0] != told[1]:
        only = sorted(set(told[0]) ^ set(told[1]))
        raise Difference(
            f"metrics.jsonl: {len(told[0])} lines and {len(told[1])}, of which differ {len(only)}: {only[:2]}"
        )
    pictures = [_digests(run, "pictures/*.png") for run in (old, new)]
    if pictures[0] != pictures[1]:
        raise Difference("pictures")
    return [*notes, f"{len(weights[0])} weights files, {len(told[0])} lines of metrics, {len(pictures[0])} pictures"]


def _digests(run: Path, pattern: str) -> dict[str, str]:
    paths = sorted(run.glob(pattern))
    return {path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _same_names(old: dict[str, Any], new: dict[str, Any]) -> None:
    if only := sorted(set(old) ^ set(new)):
        raise Difference(f"{len(only)} files on one side only, {only[0]} for one")
    if not old:
        raise Difference("no files to compare")


def _greatest_in_weights(old: Path, new: Path) -> float:
    tensors = [safetensors.numpy.load_file(path) for path in (old, new)]
    if {name: each.shape for name, each in tensors[0].items()} != {
        name: each.shape for name, each in tensors[1].items()
    }:
        raise Difference(f"{old.name}: other tensors")
    return max(
        (float(np.abs(tensors[1][name] - each).max()) for name, each in tensors[0].items() if each.size), default=0
    )


def _metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock put there."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "time" and not k.startswith("speed/")} for line in lines]


def compare(sides: Sequence[Path], patterns: Sequence[str], exact: bool = False) -> list[str]:
    """Compare the files that the patterns find in two folders, the old one first; returns notes, raises Difference.

    exact: every byte; otherwise tables by the names of their columns, JSON and arrays by their values, and what is new
    in them is only noted.
    """
    notes: list[str] = []
    for pattern in patterns:
        found = [{path.relative_to(side).as_posix(): path for path in side.glob(pattern)} for side in sides]
        _same_names(*found)
        for name, path in found[0].items():
            other = found[1][name]
            try:
                if path.read_bytes() != other.read_bytes():
                    if exact or path.suffix not in READERS:
                        raise Difference("bytes")
                    notes += _compare_values(READERS[path.suffix](path), READERS[path.suffix](other))
            except Difference as error:
                raise Difference(f"{name}: {error}") from None
    return list(dict.fromkeys(notes))


def _read_csv(path: Path) -> dict[str, Any]:
    with path.open(newline="") as file:
        head, *rows = list(csv.reader(file))
    return {name: [row[i] for row in rows] for i, name in enumerate(head)}


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".csv": _read_csv,
    ".json": lambda path: json.loads(path.read_text()),
    ".npz": _read_npz,
    ".npy": lambda path: {"array": np.load(path)},
    ".safetensors": lambda path: dict(safetensors.numpy.load_file(path)),
    ".parquet": lambda path: pyarrow.parquet.read_table(path).sort_by("key").to_pydict(),
}
"""A file's named parts."""


def _compare_values(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    notes = _note_columns(set(old), set(new))
    for name, value in old.items():
        a, b = np.asarray(value), np.asarray(new[name])
        if a.shape != b.shape:
            raise Difference(f"{name}: shapes {a.shape} and {b.shape}")
        if a.tobytes() == b.tobytes() or (a.dtype == b.dtype and bool(np.all(a == b))):
            continue
        try:
            a, b = a.astype(np.float64), b.astype(np.float64)
        except (TypeError, ValueError):
            raise Difference(f"{name}: {_first_unequal(a, b)}") from None
        gap = np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), np.finfo(np.float64).tiny)
        if gap.max() > 0:
            raise Difference(f"{name}: {int((gap > 0).sum())} of {gap.size} numbers, by {gap.max():.1e} of their size")
    return notes


def _first_unequal(old: np.ndarray, new: np.ndarray) -> str:
    pairs = ((a, b) for a, b in zip(old.ravel().tolist(), new.ravel().tolist()) if a != b)
    return "{!r} and {!r}".format(*next(pairs, (old, new)))


def _note_columns(old: set[str], new: set[str]) -> list[str]:
    if gone := sorted(old - new):
        raise Difference(f"without {', '.join(gone)}")
    return [f"new: {', '.join(sorted(new - old))}"] if new - old else []
