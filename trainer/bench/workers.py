"""The processes that measure: one, or several that train together as Ray's workers do."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessRaisedException, spawn

from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import training_set
from data_tools.errors import UserError
from trainer.bench.machine import cores, matmul_peak, processor
from trainer.bench.made_up import MadeUpImages
from trainer.bench.measure import measure
from trainer.config import TrainConfig
from trainer.schedule import Phase
from trainer.training.device import best_device, uses_bf16
from trainer.training.group import form_group

RESULT, REFUSED = "result.json", "refused.txt"


@dataclass(frozen=True)
class Work:
    """What to measure, and with what."""

    config: TrainConfig
    phases: list[Phase]
    workers: int
    cores: int  # that each worker is pinned to; 0: an equal share, not pinned
    channels: int  # of images that are made up
    seconds: float


def measured(work: Work) -> dict[str, Any]:
    """The figures, as the JSON file has them; UserError where the workers meet one."""
    with tempfile.TemporaryDirectory(prefix="stratagan-bench-") as place:
        try:
            spawn(_worker, (work, Path(place)), nprocs=work.workers)
        except ProcessRaisedException as error:
            refused = Path(place) / REFUSED
            raise UserError(refused.read_text(encoding="utf-8")) if refused.exists() else error from None
        return json.loads((Path(place) / RESULT).read_text(encoding="utf-8"))


def _worker(rank: int, work: Work, place: Path) -> None:
    """The first worker writes down what it measures."""
    try:
        result = _measured(rank, work, place)
    except UserError as error:
        (place / REFUSED).write_text(str(error), encoding="utf-8")
        raise
    if rank == 0:
        (place / RESULT).write_text(json.dumps(result), encoding="utf-8")
    if work.workers > 1:
        os._exit(0)  # a thread of gloo may abort a process whose interpreter ends (PyTorch's issue 190489)


def _measured(rank: int, work: Work, place: Path) -> dict[str, Any]:
    threads = work.cores or max(len(cores()) // work.workers, 1)
    if work.cores:
        os.sched_setaffinity(0, cores()[rank * threads : (rank + 1) * threads])
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    device = best_device()
    if work.workers > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        meeting = f"file://{place}/meeting"
        dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=work.workers)
    config = dataclasses.replace(work.config, workers=str(work.workers))
    group = form_group({phase.batch for phase in work.phases}, config.patience)
    bf16 = uses_bf16(config, device)
    data, channels = MadeUpImages(config.resolution, work.channels), work.channels
    if config.data:
        dataset = open_dataset(config.data, open_cache(config.cache, config.cache_limit))
        data = training_set(dataset, config.gamma, config.seed, config.window, planted=config.planted)
        channels = dataset.channels
    peak = matmul_peak(device, bf16)
    rows = []
    for phase in work.phases:
        rows.append(dataclasses.asdict(measure(config, phase, data, channels, device, group, work.seconds, peak)))
        if rank == 0:
            print(f"{phase.name}: {rows[-1]['images_per_sec']:.1f} images/s", flush=True)
    if work.workers > 1:
        dist.destroy_process_group()
    machine = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else processor(),
        "workers": work.workers,
        "threads": threads,
        "precision": "bf16 autocast" if bf16 else "float32",
        "torch": torch.__version__,
        "data": "from the cache" if config.data else "made up",
        "peak_gflops": peak,
    }
    return {"machine": machine, "config": config.to_json(), "phases": rows}
