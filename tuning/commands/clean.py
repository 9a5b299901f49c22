"""python -m tuning clean: rounds of training, audit and leaving out, for one dataset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from data_tools.commands.options import CacheOptions, Caching
from data_tools.errors import UserError
from data_tools.headings import UNSET
from data_tools.storage import absolute
from tuning.config import METHODS


@dataclass(frozen=True)
class Clean:
    """Train, leave out the images that rank worst, train again on the rest, and so on.

    The result is a folder with junk.txt, the list of all that was left out; cleaned, a training run on what is left;
    and index.html, which shows what each round left out. The same command goes on where it was stopped.
    """

    data: str
    """The dataset: the URL that data_tools wrote to."""
    out: str
    """The result's URL, a folder or s3://. If it holds unfinished rounds of the same options, they go on."""
    preset: str = "cells-small"
    """The preset whose options a run starts from."""
    method: Annotated[str, tyro.conf.arg(help="What is trained: " + ", ".join(METHODS) + ".")] = "proposed"
    rounds: int = 3
    """Rounds of leaving images out."""
    drop: float = 0.02
    """The share of the remaining images that each round leaves out."""
    by: str = "fused"
    """The score that ranks images: fused, a, or one of the method's terms."""
    gamma: float = 0.0
    """For experiments: the share of labelled anomalies planted among the images."""
    seed: int = 1000
    """Seeds the training runs, and the draw of what is planted."""
    set: Annotated[tuple[str, ...], UNSET] = ()
    """Further options of the training runs, NAME=VALUE each."""
    workers: str = "0"
    """Ray Train workers of a training run; 0 trains in this process."""
    caching: Caching = field(default_factory=CacheOptions)

    def __call__(self) -> None:
        from data_tools.dataset.contamination import contaminants, normal_pool
        from data_tools.dataset.reader import open_dataset
        from data_tools.storage import open_storage, write_bytes
        from trainer.commands.train import train
        from tuning.clean import JUNK, Rounds, run_rounds
        from tuning.report.rounds_page import planted_among, rounds_page
        from tuning.resumable import begin_or_resume
        from tuning.trainings import training_of

        for option in ("data", "out"):
            if not getattr(self, option):
                raise UserError(f"--{option} is missing - see python -m tuning clean --help")
        cache, out = self.caching, absolute(self.out)
        computed = {"data": absolute(self.data), "gamma": self.gamma, "seed": self.seed}
        where = {"workers": self.workers, "cache": absolute(cache.cache), "cache_limit": cache.cache_limit}
        place = {"out": f"{out}/cleaned", "exclude": f"{out}/{JUNK}"}
        cleaned = training_of(self.preset, self.method, self.set, **computed, **where, **place)
        rounds = Rounds(out, cleaned, self.rounds, self.drop, self.by).checked()
        own = {"preset": self.preset, "method": self.method, "settings": self.set}
        own |= {"rounds": self.rounds, "drop": self.drop, "by": self.by}
        begin_or_resume(out, "clean.json", computed | own, "rounds")
        done = run_rounds(rounds, train)
        dataset = open_dataset(cleaned.data, cache.open())
        planted = contaminants(dataset.count(normal_pool(dataset)), self.gamma)
        write_bytes(open_storage(rounds.out), "index.html", rounds_page(self.method, rounds, done, planted).encode())
        left = sum(len(each.images) for each in done)
        if planted:
            caught = sum(planted_among(each) for each in done)
            print(f"{caught:,} of {planted:,} planted anomalies are among the {left:,} images left out")
        print(f"{left:,} of {done[0].ranked:,} training images left out: {rounds.out}/index.html")
        print(f"next: python -m trainer evaluate {rounds.out}/cleaned")
