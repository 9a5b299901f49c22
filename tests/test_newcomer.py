"""What a method and a term cost who adds them: one file and one line each, and everything has them.

The programs are copied, a toy of each is added to the copy, and the copy is used as a user would, in one process.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from safetensors.numpy import load_file

from cluster.ports import free_ports
from tests.support.runs import bits, cut_back, lines, said
from tests.support.tables import read_csv
from trainer.run.checkpoint import newest_checkpoint

ROOT = Path(__file__).parents[1]
TOYS = ROOT / "tests" / "support" / "newcomer"
PROGRAMS = ("data_tools", "trainer", "tuning", "cluster")
METHODS, TERMS = "trainer/methods", "trainer/scoring/terms"
METHOD = (TOYS / "toy_method.py").read_text()
OWN, CONTRAST = "toy_worst", "toy_contrast"
JOINED = [OWN, "L_n", "L_c", "L_i", CONTRAST]
SIZES = {"resolution": 8, "minibatch.8": 16, "log-images": 32, "toy.hidden": 8, "toy.learning-rate": 0.3}
SHELL = """
import importlib, json, os, sys
replies = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from data_tools.errors import run_command
from trainer.run.saving import Saver
save = Saver.save
Saver.save = lambda saver, snapshot, must: save(saver, snapshot, True)  # so small a run would leave checkpoints out
for line in sys.stdin:
    program, *words = json.loads(line)
    try:
        if program == "exec":
            status = 0
            exec(words.pop(0), globals())
        else:
            status = run_command(importlib.import_module(f"{program}.__main__").main, words)
    except SystemExit as end:
        status = end.code or 0
    sys.stdout.flush()
    print(status, file=replies, flush=True)
"""
SWEEP = """
import tyro
from trainer.run.folder import prepare
from trainer.training.loop import train
from tuning import sweep
from tuning.config import SweepConfig
from tuning.plan import make_plan, write_plan
from tuning.trial_tables import write_tables
plan = make_plan(tyro.cli(SweepConfig, args=words))
write_plan(plan)
for trial in plan.trials:
    prepare(trial.config)
    train(trial.config)
    write_tables(trial.config.out.removesuffix("/run"))
sweep._baselines(plan.sweep, 0.0, 0, "gamma-0_seed-0")
sweep.write_results(plan.sweep.out)
"""
PAIR = """
import dataclasses, multiprocessing
import torch.distributed as dist
from trainer.run.folder import prepare, read_config
from trainer.training.loop import train
config = dataclasses.replace(read_config(words[0])[0], out=words[1], workers="2")
prepare(config)
def work(rank):
    dist.init_process_group("gloo", init_method=f"file://{config.out}.meeting", rank=rank, world_size=2)
    train(config)
    dist.destroy_process_group()
pair = [multiprocessing.get_context("fork").Process(target=work, args=[rank]) for rank in range(2)]
for each in pair:
    each.start()
for each in pair:
    each.join()
status = max(abs(each.exitcode) for each in pair)
"""
CLUSTER = """
from trainer.on_ray.session import ENVIRONMENT
os.environ.update(ENVIRONMENT)
from ray.cluster_utils import Cluster
node = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}
ray_cluster = Cluster(initialize_head=True, head_node_args=node)
os.environ["RAY_ADDRESS"] = ray_cluster.address
"""


def copied(out: Path, programs: tuple[str, ...] = PROGRAMS) -> Path:
    for program in programs:
        shutil.copytree(ROOT / program, out / program, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    return out


def add(house: Path, folder: str, name: str, text: str) -> None:
    """Write a file, and its name into its folder's list."""
    (house / folder / f"{name}.py").write_text(text)
    listed = house / folder / "__init__.py"
    before, begin, rest = listed.read_text().partition("NAMES = (\n")
    listed.write_text(before + begin + rest.replace("\n)", f'\n    "{name}",\n)', 1))


def places_touched(house: Path) -> tuple[list[str], list[str]]:
    """Files that the copy has and the original lacks; lines by which files of both differ."""
    names = [path.relative_to(house).as_posix() for path in sorted(house.rglob("*.py"))]
    added = [name for name in names if not (ROOT / name).exists()]
    changed = []
    for name in set(names) - set(added):
        before, after = ((place / name).read_text().splitlines() for place in (ROOT, house))
        changed += [f"{name}: {line}" for line in difflib.ndiff(before, after) if line[0] in "+-"]
    return added, changed


