"""What tests share: a small simulated experiment, its dataset, a run trained on it, a store, a short lease."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cluster.store import LocalStore, local_store
from data_tools.__main__ import main as data_tools
from data_tools.storage import lease, s3
from tests.support import paused
from tests.support.proxy import FaultProxy
from tests.support.runs import TINY, unhurried, words_of
from tests.support.tars import png
from trainer.__main__ import main as trainer

torch.set_num_threads(1)  # tests run side by side
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # begun in a script's background
    signal.signal(signal.SIGINT, signal.default_int_handler)


CLUSTERS = ("test_sweep.py", "test_local_cluster.py", "test_keys.py", "test_newcomer.py")
"""One after the other, and first: each starts Ray, and two at a time only wait for one another on two cores."""
WHOLE = (
    "test_tuning_report.py",
    "test_serve.py",
    "test_export.py",
    "test_judge.py",
    "test_exclusion.py",
    "test_ensemble.py",
    "test_every_method.py",
)
"""Kept on one core each: what their tests share takes long to make."""


@pytest.hookimpl(tryfirst=True)  # xdist looks for groups in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.path.name
        if name in CLUSTERS or name in WHOLE:
            item.add_marker(pytest.mark.xdist_group("clusters" if name in CLUSTERS else name))
    items.sort(key=lambda item: item.path.name not in CLUSTERS)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("videos") / "experiment"
    data_tools(f"simulate {out} --sequences 2 --frames 4 --size 160 --cells 12 --debris 8 --seed 5".split())
    return out


@pytest.fixture(scope="session")
def dataset(videos: Path) -> Path:
    out = videos.parent / "shards"
    data_tools(f"baxter {videos} --out {out} --resolution 32 --test-size 12 --rotations 1".split())
    return out


@pytest.fixture(scope="session")
def run(dataset: Path) -> Path:
    """A finished run; tests only read it."""
    out = dataset.parent / "run"
    trainer(["train", "--data", str(dataset), "--out", str(out), "--cache", str(out.parent / "cache"), *TINY])
    return out


@pytest.fixture(scope="session")
def scored(run: Path) -> Path:
    """The same run, into which the first who asks for verdicts writes its calibration."""
    return Path(shutil.copytree(run, run.parent / "scored"))


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """A folder of six pictures."""
    folder = tmp_path / "cells"
    folder.mkdir()
    for i in range(6):
        (folder / f"c{i}.png").write_bytes(png(i))
    return folder


@pytest.fixture(scope="session")
def full(dataset: Path) -> Path:
    """A run that nothing disturbed, with checkpoints within its phases, all kept; tests only read it."""
    out = dataset.parent / "full"
    with unhurried():
        trainer(words_of(dataset, out, dataset.parent / "cache"))
    return out


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStore]:
    """A real S3 store, the one that this process's AWS variables name."""
    with local_store(tmp_path_factory.mktemp("store")) as made:
        before = dict(os.environ)
        changed = made.child_environment()
        os.environ.clear()
        os.environ.update(changed)
        yield made
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def url(store: LocalStore, request: pytest.FixtureRequest) -> str:
    """A place in the store for one test alone."""
    return f"{store.url}/{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"


@pytest.fixture
def proxy(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Stands between the store and this process with all that it starts."""
    host, port = store.endpoint.removeprefix("http://").split(":")
    with FaultProxy(host, int(port)) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.endpoint)
        yield made


@pytest.fixture(scope="module")
def short_lease() -> Iterator[None]:
    """A lease of a second, here and in the processes that are started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "LEASE", 1.0)
        patch.setattr(lease, "HEARTBEAT_SECONDS", 0.1)
        patch.setattr(s3, "PART", paused.PART)
        patch.setenv("TEST_LEASE", "1.0")
        yield


@pytest.fixture(params=["folder", "s3"])
def out(request: pytest.FixtureRequest, tmp_path: Path, short_lease: None) -> str:
    """A place in a folder, and one in the store."""
    return str(tmp_path / "run") if request.param == "folder" else request.getfixturevalue("url")
