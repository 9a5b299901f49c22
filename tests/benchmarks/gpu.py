"""What a GPU does with the paper's networks: `make gpu`, nine minutes at most, torch and this repository alone.

python -m tests.benchmarks.gpu OUT.json [--seconds 520] [--tiny]: per phase of `kth` and `cifar-car` at full width,
eager and compiled: sec/kimg, images/s, peak memory, share of the peak of bf16 matrix products, share of the time the
GPU computes, operations that the host launches and waits that it makes; hours for each schedule; the small `geom`; and
whether a training run that is killed ends with the bits of one that was not. --tiny: the same on small networks, which
a test runs on a CPU. Parts for which no time is left are named as not measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.stand_ins import stand_in_for_missing

MISSING = stand_in_for_missing()

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from trainer.bench.machine import matmul_peak, processor, settle  # noqa: E402
from trainer.bench.made_up import MadeUpImages  # noqa: E402
from trainer.bench.measure import measure  # noqa: E402
from trainer.config import TrainConfig  # noqa: E402
from trainer.methods import method_of  # noqa: E402
from trainer.presets import PRESETS  # noqa: E402
from trainer.schedule import Phase  # noqa: E402
from trainer.training.device import best_device, uses_bf16  # noqa: E402
from trainer.training.group import Group  # noqa: E402

CHANNELS = {"kth": 1, "cifar-car": 3, "study": 3}
TINY: dict[str, Any] = {"resolution": 8, "width": 8, "minibatch": {4: 8, 8: 8}}
RESUMED_STEPS = 6
Row = dict[str, Any]


def config_of(preset: str, tiny: bool, **options: Any) -> TrainConfig:
    return dataclasses.replace(PRESETS[preset](), **(TINY if tiny else {}), **options)


def measured(config: TrainConfig, phase: Phase, device: torch.device, seconds: float, peak: float) -> Row:
    """One phase; where that fails, why."""
    preset = config.preset
    data = MadeUpImages(config.resolution, CHANNELS[preset])
    row: Row = {"preset": preset, "method": config.method, "phase": phase.name, "compiled": config.compile}
    try:
        begun = time.monotonic()
        found = measure(config, phase, data, CHANNELS[preset], device, Group(), seconds, peak)
        row |= dataclasses.asdict(found) | {"took": time.monotonic() - begun}
        if not config.compile:
            row |= host_work(config, phase, device, data)
    except Exception as error:  # of memory, or of a compiler: the other phases are measured all the same
        row["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        traceback.print_exc(limit=-3)
    finally:
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return row


class _Launches(TorchDispatchMode):
    """Counts the operations that the host asks for while the block lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def host_work(config: TrainConfig, phase: Phase, device: torch.device, data: MadeUpImages) -> Row:
    """Of a step: operations, and on a GPU waits for its results, of which there must be none."""
    method = method_of(config)
    step = method.step(
        config, method.networks(config, CHANNELS[config.preset], len(data)).to(device), data, device, Group()
    )
    step.begin(phase)
    at = (phase.start + phase.end) // 2
    step.run(at)
    with _Launches() as launched:
        step.run(at + phase.images_a_step)
    waits = None
    if device.type == "cuda":
        settle(device)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step.run(at + 2 * phase.images_a_step)
        torch.cuda.set_sync_debug_mode("default")
        waits = sum("synchroniz" in str(each.message) for each in caught)
    return {"operations": launched.count, "waits": waits}


def hours(config: TrainConfig, rows: list[Row]) -> float | None:
    """For the whole schedule at these speeds; None where a phase has none."""
    pace: dict[str, Any] = {
        row["phase"]: row.get("sec_per_kimg") for row in rows if row["preset"] == config.preset and not row["compiled"]
    }
    phases = config.schedule()
    paces = [pace[phase.name] for phase in phases if pace.get(phase.name)]
    if len(paces) < len(phases):
        return None
    return sum((phase.end - phase.start) / 1000 * each for phase, each in zip(phases, paces)) / 3600


# ---- killed and gone on ------------------------------------------------------------------------------------------


