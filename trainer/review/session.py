"""A review while it is open: the table, the decisions, the views that pages look at, and what looks alike."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_tools.errors import UserError
from data_tools.text import readable
from trainer.review.alike import GROUPED, features, groups, nearest
from trainer.review.lists import write_lists
from trainer.review.pictures import ACROSS, png, sheet, tile
from trainer.review.table import Table
from trainer.review.views import View
from trainer.run.decisions import CHOICES, OPEN, Decisions

MAX_VIEWS = 64
MAX_ROWS = 1000
"""Images that a page asks for at a time, or decides about."""
MAX_VALUES = 300
MIN_IMAGES = 5
"""A column that can be chosen from has this many values at most, and this many images a value at least."""
NEAREST = 12
REFRESHED = 2.0
"""Seconds between two looks for what others decided."""
BLOCK = 4096


class GoneError(Exception):
    """A view that is not known any more; the page asks for it again."""


class Review:
    """What the server answers with. Everything may be called from several threads."""

    def __init__(self, name: str, place: str, table: Table, decisions: Decisions, left_out: list[str]) -> None:
        """name: of the run, for people; place: the folder of the review; left_out: as of `write_lists`."""
        self.name, self.place, self.table, self.decisions, self.left_out = name, place, table, decisions, left_out
        self.views: OrderedDict[int, np.ndarray] = OrderedDict()
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()
        self.heating = threading.Lock()
        self.features: np.ndarray | None = None
        self.groups: np.ndarray | None = None
        self.refreshed = 0.0
        self.to_write = threading.Event()
        self.ending = threading.Event()
        self.writer = threading.Thread(target=self._write_lists, daemon=True)
        self.looker = threading.Thread(target=self._look, daemon=True)

    def begin(self) -> None:
        """Write the lists of what was decided before, and look at the images in the background."""
        write_lists(self.place, self.decisions, self.left_out)
        self.writer.start()
        self.looker.start()

    def end(self) -> None:
        """The lists hold all decisions when this returns."""
        self.ending.set()
        self.to_write.set()
        self.writer.join(30)

    def start(self) -> dict[str, Any]:
        """What a page needs once."""
        table = self.table
        columns = {str(name): column.cat.categories for name, column in table.origins.items()}
        return {
            "run": readable(self.name),
            "count": len(table),
            "terms": list(table.terms),
            "side": tile(table.pixels(np.zeros(1, np.int64)).shape[1]),
            "across": ACROSS,
            "columns": {
                name: [readable(value) for value in values]
                for name, values in columns.items()
                if 1 < len(values) <= min(MAX_VALUES, len(table) // MIN_IMAGES)
            },
            "groups": [] if self.groups is None else np.bincount(self.groups).tolist(),
            "heat": table.heat is not None,
            "log": len(self.decisions.log),
            "counts": self.counts(),
        }

    def view(self, view: View) -> dict[str, int]:
        """Fix what a page is going to look at; UserError as of `View.of`."""
        result = view.of(self.table, self.decisions, self.groups)
        with self.lock:
            number = next(self.numbers)
            self.views[number] = result
            while len(self.views) > MAX_VIEWS:
                self.views.popitem(last=False)
        return {"view": number, "count": len(result)}

    def rows(self, view: int, first: int, count: int) -> list[dict[str, Any]]:
        """Some images of a view; GoneError for one that is not known any more."""
        return [self.row(int(i)) for i in self._some(view, first, count)]

    def row(self, i: int) -> dict[str, Any]:
        """What stands at an image."""
        key = self.table.keys.iat[i]
        return {
            "i": i,
            "key": readable(key),
            "score": float(self.table.score[i]),
            "p": float(self.table.p_value[i]),
            "decision": self.decisions.choice(key),
        }

    def sheet(self, view: int, first: int, count: int) -> bytes:
        """Their pictures as one PNG."""
        return sheet(self.table.pixels(self._some(view, first, count)))

    def detail(self, i: int) -> dict[str, Any]:
        """All that is known of one image; UserError for none."""
        self._check([i])
        table = self.table
        alike = [] if self.features is None else nearest(self.features, i, NEAREST).tolist()
        origin = {str(name): readable(str(table.origins[name].iat[i])) for name in table.origins}
        return {
            **self.row(i),
            "origin": {name: value for name, value in origin.items() if value},
            "parts": [{"name": name, "p": float(column[i])} for name, column in table.surprise.items()],
            "full": float(np.log10(max(len(table), 2))),
            "alike": [self.row(other) for other in alike],
            "object": [self.row(int(other)) for other in table.same_object(i)[:NEAREST]],
            "looking": self.features is None,
            "group": self._group(i),
        }

    def picture(self, i: int, heat: bool) -> bytes:
        """One image, or its heat map laid over it, as PNG."""
        self._check([i])
        if not heat or self.table.heat is None:
            return png(self.table.pixels(np.array([i]))[0])
        with self.heating:
            return png(self.table.heat(np.array([i]))[0])

    def decide(self, images: Sequence[int], choice: str) -> dict[str, Any]:
        """Saved when this returns; UserError for images or decisions that are none."""
        self._check(images)
        self.decisions.decide([self.table.keys.iat[i] for i in images], choice)
        self.to_write.set()
        return {"counts": self.counts()}

    def since(self, known: int) -> dict[str, Any]:
        """What was decided since the log held `known` keys, by anybody."""
        if time.monotonic() - self.refreshed > REFRESHED:
            self.refreshed = time.monotonic()
            before = len(self.decisions.log)
            self.decisions.refresh()
            if len(self.decisions.log) > before:
                self.to_write.set()
        log, number = self.decisions.log, self.table.number
        changed = dict.fromkeys(key for key in log[max(known, 0) :] if key in number)
        return {
            "log": len(log),
            "changed": [[number[key], self.decisions.choice(key)] for key in changed],
            "counts": self.counts(),
            "groups": 0 if self.groups is None else int(self.groups.max()) + 1,
        }

    def counts(self) -> dict[str, int]:
        """Images by what was decided about them."""
        with self.decisions.lock:
            known = Counter(each.choice for key, each in self.decisions.latest.items() if key in self.table.number)
        decided = {choice: known[choice] for choice in CHOICES if choice != OPEN}
        return decided | {OPEN: len(self.table) - sum(decided.values())}

    def _group(self, i: int) -> int:
        """The group of look-alikes that an image is in; -1 for none."""
        if self.groups is None:
            return -1
        place = np.flatnonzero(self.table.order[: len(self.groups)] == i)
        return int(self.groups[place[0]]) if len(place) else -1

    def _some(self, view: int, first: int, count: int) -> np.ndarray:
        with self.lock:
            if view not in self.views:
                raise GoneError
            self.views.move_to_end(view)
            result = self.views[view]
        first = max(first, 0)
        return result[first : first + min(max(count, 0), MAX_ROWS)]

    def _check(self, images: Sequence[int]) -> None:
        if not 0 < len(images) <= MAX_ROWS or not all(type(i) is int and 0 <= i < len(self.table) for i in images):
            raise UserError(f"images {str(list(images)[:3])[1:-1]:.60}: give 1 to {MAX_ROWS} numbers of images")

    def _look(self) -> None:
        """See what looks like what."""
        parts, n = list[np.ndarray](), len(self.table)
        for at in range(0, n, BLOCK):
            if self.ending.is_set():
                return
            parts.append(features(self.table.pixels(np.arange(at, min(at + BLOCK, n)))))
        known = np.concatenate(parts)
        self.groups = groups(known[self.table.order[:GROUPED]])
        self.features = known

    def _write_lists(self) -> None:
        """Once a second at most, while there is something to write."""
        while True:
            self.to_write.wait()
            self.to_write.clear()
            ending = self.ending.is_set()
            try:
                write_lists(self.place, self.decisions, self.left_out)
            except (UserError, OSError) as error:
                print(f"warning: the lists cannot be written now, the decisions are safe: {error}", file=sys.stderr)
            if ending:
                return
            self.ending.wait(1)
