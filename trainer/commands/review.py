"""python -m trainer review: the worst training images in a browser, decided one by one or in groups."""

from __future__ import annotations

import functools
import getpass
import os
import secrets
import signal
import sys
import threading
import webbrowser
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from data_tools.commands.options import CacheOptions, Caching
from data_tools.errors import UserError
from trainer.commands.shared import Best, Data, Runs
from trainer.scoring import PAPER_LAMBDA
from trainer.scoring.criterion import Criterion

if TYPE_CHECKING:
    from trainer.scoring.detector import Detector
    from trainer.scoring.ensemble import Ensemble


@dataclass(frozen=True)
class Review:
    """Open a page on which a person decides which of a run's training images are junk, the most anomalous first.

    Each decision is saved at once in RUN/review, of several runs the first one's; exclude.txt, to train without the
    junk, and labels.csv follow, and --by reviewed learns from them. Several people may review the same run: of two
    decisions about an image the later one counts.
    """

    run: Runs
    best: Best = False
    data: Data = ""
    by: str = "fused"
    """The score that images are ordered by; see score."""
    lam: Annotated[float, tyro.conf.arg(name="lambda")] = PAPER_LAMBDA
    """lambda in a = lambda L_n + (1 - lambda) L_o."""
    host: str = "127.0.0.1"
    """Address to listen on; whoever can reach it and knows the page's address may decide."""
    port: int = 8601
    """Port to listen on; 0 takes one that is free."""
    reviewer: Annotated[str, tyro.conf.arg(help_behavior_hint="(default: the user's name)")] = ""
    """Who decides."""
    browser: bool = True
    """Open the page in this machine's browser, where there is a screen."""
    caching: Caching = field(default_factory=CacheOptions)

    def __call__(self) -> None:
        from trainer.review.run_table import left_out, run_table
        from trainer.review.server import served
        from trainer.review.session import Review as Open
        from trainer.run.decisions import FOLDER, Decisions
        from trainer.run.folder import read_excluded, run_dataset
        from trainer.scoring.calibration import run_of
        from trainer.scoring.loading import absolute_runs, check_fits, chosen_checkpoints, load_detector, runs_in

        if not 0 <= self.port <= 65535:
            raise UserError(f"--port {self.port}: is outside 0 to 65535 - give e.g. 8601")
        criterion = Criterion(self.by, self.lam, false_alarms=0.01)  # with any threshold a has p-values too
        criterion.check()
        checkpoints = chosen_checkpoints(absolute_runs(self.run), self.best)
        check_fits(checkpoints, criterion)
        run = run_of(runs_in(checkpoints)[0])
        place, cache = f"{run}/{FOLDER}", self.caching.open()
        decisions = Decisions(f"{place}/decisions", self.reviewer or _user())  # damaged ones are said before the work

        @functools.cache
        def load() -> Detector | Ensemble:
            caching = self.caching
            return load_detector(checkpoints, criterion, False, caching.cache, caching.cache_limit, self.data)

        score = f"{self.by} {self.lam} {decisions.digest() if self.by == 'reviewed' else ''}"
        table = run_table(run, checkpoints, score, load, cache, self.data, place)
        missing = left_out(run_dataset(run, self.data, cache), read_excluded(run))
        review = Open(run.rstrip("/").rpartition("/")[2], place, table, decisions, missing)
        server = served(review, secrets.token_urlsafe(24), self.host, self.port)
        ended = threading.Event()
        former = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            review.begin()
            print(f"{len(table):,} training images to review: {server.address}", flush=True)
            screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"
            if self.browser and screen:
                webbrowser.open(server.address)
            ended.wait()
        finally:
            server.shutdown()
            review.end()
            for number, handler in former.items():
                signal.signal(number, handler)
        counts = review.counts()
        said = ", ".join(f"{counts[name]:,} {name}" for name in ("junk", "fine", "unsure"))
        print(f"{said}: {place}/exclude.txt, {place}/labels.csv")
        print(f"next: python -m trainer train … --exclude {place}/exclude.txt --out ANOTHER")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"
