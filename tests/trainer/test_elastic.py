"""Worker counts that change: a real Ray cluster of several nodes on this machine, one of which goes and comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import TINY
from trainer.on_ray.session import ENVIRONMENT
from trainer.on_ray.worker import VISITED_EVERY
from trainer.run.checkpoint import checkpoint_names

ROOT = Path(__file__).resolve().parents[2]
LONGER = [*TINY, "--final-images", "9600", "--log-images", "160", "--checkpoint-images", "640", "--pictures", "1"]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs, to which a test adds nodes."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    # a node that is gone is missed within seconds
    for name, value in (("initial_delay_ms", 1000), ("period_ms", 500), ("timeout_ms", 1000), ("failure_threshold", 4)):
        monkeypatch.setenv(f"RAY_health_check_{name}", str(value))
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 * 2**20})
    try:
        yield made
    finally:
        made.shutdown()


class Training:
    """A training in a process of its own, and what it says."""

    def __init__(self, cluster: Any, words: list[str]) -> None:
        environment = {**os.environ, "RAY_ADDRESS": cluster.address, "PYTHONPATH": str(ROOT)}
        environment[VISITED_EVERY[0]] = "2"  # a line of metrics each two seconds: time to take nodes away
        command = [sys.executable, "-m", "trainer", "train", *words]
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def wait_for(self, words: str, times: int = 1, seconds: float = 150) -> None:
        deadline = time.monotonic() + seconds
        while sum(words in line for line in self.lines) < times:
            assert self.process.poll() is None and time.monotonic() < deadline, (words, self.lines[-30:])
            time.sleep(0.05)


@pytest.fixture
def train(dataset: Path, run: Path) -> Iterator[Callable[..., Training]]:
    begun: list[Training] = []

    def begin(cluster: Any, out: Path, *words: str) -> Training:
        cache = str(run.parent / "cache")
        begun.append(Training(cluster, ["--data", str(dataset), "--out", str(out), "--cache", cache, *LONGER, *words]))
        return begun[-1]

    yield begin
    for training in begun:
        training.process.kill()


def shown(out: Path) -> dict[int, int]:
    """The fingerprints of what was shown, by count of images."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    counted = [(line["images_seen"], line["fingerprint"]) for line in lines if "fingerprint" in line]
    assert len(counted) == len({seen for seen, _ in counted})
    return dict(counted)


@pytest.mark.slow
def test_a_node_that_goes_and_comes_back_costs_no_image(
    cluster: Any, train: Callable[..., Training], tmp_path: Path
) -> None:
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster.add_node(**node)
    second = cluster.add_node(**node)
    cluster.wait_for_nodes()
    fixed = train(cluster, tmp_path / "fixed", "--workers", "2")
    assert fixed.process.wait(300) == 0, fixed.lines
    elastic = train(cluster, tmp_path / "elastic", "--workers", "1:2")
    elastic.wait_for("2 worker(s)")
    elastic.wait_for("8x8 stable", times=3)
    cluster.remove_node(second, allow_graceful=False)
    elastic.wait_for("1 worker(s)")
    cluster.add_node(**node)
    elastic.wait_for("2 worker(s)", times=2)
    assert elastic.process.wait(300) == 0, elastic.lines
    assert shown(tmp_path / "elastic") == shown(tmp_path / "fixed")
    print("\n".join(line for line in elastic.lines if "kimg" not in line))


@pytest.mark.slow
def test_a_node_that_announces_its_end_is_answered_by_a_checkpoint(
    cluster: Any, train: Callable[..., Training], tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    going = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    out = tmp_path / "run"
    training = train(cluster, out, "--workers", "1:2", "--checkpoint-images", "1000000", "--keep", "9")
    training.wait_for("8x8 stable", times=3)
    before = set(checkpoint_names(out))
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test"]
    words = ["--address", cluster.address, "--node-id", going.node_id, *reason, "--deadline-remaining-seconds", "60"]
    subprocess.run([Path(sys.executable).with_name("ray"), "drain-node", *words], check=True)
    deadline = time.monotonic() + 30
    while not (new := set(checkpoint_names(out)) - before):
        assert time.monotonic() < deadline and training.process.poll() is None, training.lines[-20:]
        time.sleep(0.1)
    cluster.remove_node(going, allow_graceful=False)
    training.wait_for("1 worker(s)")
    (begun,) = [line for line in training.lines if "1 worker(s)" in line]
    assert any(f"from {int(name.removeprefix('images-')):,} images" in begun for name in new), (begun, new)
