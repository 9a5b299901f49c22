"""What tests share: a small simulated experiment, its dataset, a run trained on it; and how a refusal must look."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.store import LocalStore, local_store
from data_tools.__main__ import main as data_tools
from data_tools.dataset.patch import Patch, Plan
from data_tools.errors import UserError
from tests.proxy import FaultProxy
from tests.runs import TINY, unhurried, words_of
from trainer.__main__ import main as trainer

torch.set_num_threads(1)  # tests run side by side
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # begun in a script's background
    signal.signal(signal.SIGINT, signal.default_int_handler)


CLUSTERS = ("test_sweep.py", "test_local_cluster.py", "test_keys.py", "test_newcomer.py")
"""One after the other, and first: each starts Ray, and two at a time only wait for one another on two cores."""
WHOLE = ("test_tuning_report.py", "test_serve.py", "test_export.py", "test_judge.py", "test_exclusion.py")
"""Kept on one core each: what their tests share takes long to make."""


@pytest.hookimpl(tryfirst=True)  # xdist looks for groups in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.path.name
        if name in CLUSTERS or name in WHOLE:
            item.add_marker(pytest.mark.xdist_group("clusters" if name in CLUSTERS else name))
    items.sort(key=lambda item: item.path.name not in CLUSTERS)


def _as_they_are(pool: str, drafts: Sequence[Any]) -> Iterator[Patch]:
    for draft in drafts:
        if isinstance(draft, BaseException):
            raise draft
        yield draft


def plan_of(patches: Iterable[Patch]) -> Plan:
    """A plan whose drafts are the patches themselves; an error in place of a patch of train-normal is raised."""
    drafts: dict[str, list[Any]] = {}
    for patch in patches:
        drafts.setdefault(getattr(patch, "pool", "train-normal"), []).append(patch)
    return Plan(drafts, _as_they_are)


def check_any_part_can_be_cut_elsewhere(plan: Plan) -> None:
    """Any run of a plan's drafts, after a journey to another process, gives its part of the whole."""
    whole = list(plan.patches())
    cut = pickle.loads(pickle.dumps(plan.cut))
    assert sum(map(len, plan.drafts.values())) == len(whole)
    for pool, drafts in plan.drafts.items():
        expected = [patch for patch in whole if patch.pool == pool]
        for part in (slice(0, 1), slice(1, 4), slice(2, 8), slice(3, None)):
            patches = list(cut(pool, pickle.loads(pickle.dumps(drafts[part]))))
            assert [(patch.pool, patch.key, patch.provenance) for patch in patches] == [
                (patch.pool, patch.key, patch.provenance) for patch in expected[part]
            ]
            assert all(
                np.array_equal(one.image, other.image) for one, other in zip(patches, expected[part], strict=True)
            )


def refuses(action: Callable[[], object], *words: str) -> None:
    """The action raises one line that holds all the words and a remedy."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and " - " in message
    assert all(word in message for word in words), message


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
