"""A Ray cluster on this machine, from up to down: jobs, TensorBoard, scoring and serving, and what is left of it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet
import pytest
import requests
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cluster.arguments import check_arguments
from cluster.package import package
from cluster.ports import free_ports
from data_tools.storage import open_storage, read_bytes
from data_tools.storage.s3_settings import CONFIG, KEYS
from tests.support.answering import ACCESS, EMPTY, SECRET, credential, serving
from tests.support.checks import refuses
from tests.support.runs import TINY
from trainer.run.monitor import PAGES

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "cluster"]
LONGER = ["--final-images", "16000", "--checkpoint-images", "2000", "--log-images", "400", "--pictures", "1"]


@dataclass(frozen=True)
class Up:
    """A cluster that is up: its folder, state.json, and the environment of those who use it."""

    folder: Path
    state: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **self.state["environment"],
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def call(self, name: str, *words: str, after: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        whole = [*CLI, name, "--folder", str(self.folder), *words, *(["--", *after] if after else [])]
        return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, timeout=300)

    def submit(self, *after: str, words: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return self.call("submit", *words, after=after)


def processes(state: dict[str, Any]) -> list[psutil.Process]:
    holder = psutil.Process(state["pid"])
    return [holder, *holder.children(recursive=True)]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("local") / "cluster"
    words = [*CLI, "up", "--folder", str(folder), "--nodes", "2", "--cpus", "2", "--object-store", "80"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    state = json.loads((folder / "state.json").read_text())
    before = processes(state)
    yield Up(folder, state)
    before += [process for process in processes(state) if process not in before]
    done = subprocess.run(
        [*CLI, "down", "--folder", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "is down" in done.stdout, done.stderr
    _, alive = psutil.wait_procs(before, timeout=20)
    assert not alive
    for address in (state["dashboard"], state["tensorboard"]):
        with pytest.raises(requests.ConnectionError):
            requests.get(address, timeout=5)
    assert not (folder / "state.json").exists() and not (folder / "ray").is_symlink()


@pytest.fixture
def s3(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process uses the cluster's store."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in up.state["environment"].items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
def test_up_again_finds_it_and_a_second_holder_is_refused(up: Up) -> None:
    again = up.call("up")
    assert again.returncode == 0 and up.state["dashboard"] in again.stdout
    assert json.loads((up.folder / "state.json").read_text()) == up.state
    second = up.call("up", "--foreground")
    assert second.returncode == 2 and "runs there" in second.stderr and second.stderr.count("\n") == 1
    status = up.call("status")
    assert status.returncode == 0 and "2 nodes" in status.stdout and up.state["tensorboard"] in status.stdout


@pytest.mark.slow
def test_everything_listens_on_loopback_alone_and_keys_are_in_files_of_ours_alone(up: Up) -> None:
    addresses = set()
    for process in processes(up.state):
        addresses |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert addresses and addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    token = (up.folder / "token").read_text()
    assert (up.folder / "token").stat().st_mode & 0o777 == 0o600
    assert not any(token in " ".join(process.cmdline()) for process in processes(up.state))
    assert token not in (up.folder / "state.json").read_text() + (up.folder / "environment.sh").read_text()


@pytest.mark.slow
def test_a_wrong_token_and_no_cluster_are_one_line(up: Up, tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "wrong"}
    for words, said in (
        (["status", "--address", up.state["dashboard"]], "refuses our token"),
        (["submit", "--address", up.state["dashboard"], "--", "true"], "refuses our token"),
        (["status", "--address", f"http://127.0.0.1:{free_ports(1)[0]}"], "no Ray cluster answers"),
        (["submit", "--folder", str(tmp_path), "--", "true"], "no cluster"),
    ):
        done = subprocess.run([*CLI, *words], cwd=ROOT, capture_output=True, text=True, env=environment, timeout=60)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert requests.get(f"{up.state['dashboard']}/api/jobs/", timeout=30).status_code == 401


@pytest.mark.slow
def test_a_name_that_is_taken_is_called_that(up: Up) -> None:
    assert up.submit("true", words=("--name", "taken")).returncode == 0
    again = up.submit("true", words=("--name", "taken"))
    assert again.returncode == 2 and again.stderr.count("\n") == 1, again.stderr
    assert "--name taken: the name is taken" in again.stderr and "no Ray cluster answers" not in again.stderr


@pytest.mark.slow
def test_a_job_asks_the_store_of_the_files_of_who_sends_it(up: Up, tmp_path: Path) -> None:
    """Though the cluster's nodes have variables and keys for another."""
    ask = "from data_tools.storage import open_storage; print('found', open_storage('s3://bucket/data').names())"
    kept = {name: value for name, value in up.environment.items() if not name.startswith("AWS_")}
    with serving(lambda *_: EMPTY) as made:
        (tmp_path / ".aws").mkdir()
        place = f"region = eu-central-1\nendpoint_url = {made.endpoint}\n"
        (tmp_path / ".aws/config").write_text(f"[default]\n{place}")
        (tmp_path / ".aws/credentials").write_text(
            f"[default]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n"
        )
        elsewhere = up.state["dashboard"].replace("127.0.0.1", "localhost")  # not known as this machine's own
        words = ["submit", "--address", elsewhere, "--", "python", "-c", ask]
        done = subprocess.run(
            [*CLI, *words], cwd=ROOT, env=kept | {"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0 and "found []" in done.stdout, done.stdout + done.stderr
    assert ACCESS not in done.stdout and "means this machine" in done.stderr
    assert {credential(headers) for _, _, headers in made.asked} == {(ACCESS, "eu-central-1")}


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
def test_a_job_is_followed_and_its_curves_are_read_from_the_store(up: Up, dataset: Path) -> None:
    out = f"{up.state['store']}/runs/first"
    places = ["--data", str(dataset), "--out", out, "--cache", str(dataset.parent / "cache"), "--workers", "2"]
    done = up.submit("python", "-m", "trainer", "train", *places, *TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"finished: {out}" in done.stdout and "MB of code" in done.stdout
    curves = EventAccumulator(f"{out}/events").Reload()
    metrics = [json.loads(line) for line in read_bytes(open_storage(out), "metrics.jsonl").splitlines()]
    found = [(event.step, event.value) for event in curves.Scalars("critic/wasserstein")]
    expected = [(line["images_seen"], line["critic/wasserstein"]) for line in metrics if "critic/wasserstein" in line]
    assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected] and len(found) > 2
    wait_until(lambda: "first/events" in requests.get(f"{up.state['tensorboard']}/data/runs", timeout=10).json())
    wait_until(lambda: [page["title"] for page in layout(up)["category"]] == list(PAGES))
    failed = up.submit("python", "-m", "trainer", "train", "--data", f"{up.state['store']}/none", *places[2:], *TINY)
    assert failed.returncode == 2 and "runs/first" in failed.stdout + failed.stderr


def layout(up: Up) -> dict[str, Any]:
    return requests.get(f"{up.state['tensorboard']}/data/plugin/custom_scalars/layout", timeout=10).json()


def wait_until(ready: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
        except (requests.RequestException, KeyError, IndexError, ValueError):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
def test_scored_and_served_by_jobs(up: Up, run: Path, dataset: Path) -> None:
    out = f"{up.state['store']}/scores"
    done = up.submit("python", "-m", "cluster", "score", "--run", str(run), "--images", str(dataset), "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    storage = open_storage(out)
    keys = []
    for name in storage.names():
        if name.endswith(".parquet"):
            keys += pyarrow.parquet.read_table(io.BytesIO(read_bytes(storage, name)))["key"].to_pylist()
    counts = json.loads((dataset / "manifest.json").read_text())["pools"]
    assert len(keys) == len(set(keys)) == sum(counts.values())
    (port,) = free_ports(1)
    words = ("--name", "service", "--detach")
    assert (
        up.submit("python", "-m", "cluster", "serve", "--run", str(run), "--port", str(port), words=words).returncode
        == 0
    )
    wait_until(lambda: requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok, 120)
    assert requests.post(f"http://127.0.0.1:{port}/score", data=b"", timeout=30).status_code == 415
    assert ray(up, "job", "stop", "service").returncode == 0


def ray(up: Up, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ray", *words], env=up.environment, capture_output=True, text=True, timeout=300, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
def test_a_job_that_is_stopped_goes_on_when_it_is_sent_again(up: Up, dataset: Path) -> None:
    out = f"{up.state['store']}/runs/stopped"
    places = ["--data", str(dataset), "--out", out, "--cache", str(dataset.parent / "cache"), "--workers", "1"]
    words = ["python", "-m", "trainer", "train", *places, *TINY, *LONGER]
    assert up.submit(*words, words=("--name", "victim", "--detach")).returncode == 0
    storage = open_storage(out)
    wait_until(lambda: any(name.startswith("checkpoints/images-") for name, _ in storage.tree()), 120)
    assert ray(up, "job", "stop", "victim").returncode == 0
    assert "STOPPED" in up.call("status").stdout
    again = up.submit(*words)
    assert again.returncode == 0 and f"finished: {out}" in again.stdout, again.stdout
    began = [line for line in again.stdout.splitlines() if "worker(s), from " in line]
    assert began and not began[0].endswith("from 0 images")


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
def test_ray_job_submit_does_it_too(up: Up) -> None:
    done = ray(up, "job", "submit", "--working-dir", ".", "--", "python", "-m", "data_tools", "--help")
    assert done.returncode == 0 and "usage: python -m data_tools" in done.stdout


@pytest.mark.slow
def test_a_part_that_ends_takes_the_rest_down_and_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    words = [*CLI, "up", "--folder", str(folder), "--cpus", "1", "--object-store", "80"]
    assert subprocess.run(words, cwd=ROOT, capture_output=True, timeout=240).returncode == 0
    everything = processes(json.loads((folder / "state.json").read_text()))
    (board,) = (process for process in everything if any(word.endswith("tensorboard") for word in process.cmdline()))
    board.kill()
    _, alive = psutil.wait_procs(everything, timeout=60)
    assert not alive and "tensorboard.log" in (folder / "cluster.log").read_text()


@pytest.mark.slow
def test_a_holder_that_is_killed_takes_everything_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    words = [*CLI, "up", "--folder", str(folder), "--cpus", "1", "--object-store", "80"]
    assert subprocess.run(words, cwd=ROOT, capture_output=True, timeout=240).returncode == 0
    state = json.loads((folder / "state.json").read_text())
    before = processes(state)
    os.kill(state["pid"], signal.SIGKILL)
    _, alive = psutil.wait_procs(before, timeout=90)  # Ray's agents look for their node now and then
    assert not alive
    down = subprocess.run([*CLI, "down", "--folder", str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert down.returncode == 0 and "no cluster runs" in down.stdout
    left = (folder / "ray").readlink()
    assert left.is_dir()
    assert subprocess.run(words, cwd=ROOT, capture_output=True, timeout=240).returncode == 0
    assert not left.exists()
    subprocess.run([*CLI, "down", "--folder", str(folder)], cwd=ROOT, check=True, timeout=120)
    assert not (folder / "ray").is_symlink()


def test_a_folder_that_only_this_machine_knows_is_refused() -> None:
    refuses(lambda: check_arguments([]), "no command")
    refuses(lambda: check_arguments(["python", "--data", "data/mine"]), "--data data/mine")
    refuses(lambda: check_arguments(["python", "--out=runs/a"]), "--out runs/a")
    check_arguments(["python", "--data", "s3://b/c", "--out", "/shared/runs", "--lr", "0.1"])


def test_a_package_has_our_code_and_hides_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (("ACCESS_KEY_ID", "AKIAEXAMPLE"), ("SECRET_ACCESS_KEY", "hidden-away")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with package(with_storage=True) as ours:
        names = {path.relative_to(ours.folder).as_posix() for path in ours.folder.rglob("*") if path.is_file()}
        assert {"trainer/__main__.py", "cluster/serve.py", "tuning/report/page.html", KEYS} <= names
        assert not any("__pycache__" in name or name.startswith("tests") for name in names) and ours.size < 3e6
        assert (
            "hidden-away" in (ours.folder / KEYS).read_text() and (ours.folder / KEYS).stat().st_mode & 0o777 == 0o600
        )
        for name, value in (("ENDPOINT_URL_S3", "http://127.0.0.1:9"), ("SHARED_CREDENTIALS_FILE", KEYS)):
            assert ours.environment[f"AWS_{name}"] == value
        assert "hidden-away" not in str(ours.environment) and ours.environment["AWS_ACCESS_KEY_ID"] == ""
        assert (ours.folder / CONFIG).exists()
    with package(with_storage=False) as ours:
        assert not (ours.folder / KEYS).exists() and ours.environment == {}
