"""Datasets through faults: broken and refused connections, a store that restarts or stays away, killed writers."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data_tools.storage.retry
from cluster.store import LocalStore
from data_tools.commands.verify import Verify
from data_tools.dataset.cache import FACTS, IMAGES, PROVENANCE, open_cache
from data_tools.dataset.manifest import MANIFEST, read_manifest
from data_tools.dataset.patch import Patch, Plan
from data_tools.dataset.reader import FEW, open_dataset
from data_tools.dataset.writer import RECEIPT, write_dataset
from data_tools.errors import UserError, run_command
from data_tools.storage import open_storage, read_bytes, write_bytes
from tests.support.proxy import FaultProxy

# tests.conftest is imported where it is needed: it brings torch, for which the killed writers below would wait.

ROOT = Path(__file__).resolve().parents[2]
SIDE, SHARDS, PER_SHARD = 32, 24, 16
PAUSE = 0.007


def noise(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, side, side, 1), dtype=np.uint8)


def cut_as_it_is(pool: str, drafts: Sequence[Patch]) -> Iterator[Patch]:
    yield from drafts


def cut_slowly(pool: str, drafts: Sequence[int]) -> Iterator[Patch]:
    for i in drafts:
        time.sleep(PAUSE)
        image = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 1), dtype=np.uint8)
        yield Patch(image, pool, f"p{i}", {"n": i})


def write_slowly(argv: list[str]) -> None:
    plan = Plan({"train-normal": range(SHARDS * PER_SHARD - 5)}, cut_slowly)
    print("begun", flush=True)
    write_dataset(plan, argv[0], SIDE, 1, {"kind": "test"}, PER_SHARD, processes=2)


def main() -> None:
    sys.exit(run_command(write_slowly, sys.argv[1:]))


def write(url: str, count: int, side: int, samples_per_shard: int, processes: int = 1) -> np.ndarray:
    images = noise(count, side)
    drafts = [Patch(images[i], "train-normal", f"p{i}", {"n": i}) for i in range(count)]
    plan = Plan({"train-normal": drafts}, cut_as_it_is)
    write_dataset(plan, url, side, 1, {"kind": "test"}, samples_per_shard, processes)
    return images


class Reading(threading.Thread):
    """A cold read beside the main thread, which alone may start a store."""

    def __init__(self, url: str, cache: Path) -> None:
        super().__init__(daemon=True)
        self.url, self.cache = url, cache
        self.images, self.keys, self.error = np.zeros(0), list[str](), None

    error: BaseException | None

    def run(self) -> None:
        try:
            data = open_dataset(self.url, open_cache(self.cache))
            self.images = data.images("train-normal")
            self.keys = [facts["key"] for facts in data.provenance("train-normal")]
        except BaseException as error:
            self.error = error

    def wait_for(self, shards: int) -> None:
        """Until so many shards are decoded; AssertionError when the read ends before."""
        while len(list(self.cache.glob("*.partial/*.jsonl"))) < shards:
            assert self.is_alive(), f"the read ended before {shards} shards: {self.error}"
            time.sleep(0.005)


@pytest.mark.slow
def test_every_sample_arrives_once_and_whole_through_cuts_refusals_and_restarts(
    url: str, proxy: FaultProxy, store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.delenv("AWS_ENDPOINT_URL")
        images = write(url, FEW + 4000, 16, 500, processes=2)
    shards, rng = len(images) // 500, random.Random(0)
    restarts = [rng.randrange(4, shards // 2 - 4), rng.randrange(shards // 2, shards - 8)]
    refusals = [*range(0, shards - 8, 4)]
    proxy.slow(4_000_000)  # a quarter of a second a shard, so that restarts find reads under way
    proxy.cut(100, after=(0, 250_000))
    reading, outages = Reading(url, tmp_path), list[float]()
    reading.start()
    asked = 0
    try:
        for count in sorted({*restarts, *refusals}):
            reading.wait_for(count)
            if count in refusals and asked < 50:
                portion = min(50 - asked, proxy.refusals - asked + 5)
                proxy.refuse(portion + asked - proxy.refusals)
                asked += portion
            if count in restarts:
                time.sleep(rng.uniform(0, 0.5))
                began = time.monotonic()
                store.kill()
                time.sleep(rng.uniform(0, 1))
                store.start()
                outages.append(time.monotonic() - began)
        reading.join(120)
    finally:
        store.start()
    assert reading.error is None and not reading.is_alive(), reading.error
    assert np.array_equal(reading.images, images)
    assert reading.keys == [f"p{i}" for i in range(len(images))]
    assert (proxy.cuts, proxy.refusals, len(outages)) == (100, 50, 2)
    (entry,) = [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    assert sorted(path.name for path in entry.iterdir()) == sorted([FACTS, IMAGES, PROVENANCE])


@pytest.mark.slow
def test_a_store_that_stays_away_is_reported_soon(
    url: str, proxy: FaultProxy, store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_tools.storage.retry, "RETRY_SECONDS", 3.0)
    images = write(url, 600, 16, 100)
    proxy.slow(200_000)
    reading = Reading(url, tmp_path)
    reading.start()
    try:
        reading.wait_for(2)
        began = time.monotonic()
        store.kill()
        reading.join(30)
        assert time.monotonic() - began < 20
    finally:
        store.start()
    assert isinstance(reading.error, UserError), reading.error
    message = str(reading.error)
    assert "the storage has not answered for 3 s" in message and " - " in message and "\n" not in message
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    proxy.slow(None)
    assert np.array_equal(open_dataset(url, open_cache(tmp_path)).images("train-normal"), images)


@pytest.mark.slow
def test_a_connection_that_falls_silent_is_given_up(url: str, proxy: FaultProxy) -> None:
    storage = open_storage(url)
    write_bytes(storage, "x", b"here")
    proxy.hang(2)  # one times out, and so may the one after it
    began = time.monotonic()
    assert read_bytes(storage, "x") == b"here"
    assert 35 < time.monotonic() - began < 55


class Writer:
    """A process that writes the slow dataset to a URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        command = [sys.executable, "-c", "from tests.data_tools.test_faults import main; main()", url]
        pipe = subprocess.PIPE
        # its own session, by which its children are found when it is gone
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
        assert self.process.stdout and self.process.stdout.readline() == "begun\n"
        self.began = time.monotonic()

    def end(self) -> tuple[int, str, float]:
        """Its exit code, what it said and the seconds it took."""
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors, time.monotonic() - self.began

    def kill(self, moment: float | None) -> bool:
        """Kill it so many seconds after it began, or, without a number, when some shards are done.

        Returns whether it was still at work. Its children must go with it.
        """
        if moment is None:
            while sum(name.endswith(RECEIPT) for name in open_storage(self.url).names()) < 3:
                time.sleep(0.02)
        else:
            time.sleep(max(0.0, self.began + moment - time.monotonic()))
        killed = self.process.poll() is None
        self.process.kill()
        self.process.communicate(timeout=5)  # ends when nobody holds its output any more, children too
        deadline = time.monotonic() + 2
        while left := in_session(self.process.pid):
            assert time.monotonic() < deadline, f"still alive: {left}"
            time.sleep(0.01)
        return killed


