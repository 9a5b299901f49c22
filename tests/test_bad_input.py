"""Bad input through the front doors: one line that names the culprit and the remedy, and nothing half-written.

Each case prepares a folder, gives a command line, the words its one line must hold, and the path that must not appear
(or must stay as it was). Sources have closer tests of their own; these are what a person at the keyboard meets.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_tools.__main__ import main as data_tools
from data_tools.dataset.patch import Patch
from data_tools.dataset.writer import write_dataset
from data_tools.errors import run_command
from tests.support.checks import plan_of
from tests.support.runs import TINY
from trainer.__main__ import main as trainer
from trainer.run.checkpoint import checksum

PROGRAMS: dict[str, Callable[[list[str]], None]] = {"data_tools": data_tools, "trainer": trainer}


@dataclass(frozen=True)
class Place:
    """A test's own folder, with copies of what the session's fixtures made."""

    folder: Path
    videos: Path
    dataset: Path
    run: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"


@pytest.fixture
def place(tmp_path: Path, videos: Path, dataset: Path, run: Path) -> Place:
    copies = [Path(shutil.copytree(path, tmp_path / path.name)) for path in (videos, dataset, run)]
    return Place(tmp_path, *copies)


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()} if path.exists() else {}


def fails(capsys: pytest.CaptureFixture[str], place: Place, command: str, *words: str) -> None:
    """The command ends with 2 and one line of error, and leaves `place.out` as it was."""
    before = snapshot(place.out)
    program, *arguments = command.format(**vars(place), out=place.out).split()
    capsys.readouterr()
    assert run_command(PROGRAMS[program], arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("left out", "writing:"))]
    assert line.startswith("error: ") and " - " in line, line
    assert all(word in line for word in words), line
    assert snapshot(place.out) == before


def alter(path: Path, at: int = 700) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def shards_of(folder: Path, pools: dict[str, int], channels: int = 1, side: int = 8) -> None:
    rng = np.random.default_rng(1)
    patches: Iterator[Patch] = (
        Patch(rng.integers(0, 256, (side, side, channels), dtype=np.uint8), pool, f"{pool}-{i}")
        for pool, count in pools.items()
        for i in range(count)
    )
    write_dataset(plan_of(patches), str(folder), side, channels, {})


RESULTS = "Analysis/CellData_simulated/RES/seq_00_RES"
FRAME = "seq_00/frame_002.tif"
BAXTER = "data_tools baxter {videos} --out {out} --test-size 4 --resolution 32"
TRAIN = f"trainer train --data {{dataset}} --out {{out}} --cache {{folder}}/cache {' '.join(TINY)}"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def wrong_size(place: Place) -> None:
    tifffile.imwrite(place.videos / RESULTS / "mask001.tif", np.ones((50, 50), np.uint16))


def images(place: Place, name: str = "normal/a.png") -> Path:
    path = place.folder / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (20, 20), 90).save(path)
    return path


def broken_png(place: Place) -> None:
    for i in range(6):
        images(place, f"normal/{i}.png")
        images(place, f"anomaly/{i}.png")
    path = place.folder / "images" / "normal" / "3.png"
    path.write_bytes(path.read_bytes()[:50])


def empty_pool(place: Place) -> None:
    images(place, "anomaly/a.png")
    (place.folder / "images" / "normal").mkdir()


def newer_manifest(place: Place) -> None:
    path = place.dataset / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))


def foreign_files(place: Place) -> None:
    place.out.mkdir()
    (place.out / "thesis.txt").write_text("keep")


def newer_checkpoint(place: Place) -> None:
    path = place.run / "checkpoints" / "images-000000224" / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))


def other_checkpoint(place: Place) -> None:
    """Weights of this run, a configuration of another one."""
    path = place.run / "checkpoints" / "images-000000224" / "checkpoint.json"
    facts = json.loads(path.read_text())
    facts |= {"config": facts["config"] | {"width": 16}}
    path.write_text(json.dumps(facts | {"checksum": checksum(facts)}))


def best_gone(place: Place) -> None:
    (place.run / "best.json").unlink()


DATA: list[tuple[str, Callable[[Place], object], str, tuple[str, ...]]] = [
    ("a missing folder", lambda p: None, "data_tools baxter {folder}/none --out {out}", ("none", "no such folder")),
    ("no results", lambda p: shutil.rmtree(p.videos / "Analysis"), BAXTER, ("Analysis", "CellData")),
    ("frames without labels", lambda p: shutil.rmtree(p.videos / RESULTS), BAXTER, ("seq_00", "no labels")),
    ("labels without frames", lambda p: (p.videos / "seq_00/frame_003.tif").unlink(), BAXTER, ("mask003.tif",)),
    ("a mask of another size", wrong_size, BAXTER, ("mask001.tif", "50 x 50", "160 x 160")),
    ("a truncated TIF", lambda p: truncate(p.videos / FRAME), BAXTER, ("frame_002.tif", "cannot be read")),
    ("too many to test on", lambda p: None, BAXTER.replace("size 4", "size 4000"), ("--test-size", "give at most")),
    ("a broken PNG", broken_png, "data_tools images {folder}/images --out {out} --test-size 2", ("3.png", "fix")),
    ("an empty pool", empty_pool, "data_tools images {folder}/images --out {out}", ("normal", "holds no images")),
    (
        "a resolution that is not a power of two",
        images,
        "data_tools images {folder}/images --out {out} --resolution 48",
        ("--resolution is 48", "32 or 64"),
    ),
    ("no CIFAR-10", lambda p: None, "data_tools cifar10 {videos} --out {out}", ("experiment", "data_batch_1")),
    ("foreign files in the way", foreign_files, BAXTER, ("--out", "thesis.txt")),
    ("a dataset in the way", lambda p: shutil.copytree(p.dataset, p.out), BAXTER, ("--out", "already holds a dataset")),
    ("a wrong URL", lambda p: None, BAXTER.replace("{out}", "ftp://host/x"), ("ftp://host/x", "give a folder")),
    ("empty shards", lambda p: None, BAXTER + " --samples-per-shard 0", ("--samples-per-shard is 0",)),
    (
        "an altered shard",
        lambda p: alter(p.dataset / "test-anomaly-000000.tar"),
        "data_tools verify {dataset}",
        ("test-anomaly-000000.tar", "altered"),
    ),
    (
        "a shard too many",
        lambda p: shutil.copy(p.dataset / "manifest.json", p.dataset / "x.tar"),
        "data_tools verify {dataset}",
        ("x.tar", "not in the manifest"),
    ),
    ("a newer manifest", newer_manifest, "data_tools inspect {dataset}", ("manifest.json", "version 99", "update")),
    ("not a dataset", lambda p: None, "data_tools inspect {videos}", ("experiment", "is not a dataset")),
    ("an unknown command", lambda p: None, "data_tools shred {videos}", ("shred", "choose among")),
    (
        "a simulation over something",
        foreign_files,
        "data_tools simulate {out}",
        ("out", "not an empty folder"),
    ),
]

TRAINER: list[tuple[str, Callable[[Place], object], str, tuple[str, ...]]] = [
    ("not a dataset", lambda p: None, TRAIN.replace("{dataset}", "{videos}"), ("experiment", "is not a dataset")),
    ("no data option", lambda p: None, TRAIN.replace("--data {dataset}", ""), ("--data is missing",)),
    ("an unknown kind of URL", lambda p: None, TRAIN.replace("{out}", "ftp://b/run"), ("ftp://b/run", "s3://")),
    ("workers that are no number", lambda p: None, TRAIN + " --workers some", ("--workers some", "1:8")),
    ("a range of workers that ends below", lambda p: None, TRAIN + " --workers 4:2", ("--workers 4:2", "1:8")),
    ("no checkpoint to keep", lambda p: None, TRAIN + " --keep 0", ("--keep 0", "at least 1")),
    ("an unknown AUC", lambda p: None, TRAIN + " --best-by AUC", ("--best-by AUC", "a_paper")),
    ("weights from nowhere", lambda p: None, TRAIN + " --from {folder}/none", ("none", "holds no checkpoint")),
    ("weights that are past the end", lambda p: None, TRAIN + " --from {run}", ("--from", "224", "--final-images")),
    (
        "altered weights to start from",
        lambda p: alter(p.run / "checkpoints/images-000000064/critic.safetensors", -5),
        TRAIN + " --from {run}/checkpoints/images-000000064",
        ("critic.safetensors", "checksum"),
    ),
    ("a best checkpoint that is gone", best_gone, "trainer evaluate {run} --best", ("best.json", "--best")),
    (
        "a limit of the cache that is not a size",
        lambda p: None,
        TRAIN + " --cache-limit much",
        ("--cache-limit much", "50GB"),
    ),
    ("a dataset above the limit", lambda p: None, TRAIN + " --cache-limit 1KB", ("--cache-limit 1 KB", "--window K")),
    ("a gamma out of range", lambda p: None, TRAIN + " --gamma 1.5", ("--gamma 1.5", "[0, 1)")),
    ("too many anomalies", lambda p: None, TRAIN + " --gamma 0.9", ("--gamma 0.9", "give at most")),
    ("an odd resolution", lambda p: None, TRAIN + " --resolution 48", ("--resolution 48", "power of two")),
    ("a resolution above the data's", lambda p: None, TRAIN + " --resolution 64", ("--resolution 64", "give 32")),
    ("a batch that does not divide", lambda p: None, TRAIN + " --minibatch.8 6", ("--minibatch.8 6", "of 4")),
    ("an unknown preset", lambda p: None, TRAIN.replace("demo", "demon"), ("--preset demon", "choose one of")),
    ("foreign files in the way", foreign_files, TRAIN, ("--out", "not a training run")),
    (
        "another run in the way",
        lambda p: shutil.copytree(p.run, p.out),
        TRAIN + " --width 16 --penalty 9",
        ("--out", "differs in --width, --penalty"),
    ),
    (
        "a run on another dataset",
        lambda p: (shutil.copytree(p.run, p.out), shards_of(p.folder / "other", {"train-normal": 9})),
        TRAIN.replace("{dataset}", "{folder}/other"),
        ("--out", "another dataset"),
    ),
    (
        "a shard altered by one byte",
        lambda p: alter(p.dataset / "train-normal-000000.tar"),
        TRAIN,
        ("train-normal-000000.tar", "altered"),
    ),
    ("a newer manifest", newer_manifest, TRAIN, ("manifest.json", "version 99")),
    ("no run", lambda p: None, "trainer evaluate {videos}", ("experiment", "not a run folder")),
    ("a newer checkpoint", newer_checkpoint, "trainer evaluate {run}", ("checkpoint.json", "version 99", "update")),
    ("a checkpoint of another run", other_checkpoint, "trainer evaluate {run}", ("safetensors", "does not fit")),
    (
        "altered weights",
        lambda p: alter(p.run / "checkpoints/images-000000224/ema.safetensors", -5),
        "trainer score {run} {videos}",
        ("ema.safetensors", "checksum"),
    ),
    (
        "a dataset without labels",
        lambda p: shards_of(p.folder / "other", {"train-unlabelled": 9}),
        "trainer evaluate {run} --data {folder}/other",
        ("other", "no labelled test images"),
    ),
    (
        "another number of channels",
        lambda p: shards_of(p.folder / "other", {"train-normal": 9, "test-normal": 3, "test-anomaly": 3}, channels=3),
        "trainer evaluate {run} --data {folder}/other",
        ("--data", "8x8x3", "8x8x1"),
    ),
    ("no images to score", lambda p: None, "trainer score {run} {dataset} --out {out}", ("shards", "no images")),
    (
        "a broken image to score",
        broken_png,
        "trainer score {run} {folder}/images --out {out}",
        ("3.png", "cannot be read"),
    ),
    ("a lambda out of range", images, "trainer score {run} {folder}/images --lam 2", ("--lambda 2", "[0, 1]")),
    ("an unknown command", lambda p: None, "trainer tarin", ("tarin", "did you mean train?")),
]


@pytest.mark.parametrize(("prepare", "command", "words"), [c[1:] for c in DATA], ids=[c[0] for c in DATA])
def test_data_tools(place: Place, capsys: pytest.CaptureFixture[str], prepare, command: str, words) -> None:
    prepare(place)
    fails(capsys, place, command, *words)


@pytest.mark.parametrize(("prepare", "command", "words"), [c[1:] for c in TRAINER], ids=[c[0] for c in TRAINER])
def test_trainer(place: Place, capsys: pytest.CaptureFixture[str], prepare, command: str, words) -> None:
    prepare(place)
    fails(capsys, place, command, *words)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of `size` at `folder`; where one may not be mounted, a limit on the size of a file instead."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", folder]
    if subprocess.run(words, capture_output=True).returncode:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_full_while_sharding(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(place.folder / "disk", "64k"):
        fails(capsys, place, BAXTER.replace("{out}", "{folder}/disk/shards"), "disk", "free space")
        assert not list((place.folder / "disk").rglob("*.*"))


def test_a_disk_that_is_full_while_training(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(place.folder / "disk", "40k"):
        fails(capsys, place, TRAIN.replace("{out}", "{folder}/disk/run"), "free space")
        assert not list((place.folder / "disk").iterdir())


def test_a_disk_that_is_full_while_decoding(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A map of a file that the disk has no room for would end in a bus error, not in a message."""
    with small_disk(place.folder / "disk", "64k"):
        fails(capsys, place, TRAIN.replace("{folder}/cache", "{folder}/disk"), "disk", "free space")
        assert not [path for path in (place.folder / "disk").iterdir() if path.is_dir()]
    assert not place.out.exists()


@pytest.mark.slow
def test_an_altered_shard_found_by_ray_workers(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    alter(place.dataset / "train-normal-000000.tar")
    fails(capsys, place, TRAIN + " --workers 2", "train-normal-000000.tar", "altered")
    assert not place.out.exists()


@pytest.mark.parametrize("program", ["data_tools", "trainer"])
def test_a_process_of_its_own_ends_with_2_and_shows_a_traceback_only_with_debug(program: str) -> None:
    words = [sys.executable, "-m", program, "nonsense"]
    plain, debug = (subprocess.run([*words, *more], capture_output=True, text=True) for more in ([], ["--debug"]))
    assert (plain.returncode, len(plain.stderr.splitlines()), plain.stdout) == (2, 1, "")
    assert debug.returncode == 2 and "Traceback" in debug.stderr
