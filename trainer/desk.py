"""The desk: a Ray actor through which workers talk to the program that started them, wherever they run.

A module of its own, without torch, for which its process should not wait.
"""

from __future__ import annotations

from data_tools.errors import UserError

ATTEMPTS = 10
"""Starts without a new checkpoint in between after which a run stops: starting it again is no help."""


class Desk:
    """What the workers said and have not been read yet, and whether to start them again."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.verdict: Exception | None = None  # why starting again is no help
        self.last_failure = ""
        self.begun_at, self.attempts, self.attended = -1, 0, False

    def hear(self, line: str) -> None:
        self.lines.append(line)

    def read(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines

    def arrived(self) -> Exception | None:
        """The first worker is there; returns why it should leave at once, if it should."""
        self.attempts, self.attended = self.attempts + 1, True
        return self.judged()

    def is_attended(self) -> bool:
        """Whether workers have come since the last failure, as far as is known here."""
        return self.attended

    def begun(self, images_seen: int) -> None:
        """Training starts or goes on at this count of images."""
        if images_seen > self.begun_at:
            self.begun_at, self.attempts = images_seen, 1

    def failed(self, error: Exception, for_good: bool) -> None:
        self.attended = False
        self.last_failure = str(error).splitlines()[0] if str(error) else type(error).__name__
        if for_good:
            self.verdict = error
        else:
            self.hear(f"warning: a worker failed ({self.last_failure}); all start again from the newest checkpoint")

    def judged(self) -> Exception | None:
        if self.verdict is None and self.attempts > ATTEMPTS:
            self.verdict = UserError(
                f"the workers stopped {ATTEMPTS} times after {max(self.begun_at, 0):,} images without a new checkpoint"
                f" ({self.last_failure or 'killed without a word'}) - look for memory or machines that are short,"
                " or lower --checkpoint-images"
            )
        return self.verdict