def in_session(session: int) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = place.read_text().rpartition(")")
        except OSError:
            continue  # it has just ended
        state, _, _, its_session = rest.split()[:4]
        if int(its_session) == session and state != "Z":
            found.append(name)
    return found


def contents(url: str) -> dict[str, bytes]:
    storage = open_storage(url)
    return {name: read_bytes(storage, name) for name in storage.names()}


def kill_and_repeat(
    place: Callable[[str], str], kills: int, versions: Callable[[str], dict[str, Any]], whole: Callable[[str], None]
) -> dict[str, int]:
    """Kill writers at moments all over their run, and repeat each to its end or to the next kill.

    versions: of each object at a URL something that changes when it is written again. whole: raises when a URL holds
    more than a dataset's objects.
    """
    from tests.support.checks import refuses

    code, errors, length = (reference := Writer(place("reference"))).end()
    assert code == 0, errors
    expected = contents(place("reference"))
    assert len(expected) == SHARDS + 1 and reference.process.returncode == 0
    rng = random.Random(kills)
    # One is no matter of chance: how long processes take to start depends on the machine's other work.
    moments = [None, *(length * (i + rng.random()) / (kills - 1) for i in range(kills - 1))]
    rng.shuffle(moments)
    seen = {"kills": 0, "in time": 0, "after the manifest": 0, "repeated": 0, "used again": 0}
    while moments:
        url = place(f"round-{seen['kills']}")
        for _ in range(rng.choice([1, 2, 2])):
            if not moments:
                break
            seen["in time"] += Writer(url).kill(moments.pop())
            seen["kills"] += 1
            there = contents(url)
            if MANIFEST in there:
                Verify(url)()
                assert there == expected
                break
            refuses(lambda url=url: read_manifest(open_storage(url)), url, "is not a dataset")
            assert all(there[name] == expected[name] for name in there if name.endswith(".tar") and name[0] != ".")
        before, done = versions(url), MANIFEST in there
        code, errors, _ = Writer(url).end()
        if done:
            seen["after the manifest"] += 1
            assert code == 2 and f"{url}: already holds a dataset" in errors
            assert contents(url) == expected
            continue
        assert code == 0, errors
        seen["repeated"] += 1
        after = versions(url)
        seen["used again"] += sum(before.get(name) == after[name] for name in after)
        assert contents(url) == expected
        whole(url)
    print(f"one writer takes {length:.1f} s; {seen}")
    assert seen["kills"] == kills and seen["in time"] > 0 and seen["used again"] > 0
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("kills", [4, 20])
def test_a_killed_writer_on_s3_leaves_nothing_or_all(url: str, store: LocalStore, kills: int) -> None:
    client = store.client()
    prefix = url.removeprefix(f"{store.url}/")

    def versions(url: str) -> dict[str, Any]:
        place = url.removeprefix(f"{store.url}/")
        names = open_storage(url).names()
        heads = {name: client.head_object(Bucket=store.bucket, Key=f"{place}/{name}") for name in names}
        return {name: head["Metadata"]["writer"] for name, head in heads.items()}

    def whole(url: str) -> None:
        place = url.removeprefix(f"{store.url}/")
        found = client.list_objects_v2(Bucket=store.bucket, Prefix=f"{place}/")["Contents"]
        (mark,) = [entry["Key"] for entry in found if "/." in entry["Key"]]
        assert mark.startswith(f"{place}/.writer-")
        assert not client.list_multipart_uploads(Bucket=store.bucket, Prefix=f"{place}/").get("Uploads")

    kill_and_repeat(lambda name: f"{store.url}/{prefix}/{name}", kills, versions, whole)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [4, 20])
def test_a_killed_writer_in_a_folder_leaves_nothing_or_all(tmp_path: Path, kills: int) -> None:
    def versions(url: str) -> dict[str, Any]:
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in Path(url).iterdir()}

    def whole(url: str) -> None:
        assert [path.name for path in Path(url).iterdir() if path.name.startswith(".")] == []

    kill_and_repeat(lambda name: str(tmp_path / name), kills, versions, whole)
