"""python -m tests.benchmarks.equality REVISION: whether this tree computes what REVISION did; `make equality` runs it.

The same commands are given to both trees, each a process of its own, on the same data, and what they write is
compared: bits of weights, every number of every table. A run that REVISION began must go on in this tree, and what it
finished must be read by it. One line a case; the exit status is 1 where anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from tests.benchmarks.equality_files import (
    Difference,
    Side,
    compare,
    cut_back,
    forget_dataset,
    run_differences,
    worktree,
)

ROOT = Path(__file__).resolve().parents[2]
TINY = shlex.split(
    "--preset demo --resolution 8 --width 8 --stable-images 64 --fade-images 384 --final-images 192 --minibatch.4 16"
    " --minibatch.8 16 --log-images 64 --precision float32 --checkpoint-images 336 --keep 99 --fanogan.width 4"
    " --fanogan.latent-size 8 --fanogan.minibatch 8 --fanogan.gan-images 400 --fanogan.encoder-images 240"
    " --search.steps 10"
)
"""40 steps: 4x4 stable, 8x8 fade, 8x8 stable; or generator and critic, then the encoder."""
GROWING = (64, 336, 448, 640)
DUE = {"proposed": GROWING, "search": GROWING, "fanogan": (360, 400, 640)}
"""Where TINY saves: in the fade, or in the first of f-AnoGAN's phases, and at the end of each phase.

A training that is faster than the saving of its checkpoints leaves out those within phases; it is then tried again.
"""
ATTEMPTS = 6
SWEEP = shlex.split(
    "--preset demo --method proposed,proposed-dz,fanogan,search --gamma 0,0.02 --seed 0,1 --set resolution=8 width=8"
    " fade-images=64 stable-images=64 final-images=96 minibatch.4=16 minibatch.8=16 log-images=32 precision=float32"
    " checkpoint-images=1000 fanogan.width=4 fanogan.latent-size=8 fanogan.minibatch=8 fanogan.gan-images=160"
    " fanogan.encoder-images=96 search.steps=10"
)
SWEPT = ("*.csv", "baselines/*/*", "trials/*/*.json", "trials/*/*.csv", "trials/*/*.npz")
SCORES = ("scores.csv", "run/calibration/*")


@dataclass(frozen=True)
class Bench:
    """Both trees, what they work on, and what the old one made of it so far."""

    folder: Path
    old: Side
    new: Side

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def prepare(self) -> None:
        """Simulated cells and debris as a dataset of 16x16, its test images as files and as an array."""
        self.old.run(["data_tools", *shlex.split("simulate videos --sequences 2 --frames 4 --size 160")], self.folder)
        words = "baxter videos --out data --resolution 16 --test-size 12 --rotations 1"
        self.old.run(["data_tools", *words.split()], self.folder)
        for tar in sorted(self.data.glob("test-*.tar")):
            with tarfile.open(tar) as file:
                file.extractall(self.images, filter="data")
        pictures = [np.asarray(Image.open(path)) for path in sorted(self.images.glob("*.png"))]
        np.save(self.folder / "images.npy", np.stack(pictures))

    def trained(self, side: Side, training: Training) -> Path:
        """That side's run; it is trained the first time, and again where training was faster than saving."""
        run = side.folder / "runs" / training.name / "run"
        for _ in range(ATTEMPTS):
            if training.is_whole(run):
                return run
            side.empty(run.parent)
            side.run(["trainer", "train", "--out", "run", *training.options, *self.place(side)], run.parent)
        raise Difference(f"{side.name} {training.name}: never saved all of its checkpoints")

    def place(self, side: Side) -> list[str]:
        return ["--data", str(self.data), "--cache", str(side.folder / "cache")]

    def swept(self) -> Path:
        """The old tree's sweep."""
        out = self.old.folder / "sweep"
        if not (out / "table.csv").exists():
            self.old.run(["tuning", "sweep", "--out", "sweep", *SWEEP, *self.place(self.old)], self.old.folder)
        return out


class Case(Protocol):
    @property
    def name(self) -> str: ...

    def check(self, bench: Bench) -> list[str]:
        """Notes; raises Difference where the trees differ."""
        ...


@dataclass(frozen=True)
class Data:
    """A command of data_tools in both trees, to the same bytes."""

    name: str
    words: str

    def check(self, bench: Bench) -> list[str]:
        folders = []
        for side in (bench.old, bench.new):
            folders.append(side.empty(side.folder / "data" / self.name))
            words = self.words.format(videos=bench.folder / "videos", images=bench.images)
            side.run(["data_tools", *words.split(), "--out", "data"], folders[-1])
        return compare(folders, ("data/*",), exact=True)


