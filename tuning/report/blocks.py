"""What the page is made of: tables, figures, and sentences where one is missing."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

DPI = 150
KINDS = {"svg": "image/svg+xml", "png": "image/png"}
BEATS = "▲"


@dataclass(frozen=True)
class Picture:
    """A drawn figure, `inches` wide in print. kind: "svg" for lines, "png" where there are many points or pixels."""

    kind: str
    content: bytes
    inches: float

    @property
    def data_uri(self) -> str:
        return f"data:{KINDS[self.kind]};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Block:
    """An item of the page with its caption: a table, a figure, or neither.

    name: of its files, without ending. rows: cells as they are shown; a row of one cell heads the rows below it.
    data: the same figures in full precision, written as NAME.csv.
    """

    name: str
    title: str
    caption: str
    head: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    picture: Picture | None = None
    data: str = ""

    @property
    def data_uri(self) -> str:
        return f"data:text/csv;base64,{base64.b64encode(self.data.encode()).decode()}"


@dataclass(frozen=True)
class Section:
    """A sweep's part of the page."""

    title: str
    intro: str
    blocks: list[Block]


def drawn(figure: Figure, kind: str) -> Picture:
    """A figure as bytes, the same for the same figure."""
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return Picture(kind, file.getvalue(), figure.get_figwidth())


def number(value: float | None) -> str:
    """An AUC as the page shows it."""
    return "–" if value is None or value != value else f"{value:.3f}"


def listed(values: Iterable[Any]) -> str:
    """ "0, 0.02", with numbers in their shortest form."""
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
