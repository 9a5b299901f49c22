"""python -m tests.cost: what checkpoints cost a training; `make cost` runs it.

A training of the preset cells-small, nearly all of it in its last phase, once with checkpoints at the default interval
(each of them validated, too) and once without, in turns; its run folder lies on a real S3 store, at full speed and
behind a proxy that lets 5 MB/s through. Both kinds save at the end of each phase, so their difference is the cost of
the others. CPU time is of the training's own process; it is less moved by the machine's other work than the clock is.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from cluster.store import local_store
from tests.proxy import FaultProxy
from trainer.presets import preset

NEVER = 10**9
SPEEDS = {"full speed": None, "5 MB/s": 5_000_000.0}  # of the link to the store, bytes a second


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cost", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("cost_run"), help="where all of it lies; %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="trainings of each kind; %(default)s")
    parser.add_argument("--images", type=int, default=25_000, help="of the last phase; %(default)s")
    options = parser.parse_args()
    folder = options.folder.resolve()
    config = preset("cells-small")
    figures: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with (
        local_store(folder / "store") as store,
        FaultProxy("127.0.0.1", int(store.endpoint.rpartition(":")[2])) as proxy,
    ):
        environment = {**store.child_environment(), "AWS_ENDPOINT_URL": proxy.endpoint}

        def run(program: str, *words: object) -> tuple[float, float]:
            """Seconds by the clock, and of CPU."""
            begun, used = time.perf_counter(), os.times()
            command = [sys.executable, "-m", program, *map(str, words)]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            now = os.times()
            cpu = now.children_user + now.children_system - used.children_user - used.children_system
            return time.perf_counter() - begun, cpu

        if not (folder / "videos").exists():
            run("data_tools", "simulate", folder / "videos", "--seed", 0)
        data = folder / "shards"
        if not data.exists():
            run("data_tools", "baxter", folder / "videos", "--out", data, "--resolution", 32)
        short = ["--fade-images", 16, "--stable-images", 16, "--final-images", options.images]
        for number, (name, rate), interval in itertools.product(
            range(options.rounds), SPEEDS.items(), (config.checkpoint_images, NEVER)
        ):
            proxy.slow(rate)
            out = f"{store.url}/{os.getpid()}-{number}-{rate}-{interval}"
            words = ["--data", data, "--cache", folder / "cache", "--out", out, "--preset", "cells-small", *short]
            taken = run("trainer", "train", *words, "--checkpoint-images", interval)
            figures.setdefault((name, "without" if interval == NEVER else "with"), []).append(taken)
            print(f"{name}, checkpoints every {interval:,}: {taken[0]:.1f} s, {taken[1]:.1f} s of CPU", flush=True)
    for name in SPEEDS:
        for which, word in enumerate(("time", "CPU time")):
            with_them, without = (
                statistics.median(v[which] for v in figures[name, kind]) for kind in ("with", "without")
            )
            print(f"{name}: checkpoints take {(with_them / without - 1) * 100:+.1f} % of the {word}")


if __name__ == "__main__":
    main()
