"""`python -m trainer bench`: how fast a training would be, where its time goes, how near that is to the hardware."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
import tyro
from rich.console import Console
from torch.multiprocessing.spawn import ProcessRaisedException, spawn

from data_tools.cache import open_cache
from data_tools.errors import UserError
from data_tools.reader import open_dataset
from data_tools.training_set import training_set
from trainer.bench.measure import MadeUpImages, matmul_peak, measure
from trainer.bench.table import compare, show
from trainer.config import TrainConfig
from trainer.detector import best_device
from trainer.group import form_group
from trainer.growth import Phase, schedule
from trainer.step import uses_bf16

RESULT, REFUSED = "result.json", "refused.txt"


@dataclass(frozen=True)
class Bench:
    """Measure the steps of a training, whose options these are; --data may be left out, and nothing is kept."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    seconds: float = 3.0
    """About how long each of three measurements of each phase takes."""
    only: tuple[int, ...] = ()
    """Resolutions to measure; all, if none is named."""
    channels: int = 1
    """Of the images, where no dataset is named."""
    cores: int = 0
    """CPU cores that each worker is pinned to; 0: an equal share of those there are."""
    json: Path | None = None
    """File for the figures."""
    against: Path | None = None
    """Figures to compare with: a file of an earlier --json."""

    def __call__(self) -> None:
        self.config.validated()
        earlier = _read(self.against) if self.against else None
        if self.seconds <= 0:
            raise UserError(f"--seconds {self.seconds} is not positive - give e.g. 3")
        phases = self._phases()
        workers = max(self.config.worker_range()[1], 1)
        have = torch.cuda.device_count() if torch.cuda.is_available() else len(_cores())
        if max(self.cores, 1) * workers > have:
            raise UserError(f"{workers} worker(s) want more than the {have} CPU cores or GPUs here - lower --workers")
        with tempfile.TemporaryDirectory(prefix="stratagan-bench-") as place:
            try:
                spawn(_worker, (self, phases, workers, place), nprocs=workers)
            except ProcessRaisedException as error:
                refused = Path(place) / REFUSED
                raise UserError(refused.read_text()) if refused.exists() else error from None
            result = json.loads((Path(place) / RESULT).read_text())
        console = Console(width=None if os.isatty(1) else 160)
        show(result, console)
        if earlier:
            compare(result, earlier, console)
        if self.json:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            self.json.write_text(json.dumps(result, indent=2) + "\n")

    def _phases(self) -> list[Phase]:
        phases = [phase for phase in schedule(self.config) if not self.only or phase.resolution in self.only]
        if not phases:
            known = sorted({phase.resolution for phase in schedule(self.config)})
            raise UserError(f"--only {' '.join(map(str, self.only))}: this training has {', '.join(map(str, known))}")
        return phases


def _worker(rank: int, bench: Bench, phases: list[Phase], workers: int, place: str) -> None:
    """One of the workers: measures what the first of them writes down."""
    try:
        result = _measured(rank, bench, phases, workers, place)
    except UserError as error:
        (Path(place) / REFUSED).write_text(str(error))
        raise
    if rank == 0:
        (Path(place) / RESULT).write_text(json.dumps(result))


def _measured(rank: int, bench: Bench, phases: list[Phase], workers: int, place: str) -> dict[str, Any]:
    threads = bench.cores or len(_cores()) // workers
    if bench.cores:
        os.sched_setaffinity(0, _cores()[rank * threads : (rank + 1) * threads])
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    device = best_device()
    if workers > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{place}/meeting", rank=rank, world_size=workers)
    config = dataclasses.replace(bench.config, workers=str(workers))
    group = form_group({phase.batch for phase in phases}, config.patience)
    bf16 = uses_bf16(config, device)
    data, channels = MadeUpImages(config.resolution, bench.channels), bench.channels
    if config.data:
        dataset = open_dataset(config.data, open_cache(config.cache, config.cache_limit))
        data, channels = training_set(dataset, config.gamma, config.seed, config.window), dataset.channels
    peak = matmul_peak(device, bf16)
    rows = []
    for phase in phases:
        rows.append(dataclasses.asdict(measure(config, phase, data, channels, device, group, bench.seconds, peak)))
        if rank == 0:
            print(f"{phase.name}: {rows[-1]['images_per_sec']:.1f} images/s", flush=True)
    if workers > 1:
        dist.destroy_process_group()
    name = torch.cuda.get_device_name() if device.type == "cuda" else _processor()
    machine = {
        "device": name,
        "workers": workers,
        "threads": threads,
        "precision": "bf16 autocast" if bf16 else "float32",
        "torch": torch.__version__,
        "data": "from the cache" if config.data else "made up",
        "peak_gflops": peak,
    }
    return {"machine": machine, "config": config.to_json(), "phases": rows}


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _processor() -> str:
    """The CPU by its name where that is known."""
    place = Path("/proc/cpuinfo")
    lines = place.read_text().splitlines() if place.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name} (CPU)"


def _read(path: Path) -> dict[str, Any]:
    """An earlier measurement; UserError when it is none."""
    try:
        found = json.loads(path.read_text())
        return {"machine": found["machine"], "config": found["config"], "phases": found["phases"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--against {path}: no measurement ({error}) - give a file that --json wrote") from None
