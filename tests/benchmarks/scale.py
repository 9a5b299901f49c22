"""python -m tests.benchmarks.scale: the data path at the size it exists for, on a real S3 store; `make scale` runs it.

Every measurement is a fresh process of this program; the first process holds the store and samples the memory of the
others. Nothing is dropped from the page cache, so "cold" means an empty cache folder, not a cold disk.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.dataset.cache import open_cache
from data_tools.dataset.contamination import contaminants
from data_tools.dataset.manifest import MANIFEST, Manifest
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import TrainingSet, training_set
from data_tools.processes import cores
from data_tools.storage import open_storage, write_bytes

GAMMA = 0.05
ROTATIONS, TEST_SIZE, FRAMES, FRAME_SIZE = 3, 256, 12, 1024
CELLS = 700  # about as many a frame; the simulator lets 1747 objects into one
MARGIN = 1.15  # some cells die, and what shares a track with the test is left out
BATCH, BATCHES, WINDOW, SAMPLE_SHARDS = 128, 3000, 8, 10
WAYS = ("ours, cold", "ours, warm", "webdataset", "webdataset, shuffle(1000)", "a PNG file each")
PEAKS = [f"peak memory {of}, GiB" for of in ("of ours", "of ours without mapped files", "with the store's server")]
PASSING = ("store", "cache", "videos-fifth", "tars", "pngs", "cache-of-tars")


def needs(patches: int) -> tuple[int, int]:
    """Cells and debris that a dataset of so many normal training patches takes."""
    each, spare = 1 + ROTATIONS, TEST_SIZE + FRAMES
    return -(-patches // each) + spare, -(-contaminants(patches, GAMMA) // each) + spare


def simulate(videos: str, patches: int) -> dict[str, Any]:
    from data_tools.commands.simulate import Simulate
    from data_tools.simulator.videos import Videos

    count = -(-int(needs(patches)[0] * MARGIN) // (FRAMES * CELLS))
    cells, debris = (-(-int(wanted * MARGIN) // (count * FRAMES)) for wanted in needs(patches))
    begun = time.perf_counter()
    Simulate(Path(videos), Videos(count, FRAMES, FRAME_SIZE, cells, debris))()
    return {"time, s": time.perf_counter() - begun}


def part_of(videos: Path, patches: int, wanted: int, out: Path) -> None:
    """As many of the sequences, by hard links, as a smaller dataset needs."""
    share = max(less / whole for less, whole in zip(needs(wanted), needs(patches)))
    names = sorted(path.name for path in videos.iterdir() if path.name != "Analysis")
    for name in names[: int(len(names) * share) + 1]:
        for place in (name, f"Analysis/CellData_simulated/RES/{name}_RES"):
            shutil.copytree(videos / place, out / place, copy_function=os.link)


def shard(videos: str, url: str, patches: int, server: int) -> dict[str, Any]:
    from data_tools.dataset.writer import write_dataset
    from data_tools.sources.baxter import Baxter

    begun = time.perf_counter()
    plan = Baxter(Path(videos), resolution=64, rotations=ROTATIONS, test_size=TEST_SIZE, seed=0).plan()
    planned = time.perf_counter() - begun
    drafts = dict(plan.drafts)
    for pool, wanted in (("train-normal", patches), ("train-anomaly", contaminants(patches, GAMMA))):
        if len(drafts[pool]) < wanted:
            sys.exit(f"{videos}: gives {len(drafts[pool])} {pool} of {wanted} - raise MARGIN and remove the videos")
        drafts[pool] = drafts[pool][:wanted]
    plan, count = dataclasses.replace(plan, drafts=drafts), sum(map(len, drafts.values()))
    with timed(server) as figures:
        made = write_dataset(plan, url, 64, 1, {"kind": "scale"}, processes=0, inputs=Path(videos))
    figures |= {"rate, patches/s": count / figures["time, s"], "plan before it, s": planned}
    figures |= {"rate with the plan, patches/s": count / (figures["time, s"] + planned), "patches of all pools": count}
    return figures | {"shards": len(made.shards), "written, MB": sum(each.size for each in made.shards) / 1e6}


def cold(url: str, cache: str, server: int) -> dict[str, Any]:
    dataset = open_dataset(url, open_cache(cache))
    with timed(server) as figures:
        count = len(dataset.images("train-normal"))
    dataset.images("train-anomaly")  # the next steps want them
    return figures | {"rate, patches/s": count / figures["time, s"]}


def warm(url: str, cache: str, launched: float) -> dict[str, Any]:
    begun = time.perf_counter()
    training_set(open_dataset(url, open_cache(cache)), GAMMA, 0).at(np.arange(BATCH))
    return {"after imports, s": time.perf_counter() - begun, "from the start of Python, s": time.time() - launched}


def batches(url: str, cache: str) -> dict[str, Any]:
    dataset, figures = open_dataset(url, open_cache(cache)), dict[str, Any]()
    for gamma in (0.0, GAMMA):
        whole = training_set(dataset, gamma, 0)
        figures[f"whole, gamma {gamma}, from the start, patches/s"] = rate_of(whole, 0)
        figures[f"whole, gamma {gamma}, further on, patches/s"] = rate_of(whole, BATCHES)
    states = ((0.0, "decoding of windows included"), (0.0, "windows in the cache"), (GAMMA, "windows in the cache"))
    for gamma, state in states:
        windowed = training_set(dataset, gamma, 0, WINDOW)
        figures[f"window {WINDOW}, gamma {gamma}, {state}, patches/s"] = rate_of(windowed, 0)
    return figures


def rate_of(images: TrainingSet, first: int) -> float:
    images.at(np.arange(first * BATCH, (first + 1) * BATCH))
    begun = time.perf_counter()
    for start in range(first * BATCH, (first + BATCHES) * BATCH, BATCH):
        images.at(np.arange(start, start + BATCH))
    return BATCHES * BATCH / (time.perf_counter() - begun)


def bring(url: str, folder: str, pngs: str) -> dict[str, Any]:
    """The sample on local disk: tars that are a dataset, and the same as one file per image."""
    dataset, local = open_dataset(url), open_storage(folder)
    sample = dataset.manifest.of("train-normal")[:SAMPLE_SHARDS]
    Path(pngs).mkdir()
    for each in sample:
        with dataset.storage.open(each.name) as file:
            write_bytes(local, each.name, file.read())
        with tarfile.open(Path(folder) / each.name) as tar:
            for member in tar:
                if member.name.endswith(".png"):
                    (Path(pngs) / member.name).write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
    manifest = Manifest(dataset.resolution, dataset.channels, tuple(sample), {"kind": "scale"})
    write_bytes(local, MANIFEST, manifest.to_json().encode())
    return {"patches": sum(each.samples for each in sample)}


def side(way: str, folder: str, pngs: str, cache: str) -> dict[str, Any]:
    """One epoch in batches of uint8, one way; opening is timed, imports are not."""
    import webdataset.compat as wds
    from PIL import Image

    def ours() -> Iterator[np.ndarray]:
        images = training_set(open_dataset(folder, open_cache(cache)), 0.0, 0)
        for start in range(0, len(images), BATCH):
            yield images.at(np.arange(start, min(start + BATCH, len(images))))

    def streamed(shuffle: int) -> Iterator[np.ndarray]:
        tars = sorted(map(str, Path(folder).glob("*.tar")))
        samples: Any = wds.WebDataset(tars, shardshuffle=SAMPLE_SHARDS if shuffle else False)
        samples = samples.shuffle(shuffle) if shuffle else samples
        return stacked(image for (image,) in samples.decode("l8", only=["png"]).to_tuple("png"))

    def one_by_one() -> Iterator[np.ndarray]:
        paths = sorted(Path(pngs).iterdir())
        order = np.random.default_rng(0).permutation(len(paths))
        return stacked(np.asarray(Image.open(paths[i])) for i in order)

    begun, first, count = time.perf_counter(), 0.0, 0
    ways = {WAYS[0]: ours, WAYS[1]: ours, WAYS[2]: lambda: streamed(0), WAYS[3]: lambda: streamed(1000)}
    for batch in (ways | {WAYS[4]: one_by_one})[way]():
        assert batch.dtype == np.uint8 and batch.size == len(batch) * 64 * 64
        first = first or time.perf_counter() - begun
        count += len(batch)
    return {"first batch, s": first, "rate, patches/s": count / (time.perf_counter() - begun)}


def stacked(images: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    while batch := list(itertools.islice(images, BATCH)):
        yield np.stack(batch)


STEPS = {each.__name__: each for each in (simulate, shard, cold, warm, batches, bring, side)}


@contextlib.contextmanager
def timed(server: int) -> Iterator[dict[str, Any]]:
    """Seconds of the block, and CPU seconds of this process with its ended children and of the store's server."""

    def now() -> np.ndarray:
        ticks = sum(map(int, Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[11:13]))
        return np.array([time.perf_counter(), sum(os.times()[:4]), ticks / os.sysconf("SC_CLK_TCK")])

    figures, begun = dict[str, Any](), now()
    yield figures
    figures |= zip(("time, s", "CPU ours, s", "CPU of the store's server, s"), (now() - begun).tolist())


