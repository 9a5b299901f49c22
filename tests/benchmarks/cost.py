"""python -m tests.benchmarks.cost: what checkpoints cost a training run; `make cost` runs it.

Steps of the preset cells-small in its last phase are timed, then checkpoints of it through the very code that saves
them, validation included, to a real S3 store: at full speed, and behind a proxy that lets 5 MB/s through. The share is
that of a checkpoint in the steps between two of them at the default interval.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import torch

from cluster.store import local_store
from data_tools.__main__ import main as data_tools
from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import training_set
from data_tools.storage import always_ours
from tests.support.proxy import FaultProxy
from trainer.methods.proposed.step import GrowingStep
from trainer.networks.progressive import Networks
from trainer.presets import preset
from trainer.run.monitor import Monitor
from trainer.run.saving import PROBES, Saver
from trainer.training.first_worker import snapshot_of
from trainer.training.group import Group

SPEEDS = {"full speed": None, "5 MB/s": 5_000_000.0}  # of the link to the store, bytes a second
STEPS, CHECKPOINTS = 60, 4


def measure(folder: Path, url: str) -> str:
    config = dataclasses.replace(preset("cells-small"), out=url)
    dataset, phases = open_dataset(str(folder / "shards"), open_cache(folder / "cache")), config.schedule()
    images = training_set(dataset, 0.0, 0)
    networks, phase = Networks.build(config.resolution, dataset.channels, config.width, 0), phases[-1]
    step = GrowingStep(config, networks, images, torch.device("cpu"), Group())
    step.begin(phase)
    step.run(phase.start)
    begun, used = time.perf_counter(), time.process_time()
    for number in range(STEPS):
        step.run(phase.start + number * phase.batch)
    share = config.checkpoint_images / (STEPS * phase.batch)
    between, cpu_between = ((now - then) * share for now, then in _since(begun, used))
    monitor = Monitor(config.out, phases, 0, lambda line: None)
    saver, held = Saver(config, dataset, images.at(np.arange(PROBES)), monitor, always_ours, None), 0.0
    begun, used = time.perf_counter(), time.process_time()
    for number in range(1, CHECKPOINTS + 1):
        started = time.perf_counter()
        step.check_finite(phase.start)
        saver.save(snapshot_of(config, dataset, step, phase, phase.start + number), must=True)
        held = max(held, time.perf_counter() - started)
    saver.finish()
    taken, cpu = ((now - then) / CHECKPOINTS for now, then in _since(begun, used))
    monitor.close()
    return (
        f"a checkpoint holds training up for {held * 1000:.0f} ms and takes {taken:.2f} s beside it, {cpu:.2f} s CPU;"
        f" of the {between:.0f} s ({cpu_between:.0f} CPU) between two: {held / between:.2%}, {cpu / cpu_between:.2%}"
    )


def _since(begun: float, used: float) -> tuple[tuple[float, float], tuple[float, float]]:
    return (time.perf_counter(), begun), (time.process_time(), used)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cost", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("cost_run"), help="where all of it lies; %(default)s")
    folder = parser.parse_args().folder.resolve()
    if not (folder / "videos").exists():
        data_tools(["simulate", str(folder / "videos"), "--seed", "0"])
    if not (folder / "shards").exists():
        data_tools(["baxter", str(folder / "videos"), "--out", str(folder / "shards"), "--resolution", "32"])
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(local_store(folder / "store"))
        proxy = stack.enter_context(FaultProxy("127.0.0.1", int(store.endpoint.rpartition(":")[2])))
        os.environ |= {**store.environment, "AWS_ENDPOINT_URL": proxy.endpoint}
        for name, rate in SPEEDS.items():
            proxy.slow(rate)
            print(f"{name}: {measure(folder, f'{store.url}/run-{os.getpid()}-{rate}')}", flush=True)


if __name__ == "__main__":
    main()