def resumed(tiny: bool) -> Row:
    """Steps in one process against the same steps in two, of which the first is killed: digests of all weights."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "state.pt"

        def part(*words: str) -> str:
            command = [sys.executable, "-m", "tests.benchmarks.gpu", "--steps", *words, *(["--tiny"] if tiny else [])]
            done = subprocess.run(command, capture_output=True, text=True, timeout=180)
            return (
                done.stdout.strip().rpartition("\n")[2]
                if done.returncode == 0
                else f"exit {done.returncode}: {done.stderr[-200:]}"
            )

        whole, again = part(f"0,{RESUMED_STEPS}"), part(f"0,{RESUMED_STEPS}")
        killed = part(f"0,{RESUMED_STEPS // 2}", "--state", str(place))
        rest = part(f"{RESUMED_STEPS // 2},{RESUMED_STEPS}", "--state", str(place))
    return {"whole": whole, "again": again, "killed": killed, "gone_on": rest, "same_bits": whole == again == rest}


def take_steps(first: int, last: int, state: Path | None, tiny: bool) -> str:
    """Of the last phase of cifar-car. The first part leaves its state where it is told to, and kills itself."""
    torch.backends.cudnn.deterministic = True  # as the training loop has it
    device, config = best_device(), config_of("cifar-car", tiny)
    torch.manual_seed(0)
    method, phase, data = method_of(config), config.schedule()[-1], MadeUpImages(config.resolution, 3)
    networks = method.networks(config, 3, len(data)).to(device)
    step = method.step(config, networks, data, device, Group())
    step.begin(phase)
    if first and state:
        saved = torch.load(state, weights_only=True, map_location="cpu")
        for name, network in networks.by_name().items():
            network.load_state_dict(saved["networks"][name])
        step.load_moments(lambda name: saved["moments"][name])
    for i in range(first, last):
        step.run(phase.start + i * phase.images_a_step)
    if state and not first:
        weights = {name: network.state_dict() for name, network in networks.by_name().items()}
        torch.save({"networks": weights, "moments": step.moments()}, state)
        os.kill(os.getpid(), signal.SIGKILL)
    digest = hashlib.sha256()
    for _, network in sorted(networks.by_name().items()):
        for _, tensor in sorted(network.state_dict().items()):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


# ---- all of it ---------------------------------------------------------------------------------------------------


def run(seconds: float, tiny: bool, save: Callable[[Row], None]) -> Row:
    """Everything, in the order of its worth, until the time is up; saved as it grows."""
    end, device = time.monotonic() + seconds, best_device()
    peak = matmul_peak(device, uses_bf16(config_of("kth", tiny), device), 0.2 if tiny else 1.0)
    result: Row = {
        "card": torch.cuda.get_device_name() if device.type == "cuda" else processor(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "peak_gflops": peak,
        "stand_ins": MISSING,
        "phases": [],
        "hours": {},
        "not_measured": [],
    }
    each = 0.02 if tiny else min(3.0, seconds / 200)
    result["resumed"] = resumed(tiny)
    save(result)
    configs = [config_of(preset, tiny) for preset in ("cifar-car", "kth")]
    work = [(config, phase) for config in configs for phase in config.schedule()]
    geom = dataclasses.replace(config_of("study", False), method="geom")
    work += [(geom, phase) for phase in geom.schedule()][: 1 if tiny else None]
    for config in configs:  # compiled: the largest phases first, as far as time goes
        slow = dataclasses.replace(config, compile=True)
        work += [(slow, phase) for phase in reversed(slow.schedule())][: 1 if tiny else None]
    longest = 0.0
    for config, phase in work:
        begun = time.monotonic()
        if begun + longest > end:
            result["not_measured"].append(f"{config.preset} {phase.name}{' compiled' if config.compile else ''}")
            continue
        result["phases"].append(measured(config, phase, device, each, peak))
        longest = max(longest, time.monotonic() - begun) if config.compile else longest
        result["hours"] = {each.preset: hours(each, result["phases"]) for each in configs}
        save(result)
    return result


HEADING = " ".join(
    [f"{'preset':10} {'phase':15} {'':8} {'images/s':>9} {'sec/kimg':>9}", "     MiB  of peak   busy    ops  waits"]
)


def table(result: Row) -> str:
    """For a person."""
    bits = "the same bits" if result["resumed"]["same_bits"] else f"NOT the same bits: {result['resumed']}"
    lines = [
        f"{result['card']}, torch {result['torch']}; matrix products reach {result['peak_gflops']:,.0f} GFLOP/s",
        f"killed and gone on: {bits}",
        HEADING,
    ]
    for row in result["phases"]:
        called = row["preset"] if row["method"] == "proposed" else row["method"]
        name = f"{called:10} {row['phase']:15} {'compiled' if row['compiled'] else 'eager':8}"
        if "error" in row:
            lines.append(f"{name} {row['error'][:90]}")
            continue
        busy = "" if row["busy"] is None else f"{row['busy']:.0%}"
        waits = "" if row.get("waits") is None else row["waits"]
        speed = f"{row['images_per_sec']:9,.0f} {row['sec_per_kimg']:9.3g} {row['memory_mib']:8,.0f}"
        lines.append(f"{name} {speed} {row['of_peak']:8.1%} {busy:>6} {row.get('operations', ''):>6} {waits:>6}")
    for preset, time_ in result["hours"].items():
        lines.append(
            f"{preset}: {'not known' if time_ is None else f'{time_:.1f} hours'} for the whole schedule, eager"
        )
    if result["not_measured"]:
        lines.append(f"not measured, since the time was up: {', '.join(result['not_measured'])}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", nargs="?", type=Path, default=Path("gpu.json"), help="file for the figures")
    parser.add_argument("--seconds", type=float, default=520, help="when no further part is begun")
    parser.add_argument("--tiny", action="store_true", help="small networks")
    parser.add_argument("--steps", help=argparse.SUPPRESS)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.steps:
        first, last = map(int, asked.steps.split(","))
        print(take_steps(first, last, asked.state, asked.tiny))
        return 0
    if not torch.cuda.is_available():
        print("no GPU here: what follows is of this CPU, and says nothing of a GPU", file=sys.stderr)

    def save(result: Row) -> None:
        asked.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    result = run(asked.seconds, asked.tiny, save)
    save(result)
    print(table(result))
    return 0 if result["resumed"]["same_bits"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
