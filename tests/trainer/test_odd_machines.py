"""Ray and the machine around it: what is not there, full or someone else's, and what is left of a command that ends."""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from cluster.ports import free_ports
from data_tools.errors import UserError
from tests.support.checks import refuses
from tests.support.runs import TINY, bits, words_of
from trainer.__main__ import main as trainer
from trainer.on_ray import address, own_node
from trainer.on_ray.address import check_cluster, cluster_address, refused
from trainer.on_ray.own_node import LOCK, PREFIX, short_folder, temporary_folder
from trainer.on_ray.session import ray_session
from trainer.private import keep_rendezvous_to_its_address

ROOT = Path(__file__).parents[2]
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
LONG = [*TINY, "--final-images", "200000", "--checkpoint-images", "1000000", "--pictures", "1", "--workers", "2"]
LONG += ["--log-images", "1000"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        pytest.param("http://127.0.0.1:8265", "HOST:6379", id="ray_http"),
        ("https://ray.example.com", "cluster submit"),
        ("ray://127.0.0.1:10001", "cluster submit"),
        ("tcp://127.0.0.1:6379", "is not an address"),
        ("127.0.0.1", "is not an address"),
        ("127.0.0.1:", "is not an address"),
        ("127.0.0.1:six", "is not an address"),
        ("127.0.0.1:80", "is not an address"),
        ("127.0.0.1:70000", "is not an address"),
        ("a b:6379", "is not an address"),
        ("user@host:6379", "is not an address"),
        ("::1:6379", "is not an address"),
        ("127.0.0.1:6379\n", ""),
    ],
)
def test_an_address_that_is_none_is_one_line(value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    if words:
        refuses(cluster_address, "RAY_ADDRESS=", value.split()[0], words)
    else:
        assert cluster_address() == value.strip()


@pytest.mark.parametrize(
    ("value", "meant"), [("", ""), ("local", ""), ("auto", "auto"), ("head:6379", "head:6379"), ("[::1]:6379",) * 2]
)
def test_addresses_that_are_some(value: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    assert cluster_address() == meant


@pytest.mark.parametrize(
    "value", ["127.0.0.1:PORT", "host.invalid:6379", "a..b:6379"], ids=["ray_nobody", "no such host", "no name"]
)
def test_a_cluster_that_is_not_there_is_said_soon(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "STARTING", 1.0)
    begun = time.monotonic()
    refuses(lambda: check_cluster(value.replace("PORT", str(free_ports(1)[0]))), "nothing listens there")
    assert time.monotonic() - begun < 15


def test_a_refused_training_leaves_no_folder(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    out = tmp_path / "run"
    refuses(lambda: trainer([*words_of(dataset, out, tmp_path / "cache"), "--workers", "1"]), "HOST:6379")
    assert not out.exists()


VERSIONS = """Version mismatch: The cluster was started with:
    Ray: 2.59.0
    Python: 3.12.1
This process on node 10.0.0.1 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (VERSIONS, "has Ray 2.59.0 with Python 3.12.1, here is Ray 2.60.0 with Python 3.11.7"),
        ("Unauthenticated: WRONG_CLUSTER", "refuses our token"),
        ("InvalidAuthToken: no such", "refuses our token"),
        ("RPC error: Received http2 header with status: 404", "status: 404"),
    ],
)
def test_why_a_cluster_is_not_joined(reason: str, words: str) -> None:
    def fail() -> None:
        raise refused("head:6379", reason)

    refuses(fail, "RAY_ADDRESS=head:6379", words)


@pytest.mark.slow
def test_somebody_else_who_listens_there_is_no_cluster(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    words = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    server = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL)
    code = f"from trainer.on_ray.address import check_cluster; check_cluster('127.0.0.1:{port}')"
    try:
        environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=75
        )
    finally:
        server.kill()
        server.wait()
    assert "no Ray cluster answers there" in done.stderr.splitlines()[-1] or "nobody listens" in done.stderr


@pytest.mark.slow
def test_a_cluster_takes_its_own_token_alone(short: Path) -> None:
    gcs, client = free_ports(2)
    ours = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(short)}
    own = {**os.environ, **ours, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 40}
    places = [f"--port={gcs}", "--node-ip-address=127.0.0.1", f"--temp-dir={short}/ray", "--include-dashboard=false"]
    sizes = ["--num-cpus=1", "--object-store-memory=80000000", f"--ray-client-server-port={client}"]
    ports = ["--min-worker-port=0", "--max-worker-port=0"]
    words = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", *places, *sizes, *ports]
    head = subprocess.Popen(words, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    code = f"from trainer.on_ray.address import check_cluster; check_cluster('127.0.0.1:{gcs}')"

    def said(changed: Mapping[str, str | None]) -> str:
        environment = {name: value for name, value in {**own, **changed}.items() if value is not None}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90
        )
        return done.stderr.strip().splitlines()[-1] if done.returncode else ""

    try:
        assert said({}) == ""
        for wrong in (
            {"RAY_AUTH_TOKEN": "1" * 40},
            {"RAY_AUTH_TOKEN": None},
            dict.fromkeys(own.keys() & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}),
        ):
            assert "the cluster refuses our token - set RAY_AUTH_MODE" in said(wrong), wrong
    finally:
        head.terminate()
        head.wait(30)


# ---- the folder that Ray needs, and open files ----


@pytest.fixture
def short() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def full(short: Path) -> Iterator[Path]:
    """A folder with a file system of its own, of which nothing is free."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(short)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    (short / "x").write_bytes(bytes(3_000_000))
    yield short
    subprocess.run(["umount", str(short)], check=True)


def test_full_tmp(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(full))
    refuses(temporary_folder, f"TMPDIR={full}: is full", "set TMPDIR to another folder")


def test_long_tmp_and_a_missing_one(tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(short))
    assert temporary_folder() == str(short)
    long = tmp_path / ("x" * 110)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    assert temporary_folder() == "/tmp", "its path has room for Ray's sockets"
    monkeypatch.setenv("TMPDIR", str(short / "none"))
    refuses(temporary_folder, "is not a folder", "make it")
    (short / "file").touch()
    monkeypatch.setenv("TMPDIR", str(short / "file"))
    refuses(temporary_folder, "is not a folder")
    monkeypatch.setenv("TMPDIR", str(short))
    monkeypatch.setattr(own_node, "_free_bytes", lambda place: 0 if place == "/dev/shm" else own_node.NOTES)
    refuses(temporary_folder, "is full", "/dev/shm has less than 100 MB")


def test_sockets_fit_into_the_longest_folder_that_is_taken() -> None:
    longest = own_node.LONGEST - len(own_node.SOCKET)
    assert len("/tmp") <= longest < 30


def test_folders_of_the_dead_go_and_those_of_the_living_stay(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(short))
    dead, living, foreign = (short / f"{PREFIX}{name}" for name in ("dead", "living", "foreign"))
    for folder in (dead, living, foreign):
        folder.mkdir()
    (dead / LOCK).touch()
    (short / "elsewhere").mkdir()
    (short / "elsewhere" / LOCK).touch()
    (short / f"{PREFIX}link").symlink_to(short / "elsewhere")
    with FileLock(living / LOCK):
        with short_folder() as ours:
            assert ours.parent == short and ours.stat().st_mode & 0o777 == 0o700
            assert not dead.exists() and living.exists() and foreign.exists() and (short / "elsewhere").exists()
        assert not ours.exists()
    with pytest.raises(UserError), short_folder() as ours:
        raise UserError("kept, to be read - look into it")
    assert ours.exists()


def test_few_open_files_are_raised_or_said() -> None:
    code = "from trainer.on_ray.own_node import check_open_files as c; import resource as r; c(); print(r.getrlimit(7))"

    def run(soft: int, hard: int) -> subprocess.CompletedProcess[str]:
        limits = (resource.RLIMIT_NOFILE, (soft, hard))
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(*limits),
        )

    assert run(64, 1024).stdout.strip() == "(1024, 1024)"
    assert "the limit is 64, Ray needs 256 - raise it with ulimit -n" in run(64, 64).stderr


# ---- who listens where ----


def listening(processes: list[psutil.Process]) -> dict[int, str]:
    """The addresses that processes listen at, by port."""
    found = {}
    for process in processes:
        try:
            connections = process.net_connections("inet")
        except psutil.Error:  # it has ended meanwhile
            continue
        found |= {c.laddr.port: c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    return found


def test_the_rendezvous_listens_at_its_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = importlib.import_module("torch.distributed.rendezvous")
    monkeypatch.setattr(module, "TCPStore", module.TCPStore)
    keep_rendezvous_to_its_address()
    (port,) = free_ports(1)
    store = module._create_c10d_store("127.0.0.1", port, 0, 1, timedelta(seconds=20))
    store.set("a", "b")
    other = module._create_c10d_store("127.0.0.1", port, 1, 2, timedelta(seconds=20))
    assert other.get("a") == b"b"
    assert listening([psutil.Process()])[port] in LOOPBACK


@pytest.mark.slow
def test_ray_that_is_started_here_keeps_to_loopback_and_ends_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with pytest.raises(SystemExit) as ended, ray_session(1):
        started = [each for each in psutil.Process().children(recursive=True) if each.pid not in before]
        found = listening(started)
        assert found and set(found.values()) <= LOOPBACK
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143
    assert not psutil.wait_procs(started, timeout=20)[1]
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ


# ---- ends ----


class Command:
    """A command of ours in a process of its own, all of whose descendants are known by a mark in their environment."""

    def __init__(self, words: list[str], folder: Path, temporary: Path) -> None:
        self.mark, self.log = uuid.uuid4().hex, folder / "log"
        environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_TMPDIR")}
        environment |= {"STRATAGAN_MARK": self.mark, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=folder, env=environment, stdout=output, stderr=output
            )

    def wait_for(self, words: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while words not in (said := self.log.read_text()):
            assert self.process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.1)

    def family(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("STRATAGAN_MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:  # another user's, or gone
                pass
        return found

    def left_after(self, seconds: float) -> list[str]:
        """What still runs then."""
        deadline = time.monotonic() + seconds
        while (family := self.family()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [str(process) for process in family if process.is_running()]


@pytest.mark.slow
def test_sigterm_on_ray_is_answered_by_a_checkpoint_and_the_same_command_goes_on(
    dataset: Path, tmp_path: Path, short: Path
) -> None:
    places = ["--data", str(dataset), "--cache", str(tmp_path / "cache")]
    words = ["trainer", "train", *places, *LONG, "--final-images", "8000"]
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = Command([*words, "--out", str(tmp_path / "whole/run")], tmp_path / "whole", short)
    assert whole.process.wait(300) == 0, whole.log.read_text()
    cut = Command([*words, "--out", str(tmp_path / "cut/run")], tmp_path / "cut", short)
    cut.wait_for("8x8 stable")
    addresses = set(listening(cut.family()).values())
    assert addresses and addresses <= LOOPBACK
    cut.process.send_signal(signal.SIGTERM)
    assert cut.process.wait(60) == 143
    assert "the same command goes on from here" in cut.log.read_text() and "Traceback" not in cut.log.read_text()
    assert len(list((tmp_path / "cut/run/checkpoints").iterdir())) > 2
    assert not cut.left_after(20) and not list(short.glob(f"{PREFIX}*"))
    again = Command([*words, "--out", str(tmp_path / "cut/run")], tmp_path / "cut", short)
    assert again.process.wait(300) == 0, again.log.read_text()
    assert bits(tmp_path / "cut/run") == bits(tmp_path / "whole/run")


KILLED = {
    "train": ("trainer train --data DATA --out OUT --cache CACHE " + " ".join(LONG), "8x8 stable"),
    "sweep": (
        "tuning sweep --data DATA --out OUT --cache CACHE --gamma 0,0.1 --seed 0 --preset demo --set resolution=8"
        " width=8 fade-images=64 stable-images=64 final-images=200000 minibatch.4=16 minibatch.8=16 log-images=32",
        "8x8 stable",
    ),
    "score": ("cluster score --run RUN --images IMAGES --out OUT --by L_n", ""),
    "serve": ("cluster serve --run RUN --by L_n --port PORT", "serving"),
    "store": ("cluster store OUT -- sleep 1000", ""),
    "up": ("cluster up --foreground --folder OUT --nodes 1 --cpus 1 --object-store 80", ""),
    "baxter": ("data_tools baxter IMAGES --out OUT --resolution 32 --processes 2 --test-size 12 --rotations 300", ""),
}


def begun(name: str, folder: Path, temporary: Path, **places: Path) -> Command:
    """A command of KILLED that is in the midst of its work."""
    line, sign = KILLED[name]
    known = {key.upper(): value for key, value in places.items()} | {"OUT": folder / "out", "CACHE": folder / "cache"}
    words = [str(known.get(word, word)).replace("PORT", str(free_ports(1)[0])) for word in line.split()]
    command = Command(words, folder, temporary)
    if sign:
        command.wait_for(sign)
        return command
    deadline, many = time.monotonic() + 60, 8 if name in ("score", "up") else 3
    while len(command.family()) < many and time.monotonic() < deadline:
        time.sleep(0.1)
    assert command.process.poll() is None, command.log.read_text()
    return command


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_nothing_outlives_a_killed_command(
    name: str, dataset: Path, run: Path, videos: Path, tmp_path: Path, short: Path
) -> None:
    command = begun(name, tmp_path, short, data=dataset, run=run, images=videos)
    try:
        command.process.kill()
        command.process.wait()
        assert not command.left_after(20)
        left = {path.name for path in short.iterdir()}
        assert all(each.startswith((PREFIX, "pymp-")) for each in left), left  # the latter is multiprocessing's
    finally:
        for process in command.family():
            process.kill()


@pytest.mark.slow
def test_sigterm_ends_a_sweep_in_order(dataset: Path, run: Path, videos: Path, tmp_path: Path, short: Path) -> None:
    command = begun("sweep", tmp_path, short, data=dataset, run=run, images=videos)
    command.process.send_signal(signal.SIGTERM)
    assert command.process.wait(60) == 143
    said = command.log.read_text()
    assert said.rstrip().endswith("terminated") and "Traceback" not in said
    assert not command.left_after(20)
