"""CIFAR-10 with one class as the normal one: reads the "python version" and the "binary version".

The python version is a set of pickles, and a pickle from the internet can run code. So the unpickler here knows
five harmless stand-ins for what numpy arrays in such files consist of, and refuses every other name.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

from data_tools.dataset.patch import Patch, Plan
from data_tools.errors import UserError
from data_tools.sources.common import check_at_least, shuffled
from data_tools.walk import files_in

SIDE = 32
IMAGE_BYTES = 3 * SIDE * SIDE
RECORD_BYTES = 1 + IMAGE_BYTES
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Cifar10:
    """CIFAR-10: one class is normal, the other nine are the anomalies."""

    folder: tyro.conf.Positional[Path]
    """The unpacked cifar-10-batches-py or cifar-10-batches-bin, or the folder around it."""
    normal_class: str = "automobile"
    """The class that counts as normal."""
    test_size: int = 1000
    """Test images of each kind: so many normal ones and as many anomalous ones."""
    seed: int = 0
    """Decides which test images are drawn."""

    @property
    def resolution(self) -> int:
        return SIDE

    @property
    def channels(self) -> int:
        return 3

    def plan(self) -> Plan:
        """Check every file and draw the test images; within a pool, images come in file order.

        Plan and `cut` hold one batch file (30 MB in the original) in memory at a time.
        Raises UserError for a wrong option and for a missing, damaged or foreign file, before the first patch.
        """
        check_at_least(self.test_size, 1, "--test-size")
        check_at_least(self.seed, 0, "--seed")
        training, test = _find_batches(self.folder)
        classes = _class_names(test.parent)
        if self.normal_class not in classes:
            raise UserError(f"--normal-class is {self.normal_class!r} - give one of {', '.join(classes)}")
        normal = classes.index(self.normal_class)

        drafts: dict[str, list[tuple[Path, int]]] = {}

        def add(path: Path, rows: np.ndarray, part: str, is_normal: np.ndarray) -> None:
            for row in rows.tolist():
                drafts.setdefault(f"{part}-{'normal' if is_normal[row] else 'anomaly'}", []).append((path, row))

        for path in training:
            is_normal = _read_batch(path).labels == normal
            add(path, np.arange(len(is_normal)), "train", is_normal)
        if "train-normal" not in drafts:
            raise UserError(
                f"{test.parent}: no training image is of class {self.normal_class} - add more data_batch files"
            )
        is_normal = _read_batch(test).labels == normal
        add(test, self._draw_test_rows(test, is_normal), "test", is_normal)
        return Plan(drafts, partial(_cut, tuple(classes)))

    def _draw_test_rows(self, test: Path, is_normal: np.ndarray) -> np.ndarray:
        chosen = []
        for purpose, rows in (("normal", np.flatnonzero(is_normal)), ("anomalous", np.flatnonzero(~is_normal))):
            if len(rows) < self.test_size:
                most = min(is_normal.sum(), (~is_normal).sum())
                remedy = f"give at most {most}" if most else "download it again"
                raise UserError(
                    f"--test-size is {self.test_size}, but {test} holds {len(rows)} {purpose} images - {remedy}"
                )
            chosen.append(rows[shuffled(len(rows), self.seed, purpose)[: self.test_size]])
        return np.sort(np.concatenate(chosen))


def _cut(classes: tuple[str, ...], pool: str, drafts: Sequence[tuple[Path, int]]) -> Iterator[Patch]:
    """Yield the images of rows of batch files; reads a file once for all rows of it that follow one another."""
    for path, rows in groupby(drafts, key=lambda draft: draft[0]):
        batch = _read_batch(path)
        for _, row in rows:
            label = int(batch.labels[row])
            yield Patch(
                # A row holds 1024 red, 1024 green and 1024 blue values.
                image=np.ascontiguousarray(batch.data[row].reshape(3, SIDE, SIDE).transpose(1, 2, 0)),
                pool=pool,
                key=f"{path.stem}-{row:05d}",
                provenance={
                    "source": "cifar10",
                    "file": path.name,
                    "row": row,
                    "class": classes[label],
                    "label": label,
                },
            )


class Batch(NamedTuple):
    """data: uint8, N x 3072; labels: int64, N numbers in 0 .. 9; N >= 1."""

    data: np.ndarray
    labels: np.ndarray


def _find_batches(folder: Path) -> tuple[list[Path], Path]:
    """Return the training files and the test file of whichever version `folder` or its usual subfolder holds."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder - give the unpacked cifar-10-batches-py or cifar-10-batches-bin")
    for place in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        for ending in ("", ".bin"):
            training = [
                path for path in files_in(place) if re.fullmatch(rf"data_batch_[0-9]{re.escape(ending)}", path.name)
            ]
            if not training:
                continue
            test = place / f"test_batch{ending}"
            if not test.is_file():
                raise UserError(f"{test}: missing - put it beside {training[0].name}")
            return training, test
    raise UserError(
        f"{folder}: holds neither data_batch_1 nor data_batch_1.bin"
        " - unpack the CIFAR-10 archive and give the folder with these files"
    )


