"""Review: decisions that outlive whatever is killed, views, the server's manners, what look-alikes are."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.dataset.exclusion import read_keys
from data_tools.errors import UserError
from tests.support.checks import refuses
from trainer.__main__ import main as trainer
from trainer.review.alike import features, groups, nearest
from trainer.review.lists import write_lists
from trainer.review.server import ReviewServer, served
from trainer.review.session import Review
from trainer.review.table import Table, origin_table
from trainer.review.views import View
from trainer.run.decisions import CHOICES, Decisions

TOKEN = "a token"
ODD = ['"quoted"', "<script>alert(1)</script>", "two\nlines", "x" * 300, "\udc80 no UTF-8", "=1+1", "# hash", "ключ"]


def made_up(n: int = 40, side: int = 8) -> Table:
    """Images whose number is their grey level, the first of odd keys; the first is the most anomalous."""
    keys = [*ODD, *(f"key {i}" for i in range(n))][:n]
    lines = [
        json.dumps({"pool": "train-normal", "key": key, "sequence": f"s{i % 3}", "track": i // 2})
        for i, key in enumerate(keys)
    ]
    known, origins = origin_table(lines)
    score = np.linspace(1, 0, n)

    def pixels(some: np.ndarray) -> np.ndarray:
        return np.broadcast_to((some % 256).astype(np.uint8)[:, None, None, None], (len(some), side, side, 1))

    return Table(known, origins, score, 1 - score, {"L_n": score[::-1].copy(), "L_o": score}, pixels)


@pytest.fixture
def review(tmp_path: Path) -> Iterator[Review]:
    made = Review("a run", str(tmp_path / "review"), made_up(), Decisions(str(tmp_path / "review/decisions"), "me"), [])
    made.begin()
    yield made
    made.end()


@pytest.fixture
def server(review: Review) -> Iterator[ReviewServer]:
    made = served(review, TOKEN)
    yield made
    made.shutdown()
    made.server_close()


def ask(server: ReviewServer, path: str, body: object = None, token: str = TOKEN, **words: object) -> bytes:
    url = f"http://127.0.0.1:{server.server_port}{path}?{urlencode({'token': token, **words})}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def refused(server: ReviewServer, path: str, body: object = None, **words) -> tuple[int, str]:
    with pytest.raises(HTTPError) as caught:
        ask(server, path, body, **words)
    return caught.value.code, json.loads(caught.value.read())["error"]


# ---- decisions ---------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["a", "b", *ODD]), st.sampled_from(CHOICES)), max_size=12))
@settings(deadline=None, max_examples=30)
def test_the_latest_decision_counts_whoever_took_it_and_whoever_reads(
    tmp_path_factory: pytest.TempPathFactory, taken: list
) -> None:
    url = str(tmp_path_factory.mktemp("decisions"))
    two = [Decisions(url, "one"), Decisions(url, "two")]
    expected = {}
    for who, key, choice in taken:
        two[who].refresh()  # sees what the other one has decided, as a page does
        two[who].decide([key], choice)
        expected[key] = choice
    for reader in (*two, Decisions(url, "a third")):
        reader.refresh()
        assert {key: reader.choice(key) for key in expected} == expected
        assert reader.choice("never decided") == "open"


def test_a_decision_is_saved_before_it_is_taken_and_one_that_fails_is_none(tmp_path: Path) -> None:
    url = str(tmp_path / "decisions")
    mine = Decisions(url, "me")
    mine.decide(["a", "b"], "junk")
    assert Decisions(url, "another").keys("junk") == ["a", "b"]
    (tmp_path / "decisions").rename(tmp_path / "away")
    (tmp_path / "decisions").write_text("in the way")
    with pytest.raises((OSError, UserError)):
        mine.decide(["c"], "junk")
    assert mine.choice("c") == "open"


def test_many_decisions_lie_in_several_files(tmp_path: Path) -> None:
    mine = Decisions(str(tmp_path), "me")
    for i in range(12):
        mine.decide([f"{'k' * 60}{i} {j}" for j in range(1000)], "fine" if i % 2 else "junk")
    assert len(list(tmp_path.glob("*.jsonl"))) > 2
    assert len(Decisions(str(tmp_path), "another").latest) == 12_000


def test_clocks_that_differ_do_not_undo_what_is_seen(tmp_path: Path) -> None:
    fast = json.dumps({"at": "2999-01-01T00:00:00.000000+00:00", "by": "a", "n": 0, "decision": "junk", "keys": ["k"]})
    (tmp_path / "fast.jsonl").write_text(fast + "\n")
    mine = Decisions(str(tmp_path), "me")
    assert mine.choice("k") == "junk"
    mine.decide(["k"], "fine")
    assert Decisions(str(tmp_path), "another").choice("k") == "fine"


@pytest.mark.parametrize("line", ["", "{", "[]", '{"at": 1}', '{"at":"x","by":"a","n":0,"decision":"junk","keys":[]}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    Decisions(str(tmp_path), "me").decide(["a"], "junk")
    (tmp_path / "zz.jsonl").write_text(line + "\n")
    refuses(lambda: Decisions(str(tmp_path), "me"), "zz.jsonl: line 1 is not a decision")


def test_on_object_storage(url: str) -> None:
    one, two = Decisions(f"{url}/decisions", "one"), Decisions(f"{url}/decisions", "two")
    one.decide(["a"], "junk")
    two.refresh()
    for choice in ("fine", "unsure", "fine"):  # in the same second, which is all that a store tells of a change
        one.decide(["a"], choice)
        two.refresh()
        assert two.choice("a") == choice
    write_lists(url, two, [])


@pytest.mark.parametrize("left_out", [[], ["left out before"]])
def test_the_lists_name_junk_and_what_the_run_did_without(tmp_path: Path, left_out: list[str]) -> None:
    mine = Decisions(str(tmp_path / "decisions"), "me\nand you")
    mine.decide(ODD, "junk")
    mine.decide(["good"], "fine")
    mine.decide(["taken back"], "junk")
    mine.decide(["taken back"], "open")
    write_lists(str(tmp_path), mine, left_out)
    assert read_keys(str(tmp_path / "exclude.txt")) == {*ODD, *left_out}
    labels = pandas.read_csv(tmp_path / "labels.csv")
    assert sorted(labels["label"]) == ["fine", *["junk"] * len(ODD)] and "good" in set(labels["key"])


# ---- views -------------------------------------------------------------------------------------------------------


def test_views(review: Review) -> None:
    table, mine = review.table, review.decisions

    def shown(**options) -> list[int]:
        return View(**options).of(table, mine, np.array([0, 1, 0, 1])).tolist()

    n = len(table)
    assert shown() == list(range(n)) and shown(by="L_n") == list(range(n))[::-1]
    assert shown(column="sequence", value="s1") == list(range(1, n, 3))
    assert shown(group=1) == [1, 3] and shown(group=7) == []
    assert shown(text="<script>") == [1] and shown(text="[") == []
    mine.decide([table.keys.iat[2], table.keys.iat[5]], "junk")
    mine.decide([table.keys.iat[5]], "open")
    assert shown(decided="junk") == [2] and shown(decided="fine") == []
    assert shown(decided="open") == [i for i in range(n) if i != 2]
    assert shown(decided="open", column="sequence", value="s2", by="L_n") == [
        i for i in range(n)[::-1] if i % 3 == 2 and i != 2
    ]
    for wrong in ({"by": "L_x"}, {"decided": "maybe"}, {"column": "colour"}):
        with pytest.raises(UserError):
            shown(**wrong)


def test_crops_of_one_object(review: Review) -> None:
    assert review.table.same_object(6).tolist() == []  # the next one of its track is of another sequence
    lines = [json.dumps({"key": f"{i}", "sequence": "s", "track": t}) for i, t in enumerate([1, 2, 1, None, 1])]
    keys, origins = origin_table(lines)
    table = Table(keys, origins, np.zeros(5), np.ones(5), {}, lambda some: np.zeros((len(some), 4, 4, 1), np.uint8))
    assert table.same_object(0).tolist() == [2, 4] and table.same_object(3).tolist() == []


# ---- look-alikes -------------------------------------------------------------------------------------------------


def patterns(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sixty images of three patterns, with noise and contrasts of their own; and which pattern each has."""
    rng = np.random.default_rng(seed)
    shapes = rng.normal(size=(3, 16, 16, 1)).repeat(2, axis=1).repeat(2, axis=2)
    kind = rng.integers(0, 3, 60)
    contrast = rng.uniform(20, 40, (60, 1, 1, 1))
    images = 128 + contrast * shapes[kind] + rng.normal(size=(60, 32, 32, 1)) * 5
    return np.clip(images, 0, 255).astype(np.uint8), kind


