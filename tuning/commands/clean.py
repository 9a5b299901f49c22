"""python -m tuning clean: rounds of training, audit and leaving out, for one dataset."""

from __future__ import annotations

from dataclasses import dataclass, field

import tyro

from data_tools.commands.options import CacheOptions, Caching
from data_tools.storage import absolute
from trainer.config import MethodName


@dataclass(frozen=True)
class Clean:
    """Train, leave out the images that look worst, train again on the rest, and so on.

    The result is a folder with junk.txt, the list of all that was left out; cleaned, a training on what is left; and
    index.html, which shows what each round left out. The same command goes on where it was stopped.
    """

    data: str = ""
    """The dataset: the URL that data_tools wrote to."""
    out: str = ""
    """The result's URL, a folder or s3://. If it holds unfinished rounds of the same options, they go on."""
    preset: str = "cells-small"
    """What a training starts from."""
    method: MethodName = "proposed"
    """What is trained; see python -m trainer train --help."""
    rounds: int = 3
    """Times that images are left out."""
    drop: float = 0.02
    """The share of its images that each round leaves out."""
    by: str = "fused"
    """By what images are ranked: fused, a, or one of the method's terms."""
    gamma: float = 0.0
    """For experiments: the share of known anomalies that is planted among the images."""
    seed: int = 1000
    """Seeds the trainings, and the draw of what is planted."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A further option of the trainings, NAME=VALUE."""
    workers: str = "0"
    """Ray Train workers of a training; 0 trains in this process."""
    caching: Caching = field(default_factory=CacheOptions)

    def __call__(self) -> None:
        from data_tools.dataset.contamination import contaminants, normal_pool
        from data_tools.dataset.reader import open_dataset
        from data_tools.storage import open_storage, write_bytes
        from tuning.clean import Rounds, run_rounds
        from tuning.report.rounds_page import planted_among, rounds_page

        cache = self.caching
        where = {name: absolute(getattr(self, name)) for name in ("data", "out")}
        rounds = Rounds(
            **where,
            preset=self.preset,
            method=self.method,
            rounds=self.rounds,
            drop=self.drop,
            by=self.by,
            gamma=self.gamma,
            seed=self.seed,
            settings=self.set,
            workers=self.workers,
            cache=absolute(cache.cache),
            cache_limit=cache.cache_limit,
        ).checked()
        done = run_rounds(rounds)
        dataset = open_dataset(rounds.data, cache.open())
        planted = contaminants(dataset.count(normal_pool(dataset)), rounds.gamma)
        write_bytes(open_storage(rounds.out), "index.html", rounds_page(rounds, done, planted).encode())
        left = sum(len(each.images) for each in done)
        if planted:
            found = sum(planted_among(each) for each in done)
            print(f"{found:,} of {planted:,} planted anomalies are among the {left:,} images left out")
        print(f"{left:,} of {done[0].ranked:,} training images left out: {rounds.out}/index.html")
        print(f"next: python -m trainer evaluate {rounds.out}/cleaned")
