"""A report written from made-up sweeps, and its page taken apart, for tests."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from tests.support.made_up_sweep import SIDE
from tuning.report.page import write_report


class StandIn:
    """A detector that blurs."""

    resolution = SIDE

    def seen(self, images: np.ndarray) -> np.ndarray:
        return (images / 127.5 - 1).astype(np.float32)

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        return (images / 127.5 - 1).astype(np.float32) * 0.5

    def heatmap(self, images: np.ndarray) -> np.ndarray:
        return np.abs(images[..., 0] / 255.0 - 0.5).astype(np.float32)


def report(sweeps: list[Path], out: Path, without_pixels: list[Path] | None = None) -> str:
    hidden = [str(path) for path in without_pixels or []]
    return write_report([str(path) for path in sweeps], str(out), hidden, str(out.parent / "cache"), "1GB")


class Page(HTMLParser):
    """A page's tables by id, its images by id, its links, and the names of its tags."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.images: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.table: list[list[str]] = []
        self.cell = False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = {key: value or "" for key, value in attrs}
        self.tags.add(tag)
        self.addresses += [value for key, value in facts.items() if key in ("src", "href", "data", "srcset", "action")]
        if tag == "table":
            self.table = self.tables[facts["id"]] = []
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.table[-1].append("")
            self.cell = True
        elif tag == "img":
            self.images[facts["id"]] = facts["src"]
        elif tag == "a":
            self.links[facts["download"]] = facts["href"]

    def handle_endtag(self, tag: str) -> None:
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cell:
            self.table[-1][-1] += data
