"""A sharder and a training run that stop themselves at a chosen moment, as Ctrl-Z or a suspended machine stops them.

python -c "from tests.support.paused import main; main()" MOMENT sharder URL SEED SHARDS PROCESSES SIDE
python -c "from tests.support.paused import main; main()" MOMENT data_tools|trainer WORDS...

A moment is "WHEN NAME COUNT": stop before the COUNT-th time that an object whose name matches NAME is written, with
a part of it uploaded ("half"), when all has been asked and only the request is left ("sent"), when it is there
("after"), or before such an object is removed ("remove"). "-" is no moment.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np

from data_tools.dataset.patch import Patch, Plan
from data_tools.dataset.writer import write_dataset
from data_tools.errors import run_command
from data_tools.storage import Folder, Guarded, lease, s3

SIDE, BIG, PER_SHARD, PART = 16, 1200, 4, 5 * 2**20
"""BIG: the side of images of which a shard takes more than one part."""
if "TEST_LEASE" in os.environ:  # in the processes that write shards as well, which import this module
    lease.LEASE, lease.HEARTBEAT_SECONDS, s3.PART = float(os.environ["TEST_LEASE"]), 0.1, PART


def cut(pool: str, drafts: Sequence[tuple[int, int, int]]) -> Iterator[Patch]:
    for seed, i, side in drafts:
        time.sleep(float(os.environ.get("TEST_PAUSE", "0")))
        image = np.random.default_rng((seed, i)).integers(0, 256, (side, side, 1), dtype=np.uint8)
        yield Patch(image, pool, f"p{i}", {"n": i, "seed": seed})


def write(url: str, seed: int, shards: int, processes: int = 1, side: int = SIDE) -> None:
    plan = Plan({"train-normal": [(seed, i, side) for i in range(shards * PER_SHARD)]}, cut)
    write_dataset(plan, url, side, 1, {"kind": "test", "seed": seed}, PER_SHARD, processes)


def stop_at(moment: str) -> None:
    when, name, count = moment.split()
    seen = [0]

    def passes(now: str, what: str) -> None:
        if now == when and re.fullmatch(name, what):
            seen[0] += 1
            if seen[0] == int(count):
                os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(0.3)  # another thread may take the signal first

    for storage in (s3.S3, Folder):
        _watch(storage, passes)
    remove = Guarded.remove

    def removed(self: Guarded, name: str) -> None:
        passes("remove", name)
        remove(self, name)

    Guarded.remove = removed
    upload_class: Any = s3._Upload
    finish, send_part = upload_class.finish, upload_class._send_part

    def part_sent(upload: Any) -> None:
        send_part(upload)
        passes("half", upload.name)

    def finished(upload: Any) -> None:
        passes("sent", upload.name)
        finish(upload)

    upload_class.finish, upload_class._send_part = finished, part_sent


def _watch(storage: Any, passes: Any) -> None:
    write = storage.write

    @contextlib.contextmanager
    def watched(self: Any, name: str, new: bool = False) -> Iterator[IO[bytes]]:
        passes("write", name)
        with write(self, name, new) as file:
            yield file
        passes("after", name)

    storage.write = watched


def run(words: list[str]) -> None:
    moment, program, *words = words
    if moment != "-":
        stop_at(moment)
    if program == "sharder":
        write(words[0], *map(int, words[1:]))
    else:
        importlib.import_module(f"{program}.__main__").main(words)


def main() -> None:
    sys.exit(run_command(run, sys.argv[1:]))