def memory(root: int, *others: int) -> np.ndarray:
    """PSS in bytes of a process and all its descendants: all of it, without mapped files, and with other processes."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    tree, more = set[int](), {root}
    while more:
        tree |= more
        more = {pid for pid, parent in parents.items() if parent in more}
    total = np.zeros(3, np.int64)
    for pid in (*tree, *others):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines}
            total[2] += sizes["Pss:"]
            total[:2] += (sizes["Pss:"], sizes["Pss:"] - sizes["Pss_File:"]) if pid in tree else (0, 0)
    return total


def step(environment: dict[str, str], server: int, name: str, *words: Any) -> dict[str, Any]:
    """Run a step in a fresh process; its figures with the peaks of memory, sampled every 0.2 s."""
    print(name, *words, file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "tests.benchmarks.scale", "--step", json.dumps([name, *words])]
    peak = np.zeros(3, np.int64)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = np.maximum(peak, memory(process.pid, server))
            time.sleep(0.2)
        output = process.communicate()[0]
    if process.returncode:
        sys.exit(f"{name}: failed with status {process.returncode}")
    return json.loads(output.splitlines()[-1]) | dict(zip(PEAKS, (peak / 2**30).tolist()))


def measure(folder: Path, patches: int) -> dict[str, dict[str, Any]]:
    from cluster.store import local_store

    videos, fifth = folder / f"videos-{patches}", patches // 5
    cache, tars, pngs, few = (str(folder / name) for name in ("cache", "tars", "pngs", "cache-of-tars"))
    figures: dict[str, dict[str, Any]] = {"The machine": {"cores": cores(), "load before": os.getloadavg()[0]}}
    with local_store(folder / "store") as store:

        def run(title: str, *words: Any) -> dict[str, Any]:
            return figures.setdefault(title, step(store.child_environment(), store.pid, *words))

        url = f"{store.url}/shards"
        if not videos.exists():
            run("Simulating the videos, no part of sharding", "simulate", str(videos), patches)
        part_of(videos, patches, fifth, folder / "videos-fifth")
        run(f"Sharding {fifth:,} train-normal", "shard", str(folder / "videos-fifth"), f"{url}-fifth", fifth, store.pid)
        made = run(f"Sharding {patches:,} train-normal", "shard", str(videos), url, patches, store.pid)
        read = run("Reading train-normal into an empty cache", "cold", url, cache, store.pid)
        start = run(f"Warm start to the first batch, gamma {GAMMA}", "warm", url, cache, time.time())
        rates = run(f"{BATCHES:,} batches of {BATCH} in one process after a first one", "batches", url, cache)
        sample = step(store.child_environment(), store.pid, "bring", url, tars, pngs)["patches"]
        for way in WAYS:
            run(f"An epoch of {sample:,} patches from local disk: {way}", "side", way, tars, pngs, few)
    sides = dict(zip(WAYS, list(figures.values())[-len(WAYS) :]))
    best, slowest = sides[WAYS[1]]["rate, patches/s"], min(rates[name] for name in rates if name.startswith("whole"))
    figures["Ours, warm, is faster by a factor of"] = {way: best / sides[way]["rate, patches/s"] for way in WAYS}
    aims = {
        "writing >= 4,000 patches/s": made["rate, patches/s"] >= 4000,
        "peak memory of sharding < 1.5 GiB": made[PEAKS[0]] < 1.5,
        "peak memory of sharding with the store's server < 1.5 GiB": made[PEAKS[2]] < 1.5,
        "cold read >= 10,000 patches/s": read["rate, patches/s"] >= 10_000,
        "warm start with imports < 3 s": start["from the start of Python, s"] < 3,
        "batches, the slowest of the whole set >= 500,000 patches/s": slowest >= 500_000,
    }
    figures["Aims"] = {aim: "yes" if reached else "no" for aim, reached in aims.items()}
    return figures


def table(figures: dict[str, dict[str, Any]]) -> Iterator[str]:
    for title, rows in figures.items():
        yield title
        for name, value in rows.items():
            known = not isinstance(value, str) and name.endswith((", s", "/s", ", MB", ", GiB"))
            what, _, unit = name.rpartition(", ") if known else (name, "", "")
            shown = value if isinstance(value, str) else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
            yield f"  {what:<60} {shown:>10} {unit}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--patches", type=int, default=525_657, help="train-normal patches; %(default)s")
    parser.add_argument("--folder", type=Path, default=Path("scale_run"), help="where all of it lies; %(default)s")
    parser.add_argument("--keep", action="store_true", help="keep the store, the caches and the copies too")
    parser.add_argument("--step", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step[0]](*options.step[1:])))
        return
    folder = options.folder.resolve()
    for name in PASSING:
        shutil.rmtree(folder / name, ignore_errors=True)
    try:
        figures = measure(folder, options.patches)
    finally:
        for name in () if options.keep else PASSING:
            shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "scale.json").write_text(json.dumps(figures, indent=2))
    print("\n".join(table(figures)))


if __name__ == "__main__":
    main()
