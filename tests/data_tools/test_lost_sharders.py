"""A lock that does not last: a sharder that was paused for longer leaves its successor's dataset unharmed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data_tools.__main__ import main as data_tools
from data_tools.commands.verify import Verify
from data_tools.errors import UserError
from data_tools.storage import open_storage
from tests.support import paused
from tests.support.checks import refuses
from tests.support.lost import ROOT, TAKEN_OVER, Paused, contents, marks


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
QUICK = [("at the manifest", False)]
CASES = [
    pytest.param(moment, interrupt, marks=[] if (moment, interrupt) in QUICK else [pytest.mark.slow])
    for moment in MOMENTS
    for interrupt in (False, True)
]
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


@pytest.mark.parametrize(("moment", "interrupt"), CASES)
def test_a_paused_sharder_leaves_its_successors_dataset_alone(
    url: str, short_lease: None, moment: str, interrupt: bool
) -> None:
    found = paused_and_followed(url, MOMENTS[moment], interrupt)
    assert found.refused == "" and len(found.before) == SECOND + 1
    assert found.after == found.before, "every object as it was, and none beside them"
    assert found.code == (130 if interrupt and "interrupted" in found.said else 2), found.said
    assert interrupt or found.said.rstrip().endswith(TAKEN_OVER), found.said
    assert found.marks[-1] == ".writer-000001", "the successor's stays"


@pytest.mark.slow
def test_who_is_paused_after_its_manifest_has_written_a_dataset(url: str, short_lease: None) -> None:
    found = paused_and_followed(url, r"after manifest\.json 1", False)
    assert "already holds a dataset" in found.refused
    assert len(found.before) == FIRST + 1 and found.after == found.before and found.code == 0
    Verify(url)()


@pytest.mark.slow
def test_one_request_that_was_under_way_adds_an_object_and_changes_none(url: str, short_lease: None) -> None:
    """What no question can shut out: all is asked, the process is paused, and then the request goes out."""
    found = paused_and_followed(url, r"sent .*-000005\.tar 1", False)
    assert found.code == 2 and TAKEN_OVER in found.said
    assert {name: found.after[name] for name in found.before} == found.before
    assert set(found.after) - set(found.before) == {"train-normal-000005.tar"}
    refuses(Verify(url), "train-normal-000005.tar", "is not in the manifest - remove it")


@pytest.mark.slow
def test_the_processes_of_a_paused_sharder_notice_as_well(url: str, short_lease: None) -> None:
    """Only the main process is stopped: those that write shards go on."""
    command = [
        sys.executable,
        "-c",
        "from tests.support.paused import main; main()",
        "-",
        "sharder",
        url,
        "1",
        "3000",
        "2",
    ]
    slow = {**os.environ, "TEST_PAUSE": "0.3"}  # what is under way ends after the successor has begun
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=slow)
    while len(open_storage(url).names()) < 6:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    paused.write(url, 2, SECOND)
    before = contents(url)
    assert len(before) == SECOND + 1
    time.sleep(3)
    assert contents(url) == before
    process.send_signal(signal.SIGCONT)
    assert process.wait(30) == 2 and process.stderr and TAKEN_OVER in process.stderr.read()
    assert contents(url) == before


@pytest.mark.parametrize("interrupt", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "moment",
    [
        r"write .*\.tar 1",
        *(
            pytest.param(moment, marks=pytest.mark.slow)
            for moment in (r"write .*\.tar 3", r"write manifest\.json 1", r"after manifest\.json 1")
        ),
    ],
)
def test_in_a_folder_a_paused_sharder_holds_its_lock(
    tmp_path: Path, short_lease: None, moment: str, interrupt: bool
) -> None:
    out = tmp_path / "d"
    found = paused_and_followed(str(out), moment, interrupt)
    assert "another process is writing there - wait for it, or stop it" in found.refused
    assert found.code == (130 if interrupt else 0), found.said
    if interrupt and not moment.startswith("after"):
        assert not out.exists() or not any(out.iterdir()), "interrupted, it has removed what it wrote"
    else:
        assert len(found.after) == FIRST + 1 and sorted(path.name for path in out.iterdir()) == sorted(found.after)
        Verify(str(out))()


@pytest.mark.slow
@pytest.mark.parametrize("moment", [r"write .*\.tar 1", r"write .*\.tar 5", r"write manifest\.json 1"])
@pytest.mark.parametrize("interrupt", [False, True])
def test_two_commands_with_the_lease_as_it_is(url: str, videos: Path, moment: str, interrupt: bool) -> None:
    words = ["baxter", str(videos), "--out", url, "--resolution", "32", "--samples-per-shard", "4", "--processes", "1"]
    words += ["--test-size", "12", "--rotations", "1"]
    first = Paused(moment, "data_tools", *words, "--seed", "1")
    data_tools([*words, "--seed", "2"])
    before = contents(url)
    code, said = first.wake(interrupt)
    assert code in ((2, 130) if interrupt else (2,)) and (interrupt or TAKEN_OVER in said), said
    assert contents(url) == before
    Verify(url)()