def _class_names(place: Path) -> list[str]:
    """Read the ten names from batches.meta or batches.meta.txt; without either they are the official ones."""
    pickled, text = place / "batches.meta", place / "batches.meta.txt"
    if pickled.is_file():
        path, names = pickled, _read_pickle(pickled).get("label_names")
        names = [_text(name) for name in names] if isinstance(names, list) else []
    elif text.is_file():
        path, names = text, text.read_text(encoding="utf-8", errors="replace").split()
    else:
        return list(CLASSES)
    if len(set(names)) != 10:
        raise UserError(f"{path}: holds {len(set(names))} class names instead of 10 - download it again or remove it")
    return names


def _read_batch(path: Path) -> Batch:
    """Read one file of either version, complete and checked; raises UserError."""
    batch = _read_binary(path) if path.suffix == ".bin" else _read_pickled_batch(path)
    wrong = np.flatnonzero((batch.labels < 0) | (batch.labels > 9))
    if wrong.size:
        raise UserError(
            f"{path}: row {wrong[0]} has label {batch.labels[wrong[0]]}, not 0 to 9 - download CIFAR-10 again"
        )
    return batch


def _read_binary(path: Path) -> Batch:
    raw = np.fromfile(path, np.uint8)
    if raw.size == 0 or raw.size % RECORD_BYTES:
        raise UserError(
            f"{path}: {raw.size} bytes are not a whole number of {RECORD_BYTES}-byte records - download it again"
        )
    records = raw.reshape(-1, RECORD_BYTES)
    return Batch(records[:, 1:], records[:, 0].astype(np.int64))


def _read_pickled_batch(path: Path) -> Batch:
    content = _read_pickle(path)
    missing = [name for name in ("data", "labels") if name not in content]
    if missing:
        raise UserError(
            f"{path}: has no {missing[0]!r}, so it is no CIFAR-10 batch - download the Python version again"
        )
    pickled, labels = content["data"], content["labels"]
    data = pickled.rows() if isinstance(pickled, _PickledArray) else None
    if data is None or not len(data):
        raise UserError(
            f"{path}: 'data' is not an array of bytes, N x {IMAGE_BYTES} - download the Python version again"
        )
    if not isinstance(labels, list) or len(labels) != len(data) or any(type(label) is not int for label in labels):
        raise UserError(f"{path}: 'labels' is not a list of {len(data)} numbers - download the Python version again")
    # Clipped so that an absurd number fits; it is still outside 0 to 9.
    return Batch(data, np.array([min(max(label, -1), 256) for label in labels], np.int64))


class _PickledArray:
    """Keeps what a pickle says about an array, so that no pickle ever drives numpy itself."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def rows(self) -> np.ndarray | None:
        """The array as uint8, N x 3072, or None when it is of another shape, type or order."""
        match self.state:
            case (_, (int(count), 3072), _PickledType(name="u1"), 0, bytes(raw)) if len(raw) == count * IMAGE_BYTES:
                return np.frombuffer(raw, np.uint8).reshape(count, IMAGE_BYTES)
        return None


class _PickledType:
    """Keeps the name of an array's element type."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = _text(name)

    def __setstate__(self, state: Any) -> None:
        pass


def _array(*_: Any) -> _PickledArray:
    return _PickledArray()


def _latin1(text: str, _: Any = None) -> bytes:
    return text.encode("latin1")


# numpy renamed its core in version 2; `encode` is how Python 3 writes bytes with protocol 2.
STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("_codecs", "encode"): _latin1,
}


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in STAND_INS:
            return STAND_INS[module, name]
        raise UserError(f"wants to use {module}.{name}, which no CIFAR-10 file needs - do not trust this file")


def _read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary without running anything it names; byte keys become text."""
    content = path.read_bytes()
    try:
        loaded = _SafeUnpickler(io.BytesIO(content), encoding="bytes").load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    # A damaged pickle fails in a dozen ways: EOFError, KeyError, ValueError, MemoryError ...
    except Exception as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(f"{path}: is damaged or no pickle ({reason}) - download it again") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: holds no dictionary, so it is no CIFAR-10 file - download the Python version again")
    return {_text(key): value for key, value in loaded.items()}


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
