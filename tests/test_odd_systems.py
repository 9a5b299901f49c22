"""Other people's machines: text in any locale, ~, errors of the operating system, tables in spreadsheets.

What is wrong with other people's files, stores and clusters is in test_troubles_*.py; every case that people have
reported stands in one of these files by its name.
"""

from __future__ import annotations

import ast
import csv
import errno
import importlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import data_tools.errors
from data_tools.command_line import Program, parsed
from data_tools.errors import describe, run_command
from data_tools.text import CsvWriter, cell, decoded, readable
from data_tools.untrusted import object_name, parse_json, relative_name, whole

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("data_tools", "trainer", "tuning", "cluster")
# fmt: off
REPORTED = [
    "tar_bad_header", "tar_hole", "tar_hard_link", "linked_folder", "other_endings", "tar_dotted_names",
    "white_is_zero_16", "int8", "uint32", "float64", "jpeg2000_tiff", "twelve_bits", "bad_exif", "capital_names",
    "latin1_score", "latin1_many", "latin1_audit", "unreadable_file", "parquet_struct", "one_empty_file",
    "long_name", "mac_tar", "dangling_hidden", "pipe", "finder_dataset", "bom_list", "latin1_locale", "tilde_audit",
    "moved_data", "read_only_run", "twice_gamma", "ray_nobody", "ray_http", "full_tmp", "long_tmp", "head",
    "same_job_name", "endpoint_in_file", "session_token", "store_501", "key_with_newline", "store_expired",
    "store_page", "old_bucket", "public_bucket", "file_and_folder", "served_palette",
]
# fmt: on


def test_every_reported_case_has_a_test_by_its_name() -> None:
    assert len(REPORTED) == 47
    text = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    text = re.sub(r"REPORTED = \[[^]]*\]", "", text)
    missing = [name for name in REPORTED if name not in text]
    assert not missing


# ---- text ----