def environment(house: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(house), "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class House:
    """A copy of the programs with both toys, and a process in it that runs commands one after the other."""

    folder: Path
    process: subprocess.Popen[str]
    log: Path
    data: Path

    def begin(self, *words: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self.process.stdin.flush()

    def end(self, status: int = 0) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline() == f"{status}\n", self.log.read_text()[-4000:]

    def run(self, *words: object, status: int = 0) -> str:
        """What a command says, on either channel."""
        before = len(self.log.read_text())
        self.begin(*words)
        self.end(status)
        return self.log.read_text()[before:]

    def words(self, out: Path, *more: object) -> list[str]:
        """A short training run of the toy."""
        sizes = [word for name, value in SIZES.items() for word in (f"--{name}", value)]
        where = ["--data", self.data, "--out", out, "--cache", self.cache]
        how = ["--preset", "demo", "--precision", "float32", "--method", "toy", "--seed", 0]
        lengths = ["--final-images", 160, "--checkpoint-images", 64]
        return [str(word) for word in ("trainer", "train", *how, *where, *sizes, *lengths, *more)]

    def train(self, out: Path, *more: object) -> Path:
        self.run(*self.words(out, *more))
        return out

    @property
    def cache(self) -> Path:
        return self.data.parent / "cache"


@pytest.fixture(scope="module")
def house(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = copied(tmp_path_factory.mktemp("newcomer") / "house")
    add(folder, METHODS, "toy", METHOD)
    add(folder, TERMS, CONTRAST, (TOYS / "toy_term.py").read_text())
    log = folder.parent / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", SHELL],
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    watch = threading.Timer(900, process.kill)
    watch.start()
    made = House(folder, process, log, dataset)
    try:
        yield made
        made.run("exec", "if 'ray_cluster' in globals(): ray_cluster.shutdown()")
    finally:
        watch.cancel()
        left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.communicate(timeout=60)
        for each in left:
            if each.is_running():
                each.kill()


@pytest.fixture(scope="module")
def toy(house: House) -> Path:
    return house.train(house.folder.parent / "toy")


def sweep_words(house: House, out: Path, workers: int) -> list[str]:
    growth = {"width": 8, "fade-images": 32, "stable-images": 32, "final-images": 64, "minibatch.4": 16}
    options = [f"{name}={value}" for name, value in {**SIZES, **growth, "precision": "float32"}.items()]
    where = ["--data", house.data, "--out", out, "--cache", house.cache]
    what = ["--method", "proposed,toy", "--gamma", 0, "--seed", 0, "--workers", workers, "--preset", "demo"]
    return [str(word) for word in [*where, *what, "--set", *options]]


@pytest.fixture(scope="module")
def swept(house: House) -> Path:
    """A sweep over the toy and the method, as Ray Tune drives it, but one run after the other in one process."""
    out = house.folder.parent / "sweep"
    house.run("exec", SWEEP, *sweep_words(house, out, 1))
    return out


@pytest.fixture(scope="module")
def on_ray(house: House) -> None:
    """What comes after it runs on a Ray cluster of its own."""
    house.run("exec", CLUSTER)


def test_a_method_and_a_term_are_one_file_and_one_line_each(tmp_path: Path) -> None:
    for folder, name in ((METHODS, "toy"), (TERMS, CONTRAST)):
        changed = copied(tmp_path / name)
        add(changed, folder, name, "")
        files, texts = places_touched(changed)
        print(f"{name}: {len(files)} file(s) added, {len(texts)} line(s) added to others: {files} {texts}")
        assert files == [f"{folder}/{name}.py"] and texts == [f'{folder}/__init__.py: +     "{name}",']


def test_its_options_are_on_the_command_line(house: House) -> None:
    said_by_help = house.run("trainer", "train", "--method", "toy", "--help")
    assert all(
        word in said_by_help
        for word in ("--toy.hidden", "Size of the code that an image is compressed to", "two layers")
    )


def test_it_trains(toy: Path) -> None:
    assert sorted(path.name for path in (toy / "checkpoints").iterdir()) == [
        f"images-{count:09d}" for count in (64, 128, 160)
    ]
    losses = [line["autoencoder/loss"] for line in lines(toy) if "autoencoder/loss" in line]
    assert losses[-1] < losses[0]
    validated = [line for line in lines(toy) if f"validation/{OWN}" in line]
    assert len(validated) == 3 and all(f"validation/{CONTRAST}" in line for line in validated)
    assert not any(name.startswith("validation/a_") for line in validated for name in line)
    assert json.loads((toy / "best.json").read_text()).keys() == {"checkpoint", OWN}
    kinds = {path.stem.partition("-")[2] for path in (toy / "pictures").iterdir()}
    assert kinds == {"real", "reconstructed"}
    assert "autoencoder" in (toy / "log.txt").read_text() and "warning" not in (toy / "log.txt").read_text()


def test_it_was_killed_and_ends_in_the_same_bits(house: House, toy: Path, tmp_path: Path) -> None:
    again = cut_back(toy, 64, tmp_path / "again")
    (again / "finished.json").unlink()
    house.train(again)
    assert bits(again) == bits(toy) and said(again) == said(toy)


def check_same(one: Path, two: Path) -> None:
    """Two workers saw what one did, and end where it does but for the order of sums."""
    assert "2 worker(s)" in (two / "log.txt").read_text()
    seen = [[line["fingerprint"] for line in lines(run) if "fingerprint" in line] for run in (one, two)]
    assert seen[0] == seen[1]
    ends = [load_file(run / "checkpoints/images-000000160/autoencoder.safetensors") for run in (one, two)]
    assert all(np.allclose(ends[0][name], ends[1][name], rtol=1e-3, atol=1e-5) for name in ends[0])


@pytest.mark.parametrize(
    "optimiser", ["SGD(self.trained, lr=0.01)", "RMSprop(self.trained, momentum=0.9)", "RAdam(self.trained)"]
)
def test_an_optimiser_that_would_not_come_back_is_one_line(optimiser: str, house: House, tmp_path: Path) -> None:
    other = copied(tmp_path / "house")
    ours = "SGD(self.trained, lr=phase.learning_rate, momentum=0.9)"
    add(other, METHODS, "toy", METHOD.replace(ours, optimiser))
    command = [sys.executable, "-m", *house.words(tmp_path / "run")]
    done = subprocess.run(command, cwd=other, env=environment(other), capture_output=True, text=True)
    said = f"optimiser sgd, {optimiser.partition('(')[0]}: its state of autoencoder.down.weight"
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))


def test_two_workers_compute_what_one_does(house: House, toy: Path) -> None:
    """As Ray's workers do, in two processes that are there at once; see also `test_two_ray_workers`."""
    run = toy.parent / "two"
    house.run("exec", PAIR, toy, run)
    check_same(toy, run)


def test_it_is_evaluated_audited_and_scores(house: House, toy: Path) -> None:
    table = house.run("trainer", "evaluate", toy, "--cache", house.cache)
    assert OWN in table and "the greatest difference of a pixel" in table
    found = json.loads((toy / "evaluation" / "summary.json").read_text())
    assert list(found)[3:] == ["fused", OWN, "L_n", "L_c", "L_r", "L_i", CONTRAST]
    page = (toy / "evaluation" / "index.html").read_text()
    assert OWN in page and CONTRAST in page and "lambda" not in page and "generated" not in page.partition("Real")[0]
    assert {OWN, CONTRAST} <= read_csv(toy / "evaluation" / "scores.csv")[0].keys()
    house.run("trainer", "audit", toy, "--cache", house.cache)
    assert list(read_csv(toy / "audit" / "audit.csv")[0])[3 : 5 + len(JOINED)] == ["fused", "p_value", *JOINED]
    assert OWN in (toy / "audit" / "index.html").read_text()
    out, maps = toy.parent / "scores.csv", toy.parent / "maps"
    house.run("trainer", "score", toy, toy / "pictures", "--out", out, "--heatmaps", maps, "--cache", house.cache)
    assert list(read_csv(out)[0]) == ["image", "fused", "p_value", *JOINED] and len(list(maps.iterdir())) == 4
    refused = house.run("trainer", "score", toy, toy / "pictures", "--by", "a", status=2)
    assert "--by a" in refused and OWN in refused and refused.count("\n") == 1


@pytest.mark.slow
def test_it_is_exported_and_scores_there(house: House, toy: Path) -> None:
    out = toy.parent / "exported"
    house.run("trainer", "export", toy, "--out", out, "--format", "onnx", "--cache", house.cache)
    assert list(json.loads((out / "detector.json").read_text())["terms"]) == JOINED
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8), np.uint8)
    np.save(out.parent / "images.npy", images)
    words = [sys.executable, out / "score.py", out.parent / "images.npy", "--out", out.parent / "there.csv"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=out)
    assert done.returncode == 0, done.stderr
    found = read_csv(out.parent / "there.csv")
    assert list(found[0])[-len(JOINED) :] == JOINED
    low, high, *_ = json.loads(Path(newest_checkpoint(toy), "checkpoint.json").read_text())["contrast"]
    contrast = (images * (2 / (high - low))).reshape(5, -1).std(axis=1, ddof=1)
    np.testing.assert_allclose([float(row[CONTRAST]) for row in found], contrast, rtol=1e-5)