def test_what_looks_alike_is_found_whatever_its_contrast() -> None:
    images, kind = patterns()
    known = features(images)
    for one in range(60):
        same = np.flatnonzero(kind == kind[one])
        assert set(nearest(known, one, len(same) - 1)) == set(same) - {one}
    found = groups(known)
    assert found[0] == 0 and all(len(set(kind[found == g])) == 1 for g in set(found.tolist()))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_images_or_plain_ones_are_no_trouble(n: int) -> None:
    known = features(np.full((n, 4, 4, 3), 7, np.uint8))
    assert np.isfinite(known).all() and len(groups(known)) == n
    assert len(nearest(known, 0, 12)) == n - 1


# ---- the server --------------------------------------------------------------------------------------------------


def test_nothing_without_the_token(server: ReviewServer) -> None:
    for path in ("/", "/start", "/view", "/rows", "/sheet", "/detail", "/picture", "/since"):
        assert refused(server, path, token="guess")[0] == 403
    assert refused(server, "/decide", {"images": [0], "decision": "junk"}, token="")[0] == 403
    assert server.review.counts()["junk"] == 0
    assert b"script" in ask(server, "/") and refused(server, "/nothing")[0] == 404


def test_a_page_of_another_host_name_gets_nothing(server: ReviewServer) -> None:
    """As after DNS rebinding."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("GET", f"/start?{urlencode({'token': TOKEN})}", headers={"Host": "evil.example:8601"})
    assert connection.getresponse().status == 403


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"images": [], "decision": "junk"},
        {"images": [0], "decision": "maybe"},
        {"images": [40], "decision": "junk"},
        {"images": [-1], "decision": "junk"},
        {"images": [True], "decision": "junk"},
        {"images": ["0"], "decision": "junk"},
        {"images": [0.0], "decision": "junk"},
        {"images": list(range(40)) * 30, "decision": "junk"},
    ],
)
def test_what_is_no_decision_is_refused(server: ReviewServer, body: object) -> None:
    assert refused(server, "/decide", body)[0] == 400 and server.review.counts()["open"] == 40


def test_numbers_that_are_none(server: ReviewServer) -> None:
    assert refused(server, "/detail", i="x") == (400, "i: is not a number")
    assert refused(server, "/detail", i=10**9)[0] == 400 and refused(server, "/picture", i=-1)[0] == 400
    assert refused(server, "/rows", view=77, first=0, count=5)[0] == 410, "a view of an earlier server"
    view = json.loads(ask(server, "/view"))["view"]
    assert json.loads(ask(server, "/rows", view=view, first=10**12, count=5)) == []
    assert len(json.loads(ask(server, "/rows", view=view, first=-5, count=10**12))) == 40


def test_two_pages_see_one_another(server: ReviewServer) -> None:
    log = json.loads(ask(server, "/start"))["log"]
    assert json.loads(ask(server, "/decide", {"images": [3, 4], "decision": "junk"}))["counts"]["junk"] == 2
    other = Decisions(server.review.decisions.url, "another server")
    other.decide([server.review.table.keys.iat[5]], "fine")
    end = time.monotonic() + 20
    while len((seen := json.loads(ask(server, "/since", log=log)))["changed"]) < 3:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert sorted(seen["changed"]) == [[3, "junk"], [4, "junk"], [5, "fine"]]


# ---- from the command line ---------------------------------------------------------------------------------------


def started(run: Path, cache: Path, *options: str) -> tuple[subprocess.Popen, str]:
    """A review in a process of its own, and its page's address."""
    words = [sys.executable, "-m", "trainer", "review", str(run), "--cache", str(cache), "--port", "0", "--no-browser"]
    process = subprocess.Popen([*words, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    line = process.stdout.readline()
    assert "training images to review: http://127.0.0.1:" in line, line
    return process, line.split()[-1]


def test_a_killed_server_loses_nothing_and_its_list_can_be_trained_without(scored: Path, tmp_path: Path) -> None:
    cache, run = scored.parent / "cache", Path(shutil.copytree(scored, tmp_path / "run"))
    out = run / "review"
    process, address = started(run, cache, "--reviewer", "ann")
    place, _, token = address.partition("/?token=")
    view = json.loads(urllib.request.urlopen(f"{place}/view?token={token}").read())
    rows = json.loads(urllib.request.urlopen(f"{place}/rows?token={token}&view={view['view']}&first=0&count=9").read())
    body = json.dumps({"images": [row["i"] for row in rows[:3]], "decision": "junk"}).encode()
    request = urllib.request.Request(f"{place}/decide?token={token}", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request).read()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again, address = started(run, cache)
    assert read_keys(str(out / "exclude.txt")) == {row["key"] for row in rows[:3]}
    again.send_signal(signal.SIGTERM)
    assert again.wait(30) == 0 and again.stdout and "3 junk, 0 fine, 0 unsure" in again.stdout.read()
    labels = pandas.read_csv(out / "labels.csv")
    assert set(labels["by"]) == {"ann"} and set(labels["label"]) == {"junk"}


def test_what_cannot_be_is_said_in_a_line(scored: Path, tmp_path: Path, server: ReviewServer) -> None:
    cache, run = ["--cache", str(scored.parent / "cache"), "--no-browser"], shutil.copytree(scored, tmp_path / "run")
    refuses(lambda: trainer(["review", str(tmp_path / "nothing"), *cache]), "holds no checkpoint")
    refuses(lambda: trainer(["review", str(run), "--by", "L_x", *cache]), "--by L_x is unknown")
    refuses(lambda: trainer(["review", str(run), "--by", "reviewed", *cache]), "decide on 20 at least")
    refuses(lambda: trainer(["review", str(run), "--port", str(server.server_port), *cache]), "give another --port")
