"""The files of a sweep's folder: JSON, tables and score files, each checked as it is read."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy.stats import rankdata

from data_tools.errors import UserError
from data_tools.storage import Storage, read_bytes
from data_tools.text import CsvWriter
from data_tools.untrusted import parse_json
from trainer.scoring.join import anomaly, has_a

T = TypeVar("T")
DAMAGED = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    MemoryError,
    OSError,
    EOFError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
)
"""What parsers raise for a file that is not what they expect."""
TEXT = ("method", "options", "criterion")


@dataclass(frozen=True)
class ScoreFile:
    """Scores of N test images: columns of float64, greater = more anomalous; labels bool (True = anomalous) or None."""

    keys: list[str]
    labels: np.ndarray | None
    columns: dict[str, np.ndarray]

    def score(self, name: str, lam: float | None = None) -> np.ndarray:
        """A column of length N; the name "a" with lambda gives lambda L_n + (1 - lambda) L_o (P eq. 5)."""
        if name != "a" or lam is None:
            return self.columns[name]
        return anomaly(self.columns["L_n"], self.columns["L_o"], lam)

    def has(self, name: str) -> bool:
        return has_a(self.columns) if name == "a" else name in self.columns

    def auc(self, name: str, lam: float | None = None) -> float:
        """The AUC of a score, for a file with labels."""
        assert self.labels is not None
        return float(aucs(self.labels, self.score(name, lam)))

    def lambda_aucs(self, lambdas: np.ndarray) -> np.ndarray:
        """The AUC of a at each of K lambdas, for a file with labels."""
        assert self.labels is not None
        return aucs(self.labels, anomaly(self.columns["L_n"], self.columns["L_o"], lambdas[:, None]))


def aucs(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Areas under the ROC curve by ranks (Mann-Whitney), ties counting half; scores ... x N, labels bool N."""
    positives = int(labels.sum())
    u = rankdata(scores, axis=-1)[..., labels].sum(-1) - positives * (positives + 1) / 2
    return u / (positives * (len(labels) - positives))


def checked(
    storage: Storage,
    name: str,
    parse: Callable[[bytes], T],
    remedy: str = "remove it and run python -m tuning sweep again",
) -> T:
    """Parse an object; a UserError names it when it is damaged. FileNotFoundError when there is none."""
    content = read_bytes(storage, name)
    try:
        return parse(content)
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{storage.url}/{name}: is damaged ({reason}) - {remedy}") from None


def read_json(storage: Storage, name: str, parse: Callable[[Any], T]) -> T:
    """What `parse` makes of a JSON object's value."""
    return checked(storage, name, lambda content: parse(parse_json(content)))


def read_table(storage: Storage, name: str, needed: Sequence[str]) -> list[dict[str, Any]]:
    """A table's rows: text in the columns of TEXT, else float64; an empty cell is NaN."""

    def parse(content: bytes) -> list[dict[str, Any]]:
        rows = csv_rows(content, needed)
        return [
            {key: row[key] if key in TEXT else float(row[key]) if row[key] else np.nan for key in needed}
            for row in rows
        ]

    return checked(storage, name, parse)


def read_scores(storage: Storage, name: str, needed: Sequence[str], wanted: Sequence[str] | None = None) -> ScoreFile:
    """A score file's needed columns, with all that are wanted and there (None: every column but key and label).

    Labels are None when the file lacks normal or anomalous images.
    """

    def parse(content: bytes) -> ScoreFile:
        rows = csv_rows(content, ("key", *needed))
        if not rows:
            raise ValueError("has no rows")
        columns = [key for key in rows[0] if (key in wanted if wanted else key not in ("key", "label"))]
        numbers = np.array([[float(row[key]) for key in columns] for row in rows], np.float64)
        if not np.isfinite(numbers).all():
            raise ValueError("holds a score that is no finite number")
        names = [row.get("label", "") for row in rows]
        if unknown := set(names) - {"normal", "anomaly", ""}:
            raise ValueError(f"unknown label {min(unknown)}")
        labels = np.array([label == "anomaly" for label in names]) if {"normal", "anomaly"} <= set(names) else None
        return ScoreFile([row["key"] for row in rows], labels, dict(zip(columns, numbers.T)))

    return checked(storage, name, parse)


def read_array(storage: Storage, name: str, rows: int) -> np.ndarray:
    """The array "test" of an .npz, float N x M with N = rows."""

    def parse(content: bytes) -> np.ndarray:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            if file.getinfo("test.npy").file_size > 2**16 * (rows + 1):
                raise ValueError(f"more than {rows} test images take")
        array = np.load(io.BytesIO(content), allow_pickle=False)["test"]
        if array.ndim != 2 or len(array) != rows or not np.isfinite(array).all():
            raise ValueError(f"shape {array.shape} or values do not fit {rows} test images")
        return array

    return checked(storage, name, parse)


def csv_rows(content: bytes, needed: Sequence[str]) -> list[dict[str, str]]:
    """A CSV's rows by column; ValueError where a needed column is missing or a row has another length.

    Of two columns of one name the first counts: in tables of earlier versions a source's own label came second.
    """
    head, *rows = list(csv.reader(io.StringIO(content.decode(), newline=""))) or [[]]
    if missing := [key for key in needed if key not in head]:
        raise ValueError(f"has no column {missing[0]}")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(head):
            raise ValueError(f"line {number} has {len(row)} cells, not {len(head)}")
    first = [head.index(name) == place for place, name in enumerate(head)]
    return [{name: cell for name, cell, counts in zip(head, row, first) if counts} for row in rows]


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV: floats with all their digits, None and NaN as empty cells."""
    file = io.StringIO()
    writer = CsvWriter(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([[_cell(value) for value in row] for row in rows])
    return file.getvalue()


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)
