"""A lock that does not last: who was paused for longer than it, wherever, finds what its successor made unharmed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.store import LocalStore
from data_tools.commands.verify import Verify
from data_tools.errors import UserError
from data_tools.storage import lease, open_storage, read_bytes, s3
from tests import paused

ROOT = Path(__file__).resolve().parent.parent
TAKEN_OVER = "another process has taken over writing there - leave it to that one"


@pytest.fixture(scope="module")
def short() -> Iterator[None]:
    """A lease of a second, here and in the processes that are started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "LEASE", 1.0)
        patch.setattr(lease, "BEAT", 0.1)
        patch.setattr(s3, "PART", paused.PART)
        patch.setenv("TEST_LEASE", "1.0")
        yield


def contents(url: str) -> dict[str, Any]:
    """All objects at a URL but marks, each with its bytes and what changes when it is written again."""
    storage, found = open_storage(url), dict[str, Any]()
    for name, changed in storage.tree():
        mark = storage._head(name)["Metadata"]["writer"] if isinstance(storage, s3.S3) else changed
        found[name] = (mark, read_bytes(storage, name))
    return found


def marks(url: str) -> list[str]:
    return open_storage(url)._marks()  # type: ignore[attr-defined]


# A sharder


class Paused:
    """A process that stops itself at a moment, see tests/paused.py; returns when it has."""

    def __init__(self, moment: str, *words: str, limit: float = 60) -> None:
        command = [sys.executable, "-c", "from tests.paused import main; main()", moment, *words]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
        deadline = time.monotonic() + limit
        while psutil.Process(self.process.pid).status() != psutil.STATUS_STOPPED:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"does not come to {moment}"
            time.sleep(0.02)

    def wake(self, interrupt: bool = False) -> tuple[int, str]:
        """Its exit code and its last words."""
        if interrupt:
            self.process.send_signal(signal.SIGINT)
        self.process.send_signal(signal.SIGCONT)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@dataclass
class Outcome:
    """What became of a dataset: as the second writer left it, as it was when the first had gone; how that one went."""

    before: dict[str, Any]
    after: dict[str, Any]
    code: int
    said: str
    marks: list[str]
    refused: str = ""


MOMENTS = {
    "before the first shard": r"write .*\.tar 1",
    "between shards": r"write .*\.tar 3",
    "in an upload": r"half .*\.tar 3",
    "before a receipt": r"write .*\.receipt 3",
    "before the manifest": r"remove .*\.receipt 1",
    "at the manifest": r"write manifest\.json 1",
    "with the manifest's request left": r"sent manifest\.json 1",
}
CASES = [(name, interrupt) for name in MOMENTS for interrupt in (False, True)]
FIRST, SECOND = 6, 4  # shards


def paused_and_followed(url: str, moment: str, interrupt: bool) -> Outcome:
    side = paused.BIG if moment.startswith("half") else paused.SIDE
    first = Paused(moment, "sharder", url, "1", str(FIRST), "1", str(side))
    refused = ""
    try:
        paused.write(url, 2, SECOND)
    except UserError as error:
        refused = str(error)
    before = contents(url)
    code, said = first.wake(interrupt)
    return Outcome(before, contents(url), code, said, marks(url) if url.startswith("s3:") else [], refused)


@pytest.fixture(scope="module")
def outcomes(store: LocalStore, short: None) -> Callable[[str, bool], Outcome]:
    """All cases side by side: most of each is waiting."""
    with ThreadPoolExecutor(4) as pool:
        jobs = {
            case: pool.submit(paused_and_followed, f"{store.url}/paused-{i}", MOMENTS[case[0]], case[1])
            for i, case in enumerate(CASES)
        }
    return lambda *case: jobs[case].result()


@pytest.mark.parametrize(("moment", "interrupt"), CASES)
def test_a_paused_sharder_leaves_its_successors_dataset_alone(
    outcomes: Callable[[str, bool], Outcome], moment: str, interrupt: bool
) -> None:
    found = outcomes(moment, interrupt)
    assert found.refused == "" and len(found.before) == SECOND + 1
    assert found.after == found.before, "every object as it was, and none beside them"
    assert found.code == (130 if interrupt and "interrupted" in found.said else 2), found.said
    assert interrupt or found.said.rstrip().endswith(TAKEN_OVER), found.said
    assert found.marks == [".writer-000001"], "the successor's mark stays, the first one's is gone"


def test_who_is_paused_after_its_manifest_has_written_a_dataset(url: str, short: None) -> None:
    found = paused_and_followed(url, r"after manifest\.json 1", False)
    assert "holds a dataset already" in found.refused
    assert len(found.before) == FIRST + 1 and found.after == found.before and found.code == 0
    Verify(url)()


def test_one_request_that_was_under_way_adds_an_object_and_changes_none(url: str, short: None) -> None:
    """What no question can shut out: all is asked, the process is paused, and then the request goes out."""
    found = paused_and_followed(url, r"sent .*-000005\.tar 1", False)
    assert found.code == 2 and TAKEN_OVER in found.said
    assert {name: found.after[name] for name in found.before} == found.before
    assert set(found.after) - set(found.before) <= {"train-normal-000005.tar"}
    Verify(url)()


def test_the_processes_of_a_paused_sharder_notice_as_well(url: str, short: None) -> None:
    """Only the main process is stopped: those that write shards go on."""
    command = [sys.executable, "-c", "from tests.paused import main; main()", "-", "sharder", url, "1", "2000", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while len(open_storage(url).names()) < 6:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    paused.write(url, 2, SECOND)
    before = contents(url)
    assert len(before) == SECOND + 1
    time.sleep(1)
    assert contents(url) == before
    process.send_signal(signal.SIGCONT)
    assert process.wait(30) == 2 and process.stderr and TAKEN_OVER in process.stderr.read()
    assert contents(url) == before


@pytest.mark.parametrize("interrupt", [False, True])
@pytest.mark.parametrize(
    "moment", [r"write .*\.tar 1", r"write .*\.tar 3", r"write manifest\.json 1", r"after manifest\.json 1"]
)
def test_in_a_folder_a_paused_sharder_holds_its_lock(tmp_path: Path, short: None, moment: str, interrupt: bool) -> None:
    out = tmp_path / "d"
    found = paused_and_followed(str(out), moment, interrupt)
    assert "another process is writing there - wait for it, or stop it" in found.refused
    assert found.code == (130 if interrupt else 0), found.said
    if interrupt and not moment.startswith("after"):
        assert not out.exists() or not any(out.iterdir()), "interrupted, it has removed what it wrote"
    else:
        assert len(found.after) == FIRST + 1 and sorted(path.name for path in out.iterdir()) == sorted(found.after)
        Verify(str(out))()