@dataclass(frozen=True)
class Training:
    """A training in both trees, to the same bits of every checkpoint and the same lines of metrics."""

    name: str
    method: str
    more: str = ""

    @property
    def options(self) -> list[str]:
        return [*TINY, "--method", self.method, *self.more.split()]

    def is_whole(self, run: Path) -> bool:
        names = {f"images-{seen:09d}" for seen in DUE[self.method]}
        return names <= {path.parent.name for path in run.glob("checkpoints/*/checkpoint.json")}

    def check(self, bench: Bench) -> list[str]:
        return run_differences(bench.trained(bench.old, self), bench.trained(bench.new, self))


@dataclass(frozen=True)
class Continued:
    """The old tree's run, cut back to a checkpoint, goes on in the new tree to the old tree's bits."""

    of: Training
    at: int

    @property
    def name(self) -> str:
        return f"resume-{self.of.name}-{self.at}"

    def check(self, bench: Bench) -> list[str]:
        old = bench.trained(bench.old, self.of)
        place = bench.new.empty(bench.new.folder / "continued" / self.name)
        for _ in range(ATTEMPTS):
            run = cut_back(old, self.at, place / "run")
            words = ["trainer", "train", "--out", "run", *self.of.options, *bench.place(bench.new)]
            said = bench.new.run(words, place)
            if f"from {self.at} images" not in said:
                raise Difference(f"did not go on from {self.at} images")
            if self.of.is_whole(run):
                return run_differences(old, run)
        raise Difference("never saved all of its checkpoints")


@dataclass(frozen=True)
class Command:
    """A command of the trainer on copies of the old tree's finished run; files are what it writes.

    calibrated: the old tree has calibrated the run before, and its dataset is out of reach since. then: a script that
    the command wrote, run on an array of images.
    """

    name: str
    of: Training
    words: str
    files: tuple[str, ...]
    calibrated: bool = False
    then: str = ""

    def check(self, bench: Bench) -> list[str]:
        made = bench.trained(bench.old, self.of)
        if self.calibrated and not (made / "calibration").exists():
            words = ["score", "run", str(bench.images), "--cache", str(bench.old.folder / "cache")]
            bench.old.run(["trainer", *words], made.parent)
        places = []
        for side in (bench.old, bench.new):
            place = side.copied(made, side.folder / "commands" / self.name / "run").parent
            if self.calibrated:
                forget_dataset(place / "run")
            else:
                side.empty(place / "run" / "calibration")
            words = shlex.split(self.words.format(images=bench.images))
            side.run(["trainer", *words, "--cache", str(side.folder / "cache")], place)
            if self.then:
                side.run_script(place / self.then, [str(bench.folder / "images.npy"), "--heat", "heat.npy"], place)
            places.append(place)
        notes = compare(places, self.files)
        if self.calibrated:
            compare((made, places[1] / "run"), ("calibration/*",), exact=True)
        return notes


@dataclass(frozen=True)
class Report:
    """The report of the old tree's sweep by both trees."""

    name: str = "sweep-report"

    def check(self, bench: Bench) -> list[str]:
        folders = []
        for side in (bench.old, bench.new):
            folders.append(side.empty(side.folder / "report"))
            words = ["report", str(bench.swept()), "--out", "report", "--cache", str(side.folder / "cache")]
            side.run(["tuning", *words], folders[-1])
        return compare(folders, ("report/*.csv",), exact=True)


@dataclass(frozen=True)
class Resumed:
    """The old tree's finished sweep, without its tables, resumed by the new tree."""

    name: str = "sweep-resume"

    def check(self, bench: Bench) -> list[str]:
        old = bench.swept()
        copy = bench.new.copied(old, bench.new.folder / "resumed" / "sweep")
        for table in copy.glob("*.csv"):
            table.unlink()
        bench.new.run(["tuning", "resume", "sweep"], copy.parent)
        return compare((old, copy), SWEPT, exact=True)


@dataclass(frozen=True)
class Swept:
    """The same sweep by the new tree."""

    name: str = "sweep-again"

    def check(self, bench: Bench) -> list[str]:
        old, side = bench.swept(), bench.new
        side.run(["tuning", "sweep", "--out", "sweep", *SWEEP, *bench.place(side)], side.folder)
        return compare((old, side.folder / "sweep"), SWEPT)


