"""`make chaos`: small training runs on two Ray workers, in each of which one thing is killed.

Run folder and dataset lie in a real S3 store. Each training loses a worker, its driver or the store by SIGKILL, and
must still end with the weights, metrics and events of one that was left alone. What is killed and when follows from
the seed and the training's number; by how much it misses what it aims at depends on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from cluster.children import end_with_parent
from cluster.store import LocalStore, local_store
from data_tools.storage import open_storage, read_bytes
from trainer.run.checkpoint import newest_checkpoint, read_info
from trainer.run.folder import read_config
from trainer.run.monitor import EVENTS, METRICS, NO_CURVES
from trainer.schedule import Phase, phase_at

ROOT = Path(__file__).resolve().parents[2]
VIDEOS = "simulate {} --sequences 2 --frames 4 --size 160 --cells 16 --debris 8 --seed 0"
DATASET = "baxter {} --out {} --resolution 16 --test-size 8"
TRAINING = (
    "--preset demo --resolution 16 --width 8 --fade-images 192 --stable-images 192 --final-images 192 --minibatch.4 16"
    " --minibatch.8 16 --minibatch.16 16 --log-images 48 --checkpoint-images 96 --precision float32 --patience 30"
    " --workers 2"
)
"""60 steps: 4x4 stable, 8x8 fade and stable, 16x16 fade and stable; ten checkpoints."""
LINE = 48  # images between two lines of metrics
KINDS = ("worker", "driver", "store")
STATES = ("start-up", "fade", "upload", "stable", "end")  # no common divisor with KINDS, so every pair comes
LIMIT, GRACE = 240.0, 60.0
"""Seconds that a driver may take, and in which what a killed one started must be gone."""
COLUMNS = dict(run=4, killed=9, aim=9, at=6, images=7, phase=14, upload=17, gone=6, lost=7)
"""at: seconds in; upload: a checkpoint then on its way; gone: seconds to the end of what a killed driver started."""
TITLES = "".join(f"{name:<{width}}" for name, width in COLUMNS.items()) + "result"


class Training:
    """One training: its run folder in the store, its driver, and all processes that this starts."""

    def __init__(self, store: LocalStore, data: str, name: str) -> None:
        self.store, self.name, self.url, self.client = store, name, f"{store.url}/{name}", store.client()
        self.completed = set[str]()  # checkpoints that were whole at some time
        # All that the processes write locally, Ray's session too: no other Ray meets ours. Short, for Ray's sockets.
        self.place = Path(tempfile.mkdtemp(prefix="chaos-"))
        command = [sys.executable, "-m", "trainer", "train", "--data", data, "--out", self.url]
        self.command = [*command, "--cache", str(self.place / "cache"), *shlex.split(TRAINING)]
        self.first = time.monotonic()
        self.start()

    def start(self) -> None:
        environment = {**self.store.child_environment(), "TMPDIR": str(self.place)}
        environment.pop("RAY_ADDRESS", None)
        with (self.place / "driver.log").open("ab") as log:
            how: Any = dict(cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent())
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, **how)
        self.begun = time.monotonic()

    def wait(self, reached: Callable[[], bool] = lambda: False) -> bool:
        """Until it is reached, or the driver has ended or taken too long: False."""
        while self.process.poll() is None and time.monotonic() < self.begun + LIMIT:
            self.look()
            if reached():
                return True
            time.sleep(0.02)
        self.look()
        return False

    def look(self) -> str:
        """Note which checkpoints are whole; of one whose files are on their way the name, else ""."""
        names = [key.removeprefix("checkpoints/") for key in self.keys("checkpoints/")]
        whole = {name.partition("/")[0] for name in names if name.endswith("/checkpoint.json")}
        self.completed |= whole
        newest = max((name.partition("/")[0] for name in names), default="")
        return newest if newest > max(whole, default="") else ""

    def keys(self, under: str = "") -> list[str]:
        page = self.client.list_objects_v2(Bucket=self.store.bucket, Prefix=f"{self.name}/{under}")
        return [entry["Key"].removeprefix(f"{self.name}/") for entry in page.get("Contents", ())]

    def processes(self) -> dict[int, str]:
        """Its processes with their titles, also when the driver is gone: what names our place or writes into it."""
        found, place = dict[int, str](), str(self.place)
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended
                title = (path / "cmdline").read_text(errors="replace").replace("\0", " ")
                if place in title or any(os.readlink(path / "fd" / n).startswith(place) for n in "12"):
                    found[int(path.name)] = title
        return found

    def workers(self) -> list[int]:
        """Ray Train's workers; the one that writes metrics, which is the first, comes first."""
        found = [pid for pid, title in self.processes().items() if "RayTrainWorker" in title]
        return sorted(found, key=lambda pid: (not writes_metrics(pid), pid))

    def seen(self) -> int:
        """Images seen, by the lines of metrics on their way to the store."""
        text = ""
        for path in self.place.glob(f"stratagan-run-*/{METRICS}"):
            with contextlib.suppress(OSError):
                text += path.read_text()
        return max(map(int, re.findall(r'"images_seen": (\d+),', text)), default=0)

    def reached(self, kind: str, state: str, after: int, end: int) -> bool:
        """Whether the training, which ends at `end` images, is in the state and has seen `after` images."""
        if state == "start-up":
            return kind != "worker" or len(self.workers()) == 2
        if state == "end":
            return f"images-{end:09d}" in self.completed
        return self.seen() >= after and (state != "upload" or bool(self.look()))

    def close(self) -> None:
        """End all that is left of it."""
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.1)