def _text_calls(path: Path) -> list[str]:
    """Calls that open text without saying in which encoding."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or {k.arg for k in node.keywords} & {"encoding", None}:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        words = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
        modes = [word for word in words if isinstance(word, str) and re.fullmatch(r"[rwaxbt+]{1,3}", word)]
        opens_text = name == "open" and (modes or isinstance(node.func, ast.Name)) and not any("b" in m for m in modes)
        if name in ("read_text", "write_text") or opens_text:
            found.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_text_file_is_opened_as_utf8(program: str) -> None:
    """PLW1514 finds those whose type it can see; this finds all."""
    assert [call for path in (ROOT / program).rglob("*.py") for call in _text_calls(path)] == []


def test_the_search_for_such_calls_finds_them(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("open(x)\nopen(x, 'w')\np.open('a')\np.read_text()\nopen(x, 'rb')\nstore.open(x)\n")
    assert len(_text_calls(tmp_path / "a.py")) == 4


def _run(words: list[str], **variables: str) -> subprocess.CompletedProcess[bytes]:
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", *words], env=os.environ | plain | variables, capture_output=True, timeout=120
    )


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_latin1_locale_help_with_greek_letters_is_shown_in_any_locale(locale: str) -> None:
    found = _run(["cluster", "score", "--help"], LC_ALL=locale, PYTHONIOENCODING="latin-1")
    assert found.returncode == 0, found.stderr
    assert b"usage" in found.stdout and b"Traceback" not in found.stderr


def test_a_mark_at_the_beginning_is_no_part_of_the_text() -> None:
    assert decoded(b"\xef\xbb\xbfa\n") == "a\n" and decoded("ä".encode()) == "ä"
    with pytest.raises(UnicodeDecodeError):
        decoded(b"gr\xf6\xdfe")


@given(st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name))
def test_any_name_can_be_written(name: bytes) -> None:
    shown = readable(os.fsdecode(name))
    assert shown.encode() == name or "\\x" in shown
    assert readable(shown) == shown


def test_names_that_are_utf8_stay_and_others_show_their_bytes() -> None:
    assert readable("größe.png") == "größe.png"
    assert readable(os.fsdecode(b"gr\xf6\xdfe.png")) == "gr\\xf6\\xdfe.png"


# ---- tables ----


@given(st.lists(st.text(st.characters(exclude_characters="\r\0")), min_size=1, max_size=5))
def test_a_table_is_read_back_and_no_spreadsheet_runs_a_cell(row: list[str]) -> None:
    file = io.StringIO()
    CsvWriter(file).writerow([*row, "end"])
    (back,) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    for before, after in zip(row, back):
        assert after.removeprefix("'") == readable(before).removeprefix("'")
        assert not re.match(r"[=+\-@\t\r\n]", after) or re.fullmatch(
            r"[-+]?[\d.]+(e[-+]?\d+)?|[-+](inf|nan)", after, re.I
        )


@pytest.mark.parametrize("number", ["-0.5", "+1", "-1e-07", "-inf", "0"])
def test_numbers_stay_numbers(number: str) -> None:
    assert cell(number) == number and cell(float(number)) == float(number)


@pytest.mark.parametrize("text", ["=1+1.png", "@SUM(A1)", "-2+3+cmd|' /C calc'!A0", "\t=1", "+a"])
def test_formulas_become_text(text: str) -> None:
    assert cell(text) == f"'{text}"


def test_no_csv_is_written_past_the_one_writer() -> None:
    writers = [
        path
        for program in PROGRAMS
        for path in (ROOT / program).rglob("*.py")
        if re.search(r"csv\.(writer|DictWriter)|\.to_csv", path.read_text())
    ]
    assert [path.name for path in writers] == ["text.py", "standalone.py"]  # the latter runs without us, on numbers


# ---- what comes from outside ----


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "NaN",
        "[1, Infinity]",
        "9" * 5000,
        "{",
        "",
        '"\ud800'.encode("utf-8", "surrogatepass"),
    ],
)
def test_json_that_is_none_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def test_json_that_is_too_long_is_not_read() -> None:
    with pytest.raises(ValueError, match="more than 100 bytes"):
        parse_json(b"[" + b" " * 100 + b"]", most=100)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_json_is_read_as_written(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\0", "a\n", "x" * 256, "\udcff", 5, None])
def test_names_that_lead_elsewhere_are_refused(name: object) -> None:
    with pytest.raises(ValueError):
        object_name(name)


@pytest.mark.parametrize("name", ["../a", "a/../b", "/etc/passwd", "a//b", "a/", "a/./b"])
def test_paths_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        relative_name(name)


def test_plain_names_pass() -> None:
    assert relative_name("pictures/größe 1.png") == "pictures/größe 1.png"
    assert whole(5, 0, 10, "count") == 5
    for value in (True, 5.0, "5", -1, 11, 2**80):
        with pytest.raises(ValueError, match="count"):
            whole(value, 0, 10, "count")


# ---- errors of the operating system ----


def _raising(error: BaseException) -> int:
    def command(argv: list[str]) -> None:
        raise error

    return run_command(command, [])


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EACCES, "permission"),
        (errno.EROFS, "can be written to"),
        (errno.ENOENT, "fix the path"),
        (errno.ENAMETOOLONG, "shorter path"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ELOOP, "circle"),
        (errno.EADDRINUSE, "another port"),
        (errno.EXDEV, "fix that"),
    ],
)
def test_each_error_has_its_own_remedy(number: int, remedy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _raising(OSError(number, os.strerror(number), "/some/file")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: /some/file: {os.strerror(number)} - ") and remedy in line
    assert ("free space" in line) == (number == errno.ENOSPC)


def test_a_name_that_is_bytes_is_shown() -> None:
    assert describe(OSError(errno.ENOENT, "No such file", b"gr\xf6")).startswith(os.fsdecode(b"gr\xf6") + ": ")


def test_a_socket_with_a_long_path_is_told_apart() -> None:
    assert describe(OSError("AF_UNIX path too long")).endswith("set TMPDIR to a shorter path")


def test_head_who_reads_no_further_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "many.py").write_text(
        "import sys\nfrom data_tools.errors import run_command\n"
        "sys.exit(run_command(lambda argv: [print('line', i) for i in range(100_000)], []))\n"
    )
    words = f"{sys.executable} {tmp_path / 'many.py'} | head -1"
    found = subprocess.run(words, shell=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert (found.stdout, found.stderr) == (b"line 0\n", b"")


# ---- ~ ----


def _program(name: str) -> Program:
    return importlib.import_module(f"{name}.__main__").PROGRAM


@pytest.mark.parametrize(
    ("program", "command", "words"),
    [
        ("data_tools", "simulate", ["~/a"]),
        ("data_tools", "inspect", ["~/a", "--out=~/b"]),
        ("data_tools", "images", ["~/a", "--out=~/b"]),
        ("data_tools", "cache list", ["--cache=~/a"]),
        ("trainer", "train", ["--preset=demo", "--data=~/a", "--out=~/b", "--exclude=~/c", "--cache=~/d"]),
        ("trainer", "score", ["~/a", "~/b", "--out=~/c", "--heatmaps=~/d", "--cache=~/e"]),
        ("trainer", "audit", ["~/a", "--out=~/b"]),
        ("trainer", "export", ["~/a", "--out=~/b"]),
        ("trainer", "evaluate", ["~/a", "--data=~/b"]),
        ("tuning", "sweep", ["--data=~/a", "--out=~/b", "--preset=study"]),
        ("tuning", "report", ["~/a", "--out=~/b"]),
        ("cluster", "score", ["--run=~/a", "--images=~/b", "--out=~/c"]),
        ("cluster", "up", ["--folder=~/a"]),
        ("cluster", "store", ["~/a"]),
    ],
)
def test_tilde_audit_and_all_others_take_the_home(
    program: str, command: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    table = _program(program)
    shown = repr(parsed(table, table.commands[command], words))
    assert "~" not in shown
    assert all(f"/home/someone/{word[-1]}" in shown for word in words if "~" in word)


def test_other_tildes_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    table = _program("trainer")
    shown = repr(parsed(table, table.commands["score"], ["run~1", "a/~/b", "--out=c~"]))
    assert "run~1" in shown and "a/~/b" in shown and "c~" in shown


def test_errors_has_one_remedy_table() -> None:
    assert all(remedy and "\n" not in remedy for remedy in data_tools.errors.REMEDIES.values())
