"""Text that people and other programs read: UTF-8 whatever the locale, names of any bytes, one writer of CSV."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterable
from typing import Any

FORMULA = re.compile(r"[=+\-@\t\r\n]")
"""What a spreadsheet takes for the beginning of a formula."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-](inf|nan)", re.IGNORECASE)


def decoded(content: bytes) -> str:
    """The text of a file that a person may have edited: UTF-8, with or without a byte order mark.

    Raises UnicodeDecodeError.
    """
    return content.decode("utf-8-sig")


def readable(name: str) -> str:
    r"""A file's name as text that can be written anywhere: bytes that are no UTF-8 become \xNN."""
    try:
        name.encode()
    except UnicodeEncodeError:
        with contextlib.suppress(UnicodeEncodeError):
            return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return name.encode("utf-8", "backslashreplace").decode()
    return name


class CsvWriter:
    """Rows to a text file that was opened with encoding="utf-8", newline="".

    A cell that a spreadsheet would run gets a ' in front of it; numbers stay as they are.
    """

    def __init__(self, file: Any, lineterminator: str = "\r\n") -> None:
        self._writer = csv.writer(file, lineterminator=lineterminator)

    def writerow(self, row: Iterable[Any]) -> None:
        self._writer.writerow([cell(value) for value in row])

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        for row in rows:
            self.writerow(row)


def cell(value: Any) -> Any:
    """What stands in a CSV for a value: text that no program takes for more than text."""
    if not isinstance(value, str):
        return value
    text = readable(value)
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text