def writes_metrics(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return any(os.readlink(path).endswith(METRICS) for path in Path(f"/proc/{pid}/fd").iterdir())
    return False


def strike(training: Training, which: int, phases: tuple[Phase, ...], start_up: float, row: dict[str, Any]) -> None:
    """Wait for a moment, kill, and bring back what does not come back by itself; `which` decides what and when.

    start_up: seconds until a training run says its first line.
    """
    rng, kind, state = random.Random(which), KINDS[which % len(KINDS)], STATES[which % len(STATES)]
    phase = rng.choice([each for each in phases if state not in ("fade", "stable") or each.name.endswith(state)])
    after = 0 if state == "start-up" else rng.randrange(phase.start, phase.end - LINE)
    longest = {"start-up": 3.0 if kind == "worker" else start_up, "upload": 0.02, "end": 0.02}.get(state, 1.0)
    delay, rank, pause = rng.uniform(0, longest), rng.randrange(2), rng.uniform(0.5, 5)
    row["aim"] = state
    if not training.wait(lambda: training.reached(kind, state, after, phases[-1].end)):
        return
    time.sleep(delay)
    workers = training.workers() if kind == "worker" else []
    if training.process.poll() is not None or (kind == "worker" and not workers):
        return
    seen, row["upload"], row["at"] = training.seen(), training.look(), round(time.monotonic() - training.first, 1)
    row |= {"killed": kind, "images": seen, "phase": getattr(phase_at(phases, seen), "name", "over")}
    if kind == "worker":
        victim = workers[min(rank, len(workers) - 1)]
        row["killed"] = "worker" if not writes_metrics(workers[0]) else f"worker {workers.index(victim)}"
        os.kill(victim, signal.SIGKILL)
    elif kind == "store":
        training.store.kill()
        time.sleep(pause)
        training.store.start()
    else:
        training.process.kill()
        training.process.wait()
        row["upload"], gone = training.look(), time.monotonic()
        while (left := training.processes()) and time.monotonic() < gone + GRACE:
            time.sleep(0.05)
        row["gone"] = round(time.monotonic() - gone, 1)
        if left:
            row["faults"].append(f"left behind: {', '.join(sorted(set(left.values())))}")
            training.close()
        training.start()


@dataclass(frozen=True)
class Outcome:
    """What a training run leaves; lines and events by "images name"."""

    sha256: dict[str, str]
    lines: dict[str, list[float]]
    events: Counter[str]
    files: set[str]


def outcome(training: Training) -> Outcome:
    storage, lines, events = open_storage(training.url), dict[str, list[float]](), Counter[str]()
    for line in read_bytes(storage, METRICS).decode().splitlines():
        values = json.loads(line)
        for name in values.keys() - {"images_seen", "time"}:
            lines.setdefault(f"{values['images_seen']} {name}", []).append(values[name])
    keys = training.keys()
    for key in keys:
        if key.startswith(f"{EVENTS}/"):
            file = training.place / "events"
            file.write_bytes(read_bytes(storage, key))
            for event in EventFileLoader(str(file)).Load():
                events.update(f"{event.step} {value.tag}" for value in event.summary.value)
    whole = {key.rpartition("/")[0] for key in keys if key.endswith("/checkpoint.json")}  # which ones may differ
    files = {key for key in keys if not key.startswith(f"{EVENTS}/") and key.rpartition("/")[0] not in whole}
    return Outcome(read_info(newest_checkpoint(training.url)).sha256, lines, events, files)


def faults(training: Training, expected: Outcome) -> list[str]:
    """How the training's outcome differs. Checkpoints may give way to newer ones; those that came are validated."""
    ours = outcome(training)
    mine, theirs = ({key for key in each.lines if " validation/" not in key} for each in (ours, expected))
    both = [key for key in ours.lines.keys() & expected.lines.keys() if " speed/" not in key]
    validated = {f"images-{key.split()[0]:0>9}" for key in ours.lines.keys() - mine}
    shown = (key for key in ours.lines if key.split()[1] not in NO_CURVES)
    curves = {f"{key}/text_summary" if " warning/" in key else key for key in shown}
    curves |= expected.events.keys() - expected.lines.keys()  # the pictures
    found: dict[str, Iterable[str]] = {
        "files of the last checkpoint differ": {name for name, _ in ours.sha256.items() ^ expected.sha256.items()},
        "values missing": theirs - mine,
        "values too many": mine - theirs,
        "values twice": {key for key, values in ours.lines.items() if len(values) > 1},
        "values differ": {key for key in both if ours.lines[key] != expected.lines[key]},
        "checkpoints not validated": training.completed - validated,
        "validations of no checkpoint": validated - training.completed,
        "events missing": curves - ours.events.keys(),
        "events too many": ours.events.keys() - curves,
        "events twice": {key for key, count in ours.events.items() if count > 1},
        "objects missing": expected.files - ours.files,
        "objects too many": ours.files - expected.files,
    }
    lists = {what: sorted(keys) for what, keys in found.items()}
    return [f"{len(keys)} {what}, as {', '.join(keys[:3])}" for what, keys in lists.items() if keys]


def shown(row: dict[str, Any]) -> str:
    cells = "".join(f"{row.get(name, ''):<{width}}" for name, width in COLUMNS.items())
    return cells + ("; ".join([*row["faults"], f"see {row['place']}"]) if row["faults"] else "same")


def play_all(store: LocalStore, folder: Path, numbers: range, seed: int) -> list[dict[str, Any]]:
    videos, data, rows = str(folder / "videos"), f"{store.url}/dataset", list[dict[str, Any]]()
    for words in (VIDEOS.format(videos), DATASET.format(videos, data)):
        subprocess.run([sys.executable, "-m", "data_tools", *words.split()], cwd=ROOT, check=True)
    with contextlib.closing(Training(store, data, "reference")) as alone:
        alone.wait(lambda: alone.seen() > 0)
        start_up = time.monotonic() - alone.first
        alone.wait()
        length = time.monotonic() - alone.first
        if alone.process.returncode != 0:
            sys.exit(f"the training that was left alone failed - see {alone.place / 'driver.log'}")
        expected, phases = outcome(alone), read_config(alone.url)[0].schedule()
    shutil.rmtree(alone.place, ignore_errors=True)
    print(f"left alone: first line after {start_up:.1f} s, ended after {length:.1f} s\n{TITLES}", flush=True)
    for number in numbers:
        with contextlib.closing(Training(store, data, f"run-{number}")) as training:
            row: dict[str, Any] = {"run": number, "killed": "", "faults": [], "place": str(training.place)}
            strike(training, seed + number, phases, start_up, row)
            training.wait()
            row["lost"], code = round(time.monotonic() - training.first - length, 1), training.process.poll()
            row["faults"] += [] if row["killed"] else ["nothing was left to kill"]
            # No code: the driver takes too long.
            row["faults"] += [f"exit code {code}"] if code != 0 else faults(training, expected)
        rows.append(row)
        if not row["faults"]:
            shutil.rmtree(training.place, ignore_errors=True)
        print(shown(rows[-1]), flush=True)
        (folder / "chaos.json").write_text(json.dumps({"left alone, s": length, "runs": rows}, indent=2))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="training runs in which something is killed; %(default)s")
    parser.add_argument("--first", type=int, default=0, help="number of the first one; %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="%(default)s")
    parser.add_argument("--folder", type=Path, default=Path("chaos_run"), help="where the store lies; %(default)s")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder, began = options.folder.resolve(), time.monotonic()
    for name in ("store", "videos"):
        shutil.rmtree(folder / name, ignore_errors=True)
    with local_store(folder / "store") as store:
        environment = store.child_environment()
        os.environ.clear()
        os.environ.update(environment)
        rows = play_all(store, folder, range(options.first, options.first + options.runs), options.seed)
    print("\n".join(["", TITLES, *map(shown, rows)]))
    same = sum(not row["faults"] for row in rows)
    print(f"{same} of {len(rows)} ended like the one left alone, in {(time.monotonic() - began) / 60:.1f} minutes")
    sys.exit(same < len(rows))


if __name__ == "__main__":
    main()