@pytest.mark.slow
def test_it_is_in_the_tables_of_a_sweep(swept: Path) -> None:
    rows = read_csv(swept / "table.csv")
    scores = {method: {row["score"] for row in rows if row["method"] == method} for method in ("proposed", "toy")}
    assert scores["toy"] == {*JOINED, "L_r", "fused"}
    assert CONTRAST in scores["proposed"] and OWN not in scores["proposed"] and "a" in scores["proposed"]
    assert {row["method"] for row in read_csv(swept / "choice.csv")} == {"proposed"}


@pytest.mark.slow
def test_it_is_in_the_tables_and_figures_of_a_report(house: House, swept: Path) -> None:
    out = swept.parent / "report"
    house.run("tuning", "report", swept, "--out", out, "--cache", house.cache)
    (prefix,) = {path.name.removesuffix("-table-2.csv") for path in out.glob("*-table-2.csv")}
    table = {(row["method"], row["score"]) for row in read_csv(out / f"{prefix}-table-2.csv")}
    assert {("toy", OWN), ("toy", "L_n"), ("toy", CONTRAST), ("toy", "fused"), ("proposed", CONTRAST)} <= table
    assert ("toy", "a") not in table and ("proposed", OWN) not in table
    assert CONTRAST in {row["score"] for row in read_csv(out / f"{prefix}-terms.csv")}
    assert f"toy: {OWN}" in {row["curve"] for row in read_csv(out / f"{prefix}-roc.csv")}
    assert ("toy", OWN) in {(row["method"], row["score"]) for row in read_csv(out / "trials.csv")}
    figures = {path.name.removeprefix(f"{prefix}-").partition(".")[0] for path in (out / "figures").iterdir()}
    assert {"terms", "roc", "matches", "extremes", "scores", "lambda"} <= figures
    assert "Left out" not in (out / "index.html").read_text()


