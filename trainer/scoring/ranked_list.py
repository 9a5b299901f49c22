"""A list of scores that is written as it grows, in the order of scoring, and sorted at its end."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_tools.errors import BusyError
from data_tools.text import CsvWriter
from trainer.scoring.judge import Scored


class RankedList:
    """A CSV that ends as `path`, the most anomalous first, then what has no score.

    Until then its rows lie unsorted beside it, in NAME.partial.csv, which a run that is stopped leaves behind; a
    later one for the same list begins it again. Of the rows only places and scores are held, 16 bytes each. first: the
    most anomalous image's name, and `highest` its score.
    """

    def __init__(self, path: Path, heading: Sequence[str], with_errors: bool) -> None:
        """heading: of the columns before `error`, which is there where asked for. BusyError: another one writes it."""
        self.path, self.partial = path, path.with_name(f"{path.stem}.partial{path.suffix}")
        self.with_errors, self.width = with_errors, len(heading)
        self.places, self.scores = array("q"), array("d")
        self.scored = self.failed = 0
        self.first, self.highest = "", float("-inf")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.partial.open("ab", buffering=0)
        self._be_alone()
        self.file.truncate(0)
        self.heading = _row([*heading, *(["error"] if with_errors else [])])
        self.size, self.waiting = 0, bytearray()
        self._put(self.heading)

    def add(self, names: Sequence[str], scored: Scored) -> None:
        """Rows of scored images; they, and what failed before them, are in the file then."""
        for i, name in enumerate(names):
            numbers = [f"{column[i]:.9g}" for column in (scored.score, *scored.columns.values())]
            called = [] if scored.anomalous is None else ["yes" if scored.anomalous[i] else "no"]
            score = float(scored.score[i])
            self._record([name, *numbers, *called, *([""] if self.with_errors else [])], score)
            if score > self.highest:
                self.first, self.highest = name, score
        self.scored += len(names)
        self._write()

    def fail(self, name: str, error: str) -> None:
        """A row of an image that cannot be read."""
        self._record([name, *[""] * (self.width - 1), error], float("nan"))
        self.failed += 1

    def finish(self) -> None:
        """Write the list, and remove what it was made of."""
        self._write()
        order = np.argsort(-np.array(self.scores), kind="stable")  # NaN comes last
        ends = [*self.places[1:], self.size]
        staged = self.path.with_name(f".{self.path.stem[:100]}.sorted")
        try:
            with self.partial.open("rb") as rows, staged.open("wb") as file:
                file.write(self.heading)
                for i in order:
                    rows.seek(self.places[i])
                    file.write(rows.read(ends[i] - self.places[i]))
                file.flush()
                os.fsync(file.fileno())
            os.replace(staged, self.path)
        finally:
            staged.unlink(missing_ok=True)
        self.partial.unlink()
        self.file.close()

    def stop(self) -> Path | None:
        """Leave what there is, and say where; nothing is left of a list without a score."""
        if not self.scored:
            self.partial.unlink(missing_ok=True)
        self.file.close()
        return self.partial if self.scored else None

    def _be_alone(self) -> None:
        """The lock ends with this process, in whatever way that ends."""
        try:
            with contextlib.suppress(PermissionError):  # a file system that has no locks
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise BusyError(f"--out {self.path}: another process is writing it - give another --out") from None

    def _record(self, row: Sequence[str], score: float) -> None:
        self.places.append(self.size)
        self.scores.append(score)
        self._put(_row(row))

    def _put(self, content: bytes) -> None:
        self.waiting += content
        self.size += len(content)

    def _write(self) -> None:
        """Whole rows at once, so that a file that is left ends with one."""
        left = memoryview(bytes(self.waiting))
        while left:
            left = left[self.file.write(left) :]
        self.waiting.clear()


def _row(row: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    CsvWriter(text).writerow(row)
    return text.getvalue().encode()