@dataclass(frozen=True)
class Parquet:
    """The old tree's run scores a dataset on Ray, in both trees."""

    of: Training
    name: str = "cluster-score"

    def check(self, bench: Bench) -> list[str]:
        made, places = bench.trained(bench.old, self.of), []
        for side in (bench.old, bench.new):
            place = side.copied(made, side.folder / "commands" / self.name / "run").parent
            side.empty(place / "run" / "calibration")
            words = ["--run", "run", "--images", str(bench.data), "--out", "scores", "--false-alarms", "0.05"]
            side.run(["cluster", "score", *words], place)
            places.append(place)
        return compare(places, ("scores/*.parquet", "run/calibration/*"))


JOINT, FANOGAN, SEARCH = (Training(name, name) for name in ("proposed", "fanogan", "search"))
TRAININGS = (
    JOINT,
    FANOGAN,
    SEARCH,
    Training("proposed-encoder-only", "proposed", "--coupling encoder-only"),
    Training("proposed-dz", "proposed", "--distance latent"),
    Training("proposed-dz-encoder-only", "proposed", "--distance latent --coupling encoder-only"),
    Training("proposed-microbatch", "proposed", "--microbatch 8"),
    Training("proposed-gamma", "proposed", "--gamma 0.1 --seed 7 --window 1"),
    Training("proposed-bf16", "proposed", "--precision bf16"),
    Training("proposed-2-workers", "proposed", "--workers 2"),
    Training("fanogan-2-workers", "fanogan", "--workers 2"),
)
TABLE = ("run/evaluation/scores.csv", "run/evaluation/summary.json")
AUDIT = ("run/audit/audit.csv", "run/audit/exclude.txt", "run/calibration/*")
CARRIED = ("carried/detector.json", "carried/calibration.npz", "scores.csv", "heat.npy")
CASES: tuple[Case, ...] = (
    Data("data-baxter", "baxter {videos} --resolution 16 --test-size 12"),
    Data("data-images", "images {images} --resolution 8 --channels 1"),
    *TRAININGS,
    *(Continued(training, 360 if training.method == "fanogan" else 336) for training in TRAININGS),
    Continued(JOINT, 448),
    Continued(FANOGAN, 400),
    *(Command(f"evaluate-{of.name}", of, "evaluate run", TABLE) for of in (JOINT, FANOGAN, SEARCH)),
    *(
        Command(f"score-{of.name}", of, "score run {images} --false-alarms 0.05 --heatmaps maps", (*SCORES, "maps/*"))
        for of in (JOINT, FANOGAN)
    ),
    *(
        Command(f"score-a-{of.name}", of, "score run {images} --by a --lam 0.05 --threshold 0.1", ("scores.csv",))
        for of in (JOINT, FANOGAN, SEARCH)
    ),
    Command("score-L_n", JOINT, "score run {images} --by L_n --contamination 0.05", SCORES),
    Command("score-calibrated", JOINT, "score run {images} --false-alarms 0.05", SCORES, calibrated=True),
    Command("score-calibrated-fanogan", FANOGAN, "score run {images} --by D", SCORES, calibrated=True),
    *(Command(f"audit-{of.name}", of, "audit run --contamination 0.05", AUDIT) for of in (JOINT, FANOGAN)),
    *(
        Command(
            f"export-{form}-{of.name}",
            of,
            f"export run --out carried --format {form}",
            CARRIED,
            then="carried/score.py",
        )
        for form in ("onnx", "torch")
        for of in (JOINT, FANOGAN)
    ),
    Parquet(JOINT),
    Report(),
    Resumed(),
    Swept(),
)


@contextlib.contextmanager
def bench_of(revision: str) -> Iterator[Bench]:
    """Both trees and a place to work in; all of it goes at the end."""
    with tempfile.TemporaryDirectory(prefix="equality-") as name, worktree(ROOT, revision, Path(name) / "tree") as tree:
        folder = Path(name)
        bench = Bench(folder, Side("old", tree, folder / "old"), Side("new", ROOT, folder / "new"))
        bench.prepare()
        yield bench


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Hold what this tree computes against an earlier revision.")
    parser.add_argument("revision", help="a commit that git knows")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases, by name or pattern: 'resume-*'")
    options = parser.parse_args(words)
    chosen = [case for case in CASES if not options.only or any(fnmatch(case.name, each) for each in options.only)]
    if not chosen:
        parser.error(f"no such case; there are {', '.join(case.name for case in CASES)}")
    differing = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leaves no worktree behind
    with bench_of(options.revision) as bench:
        for case in chosen:
            begun = time.monotonic()
            try:
                said = "; ".join(["equal", *case.check(bench)])
            except Difference as error:
                differing += 1
                said = f"differs ({error})"
            print(f"{case.name:<36} {time.monotonic() - begun:4.0f} s  {said}", flush=True)
    print(f"{len(chosen) - differing} of {len(chosen)} equal")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
