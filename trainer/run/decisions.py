"""What people decided about images: files that only grow, one a session, so that nobody overwrites anybody.

RUN/review/decisions/*.jsonl hold a line for each decision: when, who, what, about which keys. An image's latest
decision counts, whoever took it.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from data_tools.errors import UserError
from data_tools.storage import open_storage, read_bytes, write_bytes
from data_tools.untrusted import parse_json

JUNK, FINE, UNSURE, OPEN = "junk", "fine", "unsure", "open"
CHOICES = (JUNK, FINE, UNSURE, OPEN)
"""What can be decided; open takes a decision back."""
FOLDER = "review"
"""Of a run, what the review writes."""
PART_BYTES = 2**18
"""A session's file is written whole at each decision, as object storage asks for; above this size it begins another."""
SETTLED = 3.0
"""Seconds: object storage tells times of change to the second, so a file that changed just now is read again."""
FILE_BYTES = 2**26
"""At most, of a file that is read."""


@dataclass(frozen=True, order=True)
class Decision:
    """at: time in UTC as text, which sorts; n: its number in its session; keys: of the images."""

    at: str
    by: str
    n: int
    choice: str
    keys: tuple[str, ...]

    def line(self) -> bytes:
        values = {"at": self.at, "by": self.by, "n": self.n, "decision": self.choice, "keys": self.keys}
        return (json.dumps(values) + "\n").encode()


class Decisions:
    """All decisions about a run's images: this session's and those of others, as far as they have been read."""

    def __init__(self, url: str, by: str) -> None:
        """url: the folder, local or in object storage; by: who decides in this session. UserError for damaged files."""
        self.storage, self.by, self.url = open_storage(url), by, url
        self.session, self.part, self.count = uuid.uuid4().hex[:12], 0, 0
        self.content = b""
        self.read: dict[str, tuple[float, float]] = {}
        """Others' files: when they changed, and when that was first seen."""
        self.latest: dict[str, Decision] = {}
        self.log: list[str] = []
        """Keys in the order in which their decisions became known here; a reader remembers how far it has come."""
        self.lock = threading.RLock()
        self.refresh()

    def decide(self, keys: Sequence[str], choice: str) -> None:
        """Saved when this returns; when it raises, nothing is decided. UserError for no such choice."""
        if choice not in CHOICES or not keys:
            raise UserError(f"{choice!r:.40}: is not a decision - give one of {', '.join(CHOICES)}, and images")
        with self.lock:
            decision = Decision(self._now(keys), self.by, self.count, choice, tuple(keys))
            content = self.content + decision.line()
            write_bytes(self.storage, self._name(), content)
            self.content, self.count = content, self.count + 1
            self._learn(decision)
            if len(content) > PART_BYTES:
                self.part, self.content = self.part + 1, b""

    def refresh(self) -> None:
        """Read what others have written since; UserError where a file is damaged."""
        with self.lock:
            fresh = list[Decision]()
            for name, changed in self.storage.tree():
                if not name.endswith(".jsonl") or name.startswith(self.session):
                    continue
                before, seen = self.read.get(name, (None, 0.0))
                if before == changed and seen < time.monotonic() - SETTLED:
                    continue
                fresh += read_decisions(f"{self.url}/{name}", read_bytes(self.storage, name, FILE_BYTES))
                if before != changed:
                    self.read[name] = changed, time.monotonic()
            for decision in sorted(fresh):
                self._learn(decision)

    def choice(self, key: str) -> str:
        """The decision about an image that counts."""
        known = self.latest.get(key)
        return known.choice if known else OPEN

    def digest(self) -> str:
        """Changes with what is decided about any image."""
        with self.lock:
            known = sorted((key, each.choice) for key, each in self.latest.items() if each.choice != OPEN)
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()

    def keys(self, choice: str) -> list[str]:
        """The images of which this was decided."""
        with self.lock:
            return [key for key, decision in self.latest.items() if decision.choice == choice]

    def _learn(self, decision: Decision) -> None:
        for key in decision.keys:
            if key not in self.latest or self.latest[key] < decision:
                self.latest[key] = decision
                self.log.append(key)

    def _now(self, keys: Sequence[str]) -> str:
        """Later than all that is known about these images, so that clocks which differ do not undo what is seen."""
        now = datetime.now(UTC)
        seen = max((self.latest[key].at for key in keys if key in self.latest), default="")
        if seen >= _text(now):
            now = datetime.fromisoformat(seen) + timedelta(microseconds=1)
        return _text(now)

    def _name(self) -> str:
        return f"{self.session}-{self.part:04d}.jsonl"


def read_decisions(name: str, content: bytes) -> list[Decision]:
    """The decisions in a file; UserError for a line that `Decision.line` has not written."""
    result = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            result.append(_decision(parse_json(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{name}: line {number} is not a decision ({error!r:.80}) - remove the line") from None
    return result


def _decision(values: Any) -> Decision:
    at, by, n, choice, keys = (values[name] for name in ("at", "by", "n", "decision", "keys"))
    datetime.fromisoformat(at)
    if choice not in CHOICES or type(n) is not int or not isinstance(by, str):
        raise ValueError("no such decision")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("no list of keys")
    return Decision(at, by, n, choice, tuple(keys))


def _text(time: datetime) -> str:
    return time.isoformat(timespec="microseconds")
