"""A lock that does not last: who was paused for longer than it, wherever, finds what its successor made unharmed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
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
import torch
from botocore.client import BaseClient

from cluster.store import LocalStore
from data_tools.__main__ import main as data_tools
from data_tools.commands.verify import Verify
from data_tools.dataset.writer import _is_ours
from data_tools.errors import BusyError, TakenOverError, UserError, run_command
from data_tools.storage import Guarded, StillOurs, lease, open_storage, read_bytes, s3, write_bytes
from data_tools.storage.output_folder import OutputFolder
from tests.support import paused
from tests.support.checks import refuses
from tests.support.runs import TINY, bits, config_of, words_of
from trainer.__main__ import main as trainer
from trainer.commands import train as command
from trainer.run.checkpoint import Snapshot, remove_checkpoint, write_checkpoint
from trainer.run.folder import CONFIG, check_begun, mark_finished, prepare, withdraw
from trainer.run.monitor import Monitor
from trainer.training.loop import train

ROOT = Path(__file__).resolve().parents[2]
PHASES = config_of(["train", "--data", "d", "--out", "o", *TINY]).schedule()
TAKEN_OVER = "another process has taken over writing there - let it finish"


@pytest.fixture(scope="module")
def short() -> Iterator[None]:
    """A lease of a second, here and in the processes that are started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "LEASE", 1.0)
        patch.setattr(lease, "HEARTBEAT_SECONDS", 0.1)
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
    """A process that stops itself at a moment, see tests/support/paused.py; returns when it has."""

    def __init__(self, moment: str, *words: str, limit: float = 60) -> None:
        command = [sys.executable, "-c", "from tests.support.paused import main; main()", moment, *words]
        pipe = subprocess.PIPE
        alike = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in the tests' own process: other sums round differently
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=alike)
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
    url: str, short: None, moment: str, interrupt: bool
) -> None:
    found = paused_and_followed(url, MOMENTS[moment], interrupt)
    assert found.refused == "" and len(found.before) == SECOND + 1
    assert found.after == found.before, "every object as it was, and none beside them"
    assert found.code == (130 if interrupt and "interrupted" in found.said else 2), found.said
    assert interrupt or found.said.rstrip().endswith(TAKEN_OVER), found.said
    assert found.marks[-1] == ".writer-000001", "the successor's stays"


@pytest.mark.slow
def test_who_is_paused_after_its_manifest_has_written_a_dataset(url: str, short: None) -> None:
    found = paused_and_followed(url, r"after manifest\.json 1", False)
    assert "already holds a dataset" in found.refused
    assert len(found.before) == FIRST + 1 and found.after == found.before and found.code == 0
    Verify(url)()


@pytest.mark.slow
def test_one_request_that_was_under_way_adds_an_object_and_changes_none(url: str, short: None) -> None:
    """What no question can shut out: all is asked, the process is paused, and then the request goes out."""
    found = paused_and_followed(url, r"sent .*-000005\.tar 1", False)
    assert found.code == 2 and TAKEN_OVER in found.said
    assert {name: found.after[name] for name in found.before} == found.before
    assert set(found.after) - set(found.before) == {"train-normal-000005.tar"}
    refuses(Verify(url), "train-normal-000005.tar", "is not in the manifest - remove it")


@pytest.mark.slow
def test_the_processes_of_a_paused_sharder_notice_as_well(url: str, short: None) -> None:
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


# A turn