@pytest.mark.slow
def test_the_term_is_in_every_table_of_another_method(house: House, swept: Path) -> None:
    run, out = swept / "trials" / "proposed_gamma-0_seed-0" / "run", swept.parent
    house.run("trainer", "evaluate", run, "--cache", house.cache)
    house.run("trainer", "audit", run, "--cache", house.cache)
    house.run("trainer", "score", run, run / "pictures", "--out", out / "theirs.csv", "--cache", house.cache)
    house.run("trainer", "export", run, "--out", out / "theirs", "--format", "torch", "--cache", house.cache)
    for table in (run / "evaluation" / "scores.csv", run / "audit" / "audit.csv", out / "theirs.csv"):
        assert CONTRAST in read_csv(table)[0] and OWN not in read_csv(table)[0], table
    assert CONTRAST in json.loads((out / "theirs" / "detector.json").read_text())["terms"]


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_it_is_served(house: House, toy: Path) -> None:
    """Answers are what `score` says."""
    out, (port,) = toy.parent / "asked.csv", free_ports(1)
    house.run("trainer", "score", toy, toy / "pictures", "--out", out, "--cache", house.cache)
    house.begin("cluster", "serve", "--run", toy, "--port", port)
    deadline = time.monotonic() + 180
    while f"serving {toy}" not in house.log.read_text():
        assert house.process.poll() is None and time.monotonic() < deadline, house.log.read_text()[-4000:]
        time.sleep(0.2)
    try:
        for row in read_csv(out):
            body, kind = Path(row["image"]).read_bytes(), {"Content-Type": "image/png"}
            url = f"http://127.0.0.1:{port}/score?heatmap=true"
            (found,) = requests.post(url, data=body, headers=kind, timeout=60).json()["images"]
            assert found["terms"] == pytest.approx({name: float(row[name]) for name in JOINED}, rel=1e-4)
            assert found["score"] == pytest.approx(float(row["fused"]), rel=1e-6) and found["heatmap"]
    finally:
        house.process.send_signal(signal.SIGTERM)
        house.end()


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_two_ray_workers_compute_what_one_does(house: House, toy: Path) -> None:
    check_same(toy, house.train(toy.parent / "two-on-ray", "--workers", 2))


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_ray_tune_sweeps_it(house: House, swept: Path, tmp_path: Path) -> None:
    house.run("tuning", "sweep", *sweep_words(house, tmp_path / "sweep", 2))
    here, there = (
        {(row["method"], row["score"], row["lambda"]) for row in read_csv(out / "table.csv")}
        for out in (swept, tmp_path / "sweep")
    )
    assert here == there


@pytest.mark.parametrize(
    ("program", "text", "words"),
    [
        ("trainer", METHOD.replace("def schedule(", "def shedule("), ("trainer/methods/toy.py", "Toy.shedule")),
        ("cluster", METHOD.replace("def step(", "def _step("), ("trainer/methods/toy.py", "has no `step`")),
    ],
)
def test_what_is_half_added_is_one_line(program: str, text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    house = copied(tmp_path / "house")
    add(house, METHODS, "toy", text)
    needed = {
        "trainer": ["train", "--preset", "demo"],
        "cluster": ["score", "--run", "x", "--images", "x", "--out", "x"],
    }
    command = [sys.executable, "-m", program, *needed[program]]
    done = subprocess.run(command, cwd=house, env=environment(house), capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
