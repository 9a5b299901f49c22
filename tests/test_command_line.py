"""From words to a call: the table of commands, old spellings, words after --, exit codes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from data_tools import command_line
from data_tools.command_line import Command, Program, overview, run, run_program, version
from data_tools.errors import UserError
from data_tools.headings import Heading, docstrings, with_headings
from tests.support.checks import refuses

CALLS: list[tuple] = []


@dataclass(frozen=True)
class Paint:
    """Paint something."""

    what: tyro.conf.Positional[str]
    """What is painted."""
    share: Annotated[float, tyro.conf.arg(name="lambda")] = 0.5
    """How much of it."""

    def __call__(self) -> None:
        if self.what == "nothing":
            raise UserError("nothing: cannot be painted - give a wall")
        CALLS.append((self.what, self.share))


@dataclass(frozen=True)
class With:
    """Do something while a command runs."""

    def __call__(self, command: Sequence[str]) -> None:
        CALLS.append(tuple(command))


HERE = "tests.test_command_line"
PROGRAM = Program(
    "atelier",
    "Paint.",
    {
        "Paint": (Command("paint", "WHAT", "paint something", f"{HERE}:Paint"),),
        "Tidy": (
            Command("brush wash", "", "make it clean", f"{HERE}:Absent"),
            Command("brush buy", "", "another one", f"{HERE}:Absent"),
            Command("with", "-- COMMAND", "meanwhile", f"{HERE}:With", takes_command=True),
        ),
    },
    "Colours are extra.",
    {"--lam": "--lambda"},
)


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    made: list[tuple] = []
    monkeypatch.setattr(f"{HERE}.CALLS", made)
    return made


@pytest.mark.parametrize("words", [["--lambda", "0.25"], ["--lambda=0.25"], ["--lam", "0.25"], ["--lam=0.25"]])
def test_options_reach_the_command_by_old_spellings_too(words: list[str], calls: list[tuple]) -> None:
    run(PROGRAM, ["paint", "a wall", *words])
    assert calls == [("a wall", 0.25)]


def test_words_after_two_dashes_are_a_commands_own(calls: list[tuple], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(PROGRAM, ["with", "--", "ls", "--debug", "--", "-l"]) == 0
    assert run_program(PROGRAM, ["with"]) == 0
    assert calls == [("ls", "--debug", "--", "-l"), ()]
    assert run_program(PROGRAM, ["paint", "a wall", "--", "ls"]) == 2
    assert "-- ls: paint takes no command - leave it out" in capsys.readouterr().err


def test_what_the_user_can_mend_ends_with_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(PROGRAM, ["paint", "nothing"]) == 2
    assert capsys.readouterr().err == "error: nothing: cannot be painted - give a wall\n"
    assert run_program(PROGRAM, ["paint", "--debug", "nothing"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pant"], ("pant: no such command", "did you mean paint?", "paint, brush wash, brush buy and with")),
        (["sing"], ("sing: no such command - choose among paint, brush wash, brush buy and with",)),
        (["brush", "wsh"], ("brush wsh: no such command - did you mean brush wash? There are brush wash and",)),
        (["brush"], ("brush: no such command", "brush wash and brush buy")),
    ],
)
def test_an_unknown_command_is_told_all_and_the_nearest(words: list[str], said: tuple[str, ...]) -> None:
    refuses(lambda: run(PROGRAM, words), *said)


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_the_overview_imports_no_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run(PROGRAM, words)
    said = capsys.readouterr().out
    assert said == overview(PROGRAM) + "\n" and "Colours are extra." in said
    assert all(
        line in said for line in ("  paint WHAT       paint something", "Tidy:", "  brush buy        another one")
    )
    run(PROGRAM, ["brush", "--help"])
    said = capsys.readouterr().out
    assert "brush wash" in said and "paint WHAT" not in said


def test_one_version_installed_or_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(PROGRAM, ["--version"])
    assert capsys.readouterr().out == f"stratagan {version()}\n"
    installed = version()

    def absent(name: str) -> str:
        raise command_line.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(command_line.metadata, "version", absent)
    assert version() == installed, "what pyproject.toml says"
    monkeypatch.setattr(command_line, "PROJECT", Path("nowhere"))
    assert version() == "(version unknown)"


@dataclass(frozen=True)
class Nested:
    """A group of its own."""

    depth: int = 1
    """How deep."""


@dataclass(frozen=True)
class Flat:
    """Options."""

    a: int = 1
    """The first
    of them."""
    b: str = ""
    """The second."""
    nested: Nested = field(default_factory=Nested)
    sizes: dict[int, int] = field(default_factory=lambda: {4: 1})
    """Sizes."""
    c: Annotated[str, tyro.conf.arg(name="sea")] = "x"
    """The third."""


def test_headings_change_the_help_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    default = Flat(a=7, sizes={4: 9})
    headed = with_headings(
        default, [Heading("one", "All in one.", ("c", "nested", "a"))], {"a": tyro.conf.arg(help="A.")}
    )
    words = ["--a", "3", "--sea", "y", "--nested.depth", "2", "--sizes.4", "5"]
    assert tyro.cli(headed, args=[]).flat() == default
    assert tyro.cli(headed, args=words).flat() == tyro.cli(Flat, args=words, default=default)
    with pytest.raises(SystemExit):
        tyro.cli(headed, args=["--help"])
    said = capsys.readouterr().out
    options, _, one = said.partition(" one options ")
    assert "--b STR" in options and "(default: '')" not in said and "The second." in options
    assert "All in one." in one and "--a INT" in one and "A. (default: 7)" in one and "--sea STR" in one
    assert docstrings(Flat)["a"] == "The first of them."
    assert dataclasses.is_dataclass(headed)


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_head(command: str, dataset: Path) -> None:
    words = [sys.executable, "-m", "data_tools", command, str(dataset)]
    words += ["--out", str(dataset.parent / "sheets")] if command == "inspect" else []
    root = Path(__file__).parents[1]
    with subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        process.stdout.close()  # before it has written a line, which `head` may or may not manage
        assert process.stderr.read() == "" and process.wait(60) in (141, 1)  # 1: tables are printed by rich