def requests_of(action: Callable[[], object]) -> list[str]:
    """The requests to the store that this process makes meanwhile."""
    seen, call = list[str](), BaseClient._make_api_call  # type: ignore[attr-defined]

    def note(client: Any, name: str, values: Any) -> Any:
        seen.append(name)
        return call(client, name, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", note)
        action()
    return seen


def test_numbers_grow_and_the_newest_mark_stays_unseen(url: str, short: None) -> None:
    place = f"{url}/deeper"
    storage = open_storage(place)
    for number in range(3):
        with storage.sole_writer() as still_ours:
            still_ours(now=True)
        assert marks(place) == [f".writer-{number:06d}"]
    assert json.loads(read_bytes(storage, ".writer-000002"))["over"] is True
    assert storage.names() == [] and storage.tree() == [] and open_storage(url).tree() == []
    paused.write(place, 1, 2)
    assert marks(place) == [".writer-000003"]
    Verify(place)()
    refuses(lambda: paused.write(place, 1, 2), place, "already holds a dataset")


def test_a_question_costs_nothing_until_the_answer_is_old(
    url: str, monkeypatch: pytest.MonkeyPatch, short: None
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 100.0)
    monkeypatch.setattr(lease, "LEASE", 60.0)
    with open_storage(url).sole_writer() as still_ours:
        assert requests_of(lambda: [still_ours() for _ in range(100)]) == []
        assert "ListObjectsV2" in requests_of(lambda: still_ours(now=True))
        clock = lease._clock
        monkeypatch.setattr(lease, "_clock", lambda: clock() + 31)  # the machine slept
        assert "ListObjectsV2" in requests_of(still_ours)
        assert requests_of(still_ours) == []


def test_a_shard_costs_three_requests(url: str, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Itself, its receipt, and the receipt's removal; nothing to ask whose turn it is."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 100.0)
    monkeypatch.setattr(lease, "LEASE", 60.0)
    few, many = (len(requests_of(lambda n=n: paused.write(f"{url}/{n}", 1, n))) for n in (10, 50))
    assert many - few == 3 * 40


@pytest.mark.parametrize("sign", [b"", b"[]", b"\xff\xfe", b'{"pid": "x"}', b"[" * 100_000, b'{"over": 0}'])
def test_whatever_a_mark_holds_its_holder_is_followed(
    url: str, short: None, monkeypatch: pytest.MonkeyPatch, sign: bytes
) -> None:
    monkeypatch.setattr(lease, "LEASE", 0.4)
    storage = open_storage(url)
    write_bytes(storage, ".writer-000041", sign)
    for name in (".writer.lock", ".writer-x"):  # a folder's, and nobody's
        write_bytes(storage, name, b"")
    began = time.monotonic()
    with storage.sole_writer() as still_ours:
        assert time.monotonic() - began >= 0.6, "a lease, and half of one in which the other one notices"
        still_ours(now=True)
        assert marks(url)[-1] == ".writer-000042"
        refuses(lambda: storage.sole_writer().__enter__(), url, "another process is writing there")


def test_who_begins_anew_where_all_was_removed_is_not_taken_for_us(
    url: str, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 100.0)
    storage = open_storage(url)
    with storage.sole_writer() as still_ours:
        storage.remove(".writer-000000")  # as `aws s3 rm --recursive` does
        with storage.sole_writer() as of_another:
            refuses(lambda: still_ours(now=True), url, TAKEN_OVER)
            of_another(now=True)


def test_who_lost_its_turn_drops_no_upload_of_its_successor(url: str, store: LocalStore, short: None) -> None:
    client, prefix = store.client(), url.removeprefix(f"{store.url}/")
    names = ["train-normal-000001.tar", "mine.tar"]

    def begin(name: str) -> None:
        client.create_multipart_upload(Bucket=store.bucket, Key=f"{prefix}/{name}")

    def under_way() -> list[str]:
        found = client.list_multipart_uploads(Bucket=store.bucket, Prefix=f"{prefix}/").get("Uploads", [])
        return sorted(upload["Key"].removeprefix(f"{prefix}/") for upload in found)

    begin("mine.tar")
    with open_storage(url).sole_writer(_is_ours):
        assert under_way() == ["mine.tar"], "what is not part of a dataset is not ours to drop"
        write_bytes(open_storage(url), ".writer-000001", b"{}")
        time.sleep(0.6)  # before that a successor does nothing
        begin(names[0])
    assert under_way() == sorted(names)
    with open_storage(url).sole_writer(_is_ours):
        assert under_way() == ["mine.tar"], "a killed writer's are dropped"


# A training


@pytest.fixture
def lost(url: str, short: None) -> Iterator[StillOurs]:
    """What a training run has in hand whose place was taken and left again while it was paused."""
    with open_storage(url).sole_writer() as still_ours:
        write_bytes(open_storage(url), ".writer-000005", b'{"over": true}')
        time.sleep(0.5)
        yield still_ours


def a_snapshot(url: str) -> Snapshot:
    config = config_of(["train", "--data", "d", "--out", url, *TINY])
    return Snapshot(64, 8, None, 1, "0" * 64, config, {"critic": {"w": torch.zeros(3)}})


def send_logs(url: str, still_ours: StillOurs) -> None:
    with contextlib.closing(Monitor(url, PHASES, 0, print, still_ours)) as monitor:
        monitor.send()


ACTIONS: dict[str, Callable[[str, StillOurs], object]] = {
    "logs are sent": lambda url, ours: send_logs(url, ours),
    "a checkpoint is written": lambda url, ours: write_checkpoint(url, a_snapshot(url), still_ours=ours),
    "a checkpoint is removed": lambda url, ours: remove_checkpoint(url, "images-000000064", ours),
    "it is over": lambda url, ours: mark_finished(url, ours),
    "an object is removed": lambda url, ours: Guarded(open_storage(url), ours).remove("metrics.jsonl"),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_training_that_lost_its_run_changes_nothing(url: str, lost: StillOurs, action: str) -> None:
    write_checkpoint(url, a_snapshot(url))
    for name in ("metrics.jsonl", "pictures/000000064-real.png", "events/events.out.tfevents.1", "finished.json"):
        write_bytes(open_storage(url), name, b"of the successor")
    before = contents(url)
    with pytest.raises(TakenOverError, match="another process has taken over"):
        ACTIONS[action](url, lost)
    assert contents(url) == before


def test_of_pictures_only_those_of_the_training_before_are_removed(url: str, short: None) -> None:
    storage = open_storage(url)
    for name in ("pictures/000009000-real.png", "pictures/mine.png", "events/events.out.tfevents.1", "events/notes"):
        write_bytes(storage, name, b"")
    monitor = Monitor(url, PHASES, 0, print)
    write_bytes(storage, "pictures/000008000-real.png", b"")  # it came later
    monitor.send()
    names = [name for name, _ in storage.tree() if "tfevents" not in name]
    monitor.close()
    assert names == ["events/notes", "log.txt", "metrics.jsonl", "pictures/000008000-real.png", "pictures/mine.png"]
    assert "events/events.out.tfevents.1" not in [name for name, _ in storage.tree()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        r"write critic\.safetensors 1",
        r"write critic\.safetensors 2",
        r"write metrics\.jsonl 2",
        r"write checkpoint\.json 2",
        r"write best\.json 2",
        r"remove critic\.safetensors 1",
        r"write pictures/.* 2",
        r"write finished\.json 1",
    ],
)
def test_a_paused_training_leaves_its_successors_run_alone(url: str, dataset: Path, short: None, moment: str) -> None:
    words = [*words_of(dataset, url, dataset.parent / "cache", TINY), "--keep", "1"]
    first = Paused(moment, "trainer", *words)
    trainer(words)
    before = contents(url)
    assert "finished.json" in before
    code, said = first.wake()
    assert code == 2 and said.rstrip().endswith(TAKEN_OVER), said
    assert contents(url) == before


@pytest.mark.slow
def test_in_a_folder_a_paused_training_holds_its_lock(
    full: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.run.resume.HANDOVER_SECONDS", 2.0)
    words = words_of(dataset, tmp_path / "run", dataset.parent / "cache")
    first = Paused(r"write checkpoint\.json 2", "trainer", *words)
    refuses(lambda: trainer(words), "another process is writing there")
    code, said = first.wake()
    assert code == 0, said
    assert bits(tmp_path / "run") == bits(full)


# A training that is refused


@pytest.fixture(params=["folder", "s3"])
def out(request: pytest.FixtureRequest, tmp_path: Path, short: None) -> str:
    return str(tmp_path / "run") if request.param == "folder" else request.getfixturevalue("url")


def files(out: str) -> dict[str, bytes]:
    return {name: content for name, (_, content) in contents(out).items()}


@pytest.mark.parametrize("error", [BusyError("busy - wait"), TakenOverError("lost - leave it"), UserError("no - help")])
def test_who_gives_up_leaves_the_training_that_runs_there_alone(
    out: str, dataset: Path, monkeypatch: pytest.MonkeyPatch, error: UserError
) -> None:
    """As with one on Ray, which writes config.json and waits, while another takes the lock and trains."""
    words, another = words_of(dataset, out, dataset.parent / "cache", TINY), contextlib.ExitStack()

    def given_up(config: Any) -> None:
        another.enter_context(open_storage(out).sole_writer())
        write_bytes(open_storage(out), "metrics.jsonl", b'{"images_seen": 32}')
        raise error

    monkeypatch.setattr(command, "_train_here", given_up)
    with another:
        assert run_command(trainer, words) == 2
        assert set(files(out)) == {CONFIG, "metrics.jsonl"}


def test_who_was_refused_removes_nothing_even_when_the_other_one_has_gone(out: str, dataset: Path) -> None:
    config = config_of(words_of(dataset, out, dataset.parent / "cache", TINY))
    assert prepare(config) == "new"
    before = files(out)
    withdraw(out, BusyError("busy - wait"))
    withdraw(out, TakenOverError("lost - leave it"))
    assert files(out) == before == {CONFIG: before[CONFIG]}


@pytest.mark.parametrize(
    ("there", "stays"),
    [
        ((), False),
        (("log.txt", "metrics.jsonl", "events/events.out.tfevents.1", "pictures/000000064-real.png"), False),
        (("checkpoints/images-000000064/critic.safetensors",), False),
        (("checkpoints/images-000000064/critic.safetensors", "checkpoints/images-000000064/checkpoint.json"), True),
        (("log.txt", "notes.txt"), True),
        (("calibration/images-000000064.safetensors",), True),
    ],
)
def test_a_new_run_that_failed_goes_only_where_nothing_is_lost(
    out: str, dataset: Path, there: tuple[str, ...], stays: bool
) -> None:
    prepare(config_of(words_of(dataset, out, dataset.parent / "cache", TINY)))
    for name in there:
        folder, _, file = name.rpartition("/")
        write_bytes(open_storage(f"{out}/{folder}" if folder else out), file, b"x")
    before = files(out)
    withdraw(out, UserError("no - help"))
    assert files(out) == (before if stays else {})
    assert stays or out.startswith("s3:") or not Path(out).exists()


def test_a_run_whose_holder_may_only_be_paused_is_not_withdrawn(url: str, dataset: Path, short: None) -> None:
    prepare(config_of(words_of(dataset, url, dataset.parent / "cache", TINY)))
    write_bytes(open_storage(url), ".writer-000001", b'{"machine": "elsewhere", "pid": 1, "beat": 7}')
    withdraw(url, UserError("no - help"))
    assert set(files(url)) == {CONFIG} and marks(url)[-1] == ".writer-000001"


def test_who_comes_after_it_was_withdrawn_trains_no_run_without_options(out: str, dataset: Path) -> None:
    config = config_of(words_of(dataset, out, dataset.parent / "cache", TINY))
    prepare(config)
    check_begun(config)
    withdraw(out, UserError("no - help"))
    refuses(lambda: train(config), out, CONFIG, "is gone")
    prepare(dataclasses.replace(config, seed=7))
    refuses(lambda: train(config), out, "differs in", "seed")


@pytest.mark.slow
def test_one_on_ray_that_gives_up_leaves_the_one_that_trains_here(dataset: Path, tmp_path: Path) -> None:
    """As people do it: two with one --out; the first writes config.json and waits for Ray, the second trains."""
    run = tmp_path / "run"
    words = words_of(dataset, run, dataset.parent / "cache", [*TINY, "--final-images", "100000000"])
    how: Any = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    on_ray = subprocess.Popen([sys.executable, "-m", "trainer", *words, "--workers", "1"], **how)
    try:
        while not (run / CONFIG).exists():
            assert on_ray.poll() is None
            time.sleep(0.05)
        here = subprocess.Popen([sys.executable, "-m", "trainer", *words], **how)
        try:
            _, said = on_ray.communicate(timeout=180)
            assert on_ray.returncode == 2 and "another process is writing there - wait for it, or stop it" in said
            assert here.poll() is None and (run / CONFIG).exists() and (run / "metrics.jsonl").exists()
            here.send_signal(signal.SIGTERM)
            here.communicate(timeout=60)
            assert here.returncode == 128 + signal.SIGTERM and (run / "checkpoints").exists()
        finally:
            here.kill()
    finally:
        on_ray.kill()


# What commands make again


PAGES = OutputFolder("a page", re.compile(r"index\.html|fig/[^/]+\.png"), "--out ")


def fill(place: str, *names: str) -> None:
    with PAGES.replaced(place) as folder:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(name, encoding="utf-8")


def test_what_is_made_anew_replaces_its_former_files_and_no_others(out: str) -> None:
    fill(out, "index.html", "fig/a.png", "fig/b.png")
    fill(out, "index.html", "fig/b.png", "fig/c.png")
    assert set(files(out)) == {"index.html", "fig/b.png", "fig/c.png"}
    with pytest.raises(ZeroDivisionError), PAGES.replaced(out) as folder:
        (folder / "index.html").write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    assert files(out)["index.html"] == b"index.html"
    write_bytes(open_storage(out), "thesis.tex", b"years of work")
    refuses(lambda: fill(out, "index.html"), f"--out {out}", "thesis.tex", "not part of a page")
    assert set(files(out)) == {"index.html", "fig/b.png", "fig/c.png", "thesis.tex"}


def test_what_came_while_it_was_made_stays(out: str) -> None:
    with pytest.raises(UserError, match=r"thesis\.tex"), PAGES.replaced(out) as folder:
        (folder / "index.html").write_text("new", encoding="utf-8")
        write_bytes(open_storage(out), "thesis.tex", b"years of work")
    assert files(out) == {"thesis.tex": b"years of work"}


def test_beside_a_folder_that_is_made_anew_nothing_is_left(tmp_path: Path) -> None:
    link, place = tmp_path / "link", tmp_path / "place"
    place.mkdir()
    link.symlink_to(place)
    (place / ".DS_Store").write_bytes(b"")
    fill(str(link), "index.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "place"] and link.is_symlink()
    assert [path.name for path in place.iterdir()] == ["index.html"]


# A folder's lock


def test_of_many_that_wait_for_a_removed_lock_file_one_at_a_time_gets_it(tmp_path: Path) -> None:
    """The holder removes its file before it lets go: who has opened that file must not hold it beside a new one."""
    inside, most, turns = [0], [0], [0]

    def one(_: int) -> None:
        while turns[0] < 100:
            with contextlib.suppress(BusyError), open_storage(str(tmp_path / "d")).sole_writer():
                inside[0] += 1
                most[0], turns[0] = max(most[0], inside[0]), turns[0] + 1
                time.sleep(0.0005)
                inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    assert most[0] == 1 and not [*(tmp_path / "d").glob("*")]
