"""A training on three hosts through power cuts and pulled cables: it must end with the bits of an undisturbed one.

The hosts are this machine's, see lab.py; run by `make lab`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator

import boto3
import pytest

from data_tools.__main__ import main as data_tools
from tests.benchmarks.lab import DISK, Lab, Node, unavailable, until
from trainer.run.checkpoint import newest_checkpoint, read_info

pytestmark = pytest.mark.lab

OPTIONS = shlex.split(
    "--workers 2 --preset demo --resolution 16 --width 8 --fade-images 320 --stable-images 320 --final-images 640"
    " --minibatch.4 16 --minibatch.8 16 --minibatch.16 16 --log-images 64 --checkpoint-images 128"
    f" --precision float32 --patience 20 --cache {DISK}/cache"
)
"""120 steps in 5 phases, about a minute on two cores."""
LIMIT = 300.0
FOREVER = 15.0
"""Seconds without a cable, well past the limit at which Ray gives a node up."""


class Training:
    """The command, on the lab's head; it ends with the block."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.url, self.log = lab, f"{lab.url}/{name}", lab.folder / f"training-{name}.log"

    def __enter__(self) -> Training:
        self.began = time.monotonic()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        print(f"\n{self.url}: {time.monotonic() - self.began:.0f} s\n{self.log.read_text()}")

    def start(self) -> None:
        command = ["env", "RAY_ADDRESS=auto", sys.executable, "-m", "trainer", "train"]
        command += ["--data", f"{self.lab.url}/data", "--out", self.url]
        with self.log.open("a") as log:
            self.process = self.lab.head.run([*command, *OPTIONS], log)

    def cut_power(self, node: Node) -> None:
        """A node loses power, and somebody starts it again."""
        node.power_off()
        self.say(f"{node.name} has no power")
        time.sleep(3)
        node.start()
        self.say(f"{node.name} is back")

    def say(self, words: str) -> None:
        with self.log.open("a") as log:
            log.write(f"[{time.monotonic() - self.began:5.1f} s: {words}]\n")

    def reach(self, images: int) -> None:
        """Wait until so many images are told of."""

        def reached() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            seen = re.findall(r"^ *([\d.]+)/\d+ kimg", self.log.read_text(), re.MULTILINE)
            return bool(seen) and 1000 * float(seen[-1]) >= images

        until(f"{images} images", reached, LIMIT)

    def first_worker(self) -> Node:
        """The node of the worker that writes to the run: it signs there with its host's name."""
        client, (bucket, _, name) = boto3.client("s3"), self.url.removeprefix("s3://").partition("/")
        turn = client.list_objects_v2(Bucket=bucket, Prefix=f"{name}/.writer")["Contents"][-1]
        machine = json.loads(client.get_object(Bucket=bucket, Key=turn["Key"])["Body"].read())["machine"]
        return next(node for node in self.lab.workers if node.name == machine.split()[0])

    def other_worker(self) -> Node:
        first = self.first_worker()
        return next(node for node in self.lab.workers if node is not first)

    def result(self) -> dict[str, str]:
        """The checksums of what the finished training made."""
        code = self.process.wait(LIMIT)
        assert code == 0, self.log.read_text()
        info = read_info(newest_checkpoint(self.url))
        assert info.images_seen == 1920
        return info.sha256


@pytest.fixture(scope="module")
def whole_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if why := unavailable():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("lab")
    with Lab(folder) as lab:
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(lab.outside)
        try:
            videos = folder / "videos"
            data_tools(f"simulate {videos} --sequences 2 --frames 4 --size 160 --cells 16 --debris 8 --seed 0".split())
            data_tools(f"baxter {videos} --out {lab.url}/data --resolution 16 --test-size 8".split())
            yield lab
        finally:
            os.environ.clear()
            os.environ.update(before)


@pytest.fixture(scope="module")
def undisturbed(whole_lab: Lab) -> dict[str, str]:
    with Training(whole_lab, "undisturbed") as training:
        return training.result()


@pytest.fixture
def lab(whole_lab: Lab, undisturbed: dict[str, str]) -> Lab:
    """All cables plugged in and all nodes running, whatever the test before left."""
    for node in whole_lab.nodes:
        node.plug_cable()
    whole_lab.start()
    return whole_lab


@pytest.mark.parametrize("which", ["first", "other"])
def test_a_worker_loses_power(lab: Lab, undisturbed: dict[str, str], which: str) -> None:
    with Training(lab, f"power-{which}") as training:
        training.reach(600)
        training.cut_power(training.first_worker() if which == "first" else training.other_worker())
        assert training.result() == undisturbed


def test_a_worker_loses_power_before_training_starts(lab: Lab, undisturbed: dict[str, str]) -> None:
    with Training(lab, "join") as training:
        node = lab.workers[1]
        until("workers", lambda: node.runs("RayTrainWorker.init_train_context"), LIMIT, pause=0.01)
        training.cut_power(node)
        assert training.result() == undisturbed


@pytest.mark.parametrize("which", ["first", "other"])
def test_a_cable_is_out_until_the_node_is_given_up(lab: Lab, undisturbed: dict[str, str], which: str) -> None:
    with Training(lab, f"cable-{which}") as training:
        training.reach(600)
        node = training.first_worker() if which == "first" else training.other_worker()
        node.pull_cable()
        training.say(f"{node.name} has no cable")
        time.sleep(FOREVER)
        node.plug_cable()
        training.say(f"{node.name} has its cable again")
        node.wait_for_end(60)
        training.say(f"{node.name} has ended")
        node.start()
        training.say(f"{node.name} is back")
        assert training.result() == undisturbed


def test_a_cable_is_out_for_a_moment(lab: Lab, undisturbed: dict[str, str]) -> None:
    with Training(lab, "moment") as training:
        training.reach(600)
        node = training.first_worker()
        node.pull_cable()
        time.sleep(1)
        node.plug_cable()
        training.say(f"{node.name} had no cable for 1 s")
        assert training.result() == undisturbed
        assert node.process and node.process.poll() is None


def test_the_head_loses_power_and_the_command_with_it(lab: Lab, undisturbed: dict[str, str]) -> None:
    with Training(lab, "head") as training:
        training.reach(600)
        lab.head.power_off()
        training.say("the head has no power")
        assert training.process.wait(10)
        time.sleep(3)
        lab.head.start()
        training.say("the head is back")
        training.start()
        assert training.result() == undisturbed
