"""Names, lists of keys and files of desktops: no name leads out of its folder, and keys come back as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.__main__ import main as data_tools
from data_tools.dataset.exclusion import read_keys, written_key
from data_tools.dataset.writer import check_target
from data_tools.storage import Folder, inside, write_bytes
from data_tools.walk import is_desktop_file
from tests.support.checks import refuses
from tests.trainer.test_checkpoint import CONFIG
from trainer.run.checkpoint import chosen_checkpoint
from trainer.run.monitor import Monitor


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..", "a/..", "", "a/", "a\0b"])
def test_no_name_leads_out_of_a_folder(tmp_path: Path, name: str) -> None:
    storage = Folder(tmp_path / "f")
    storage.path.mkdir()
    (tmp_path / "x").write_text("keep")
    for action in (
        lambda: inside(storage.path, name),
        lambda: storage.open(name),
        lambda: write_bytes(storage, name, b"lost"),
        lambda: storage.remove(name),
    ):
        refuses(action, "leads out")
    assert (tmp_path / "x").read_text() == "keep" and sorted(p.name for p in tmp_path.iterdir()) == ["f", "x"]


@pytest.mark.parametrize("name", ["../../../other/x", "images-1", "images-000004000/../../x", "x", 7, None, {}, "\n"])
def test_best_json_names_a_checkpoint_or_is_refused(tmp_path: Path, name: Any) -> None:
    (tmp_path / "best.json").write_text(json.dumps({"checkpoint": name}))
    refuses(lambda: chosen_checkpoint(str(tmp_path), best=True), "best.json", "damaged")
    (tmp_path / "best.json").write_text(json.dumps({"checkpoint": "images-000004000"}))
    assert chosen_checkpoint(str(tmp_path), best=True) == f"{tmp_path}/checkpoints/images-000004000"


class Elsewhere(Folder):
    """A store whose listing holds names as S3 may have them."""

    def tree(self) -> list[tuple[str, float]]:
        return [
            (name, 0.0) for name in ("pictures/../../escaped-x.png", "pictures/000000001-a/../../../x.png", "log.txt")
        ]


def test_a_resumed_run_writes_nothing_outside_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Elsewhere(tmp_path / "store")
    write_bytes(store, "log.txt", b"said\n")
    monkeypatch.setattr("trainer.run.monitor.open_storage", lambda url: store)
    monkeypatch.setattr("trainer.run.monitor.tempfile.mkdtemp", lambda prefix: str(_made(tmp_path / "local" / "run")))
    monitor = Monitor("s3://bucket/run", CONFIG.schedule(), 100, print)
    files = {path.relative_to(tmp_path / "local").parts[0] for path in (tmp_path / "local").rglob("*")}
    assert files == {"run"} and (tmp_path / "local/run/log.txt").read_text() == "said\n"
    monitor.close()


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


# Lists of keys

ODD = ["a#b", "#a", '"a"', " a", "a ", "a\nb", "\ud800", "\ufeffa", "a\u2028b", "a # b", "'", "\\"]
KEYS = st.text(st.characters(), min_size=1, max_size=30) | st.sampled_from(ODD)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.sets(KEYS, min_size=1, max_size=8), crlf=st.booleans(), bom=st.booleans())
def test_keys_come_back_as_they_were_written(tmp_path: Path, keys: set[str], crlf: bool, bom: bool) -> None:
    lines = ["# a list", "", *(f"{written_key(key)}  # score 3, p 0.1" for key in keys)]
    text = ("\r\n" if crlf else "\n").join(lines)
    (tmp_path / "list.txt").write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    assert read_keys(str(tmp_path / "list.txt")) == keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a#b\n", {"a#b"}),
        ("a #b\n", {"a"}),
        ("#a\n  # c\nb\t# d", {"b"}),
        ('"a b"  # 1\n"c"\n', {"a b", "c"}),
        ("# junk, worst first\na-1  # 3.2\n\n  b_2\na-1\n", {"a-1", "b_2"}),  # of the released version
    ],
)
def test_lists(tmp_path: Path, text: str, keys: set[str]) -> None:
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    assert read_keys(str(tmp_path / "list.txt")) == keys


def test_lists_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    for content, word in ((b"gr\xf6\xdfe\n", "UTF-8"), (b'"a\n', "quote"), (b'"a" b\n', "quote"), (b'"a"b', "quote")):
        path.write_bytes(content)
        refuses(lambda: read_keys(str(path)), "list.txt", word)


def bom_list(folder: Path) -> Path:
    """troubles.py: an editor put a byte order mark and CRLF into it."""
    (folder / "exclude.txt").write_bytes(b"\xef\xbb\xbf# edited elsewhere\r\nnormal-000003-c003\r\n")
    return folder / "exclude.txt"


def test_bom_list(tmp_path: Path) -> None:
    assert read_keys(str(bom_list(tmp_path))) == {"normal-000003-c003"}


# Files of desktops


def test_finder_dataset(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """troubles.py: a dataset through which a desktop has gone."""
    data_tools(["verify", str(place)])
    before = capsys.readouterr().out
    for name in (".DS_Store", "._manifest.json", "Thumbs.db", "desktop.ini", ".~lock.manifest.json#"):
        (place / name).write_bytes(b"\0\0\0\1Bud1")
    data_tools(["verify", str(place)])
    assert capsys.readouterr().out == before
    (place / "manifest.json").unlink()
    check_target(str(place))  # what a killed writer left, and the desktop's
    assert is_desktop_file("THUMBS.DB") and not any(map(is_desktop_file, ("a.png", ".writer", "_a", "store")))
