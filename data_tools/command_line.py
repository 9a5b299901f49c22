"""The command line of all four programs: a table of commands, the overview, and the way from words to a call.

A command is a dataclass whose fields are its options and whose `__call__` does the work. Its module is imported only
when the command runs, so an overview costs nothing; neither does importing this file.
"""

from __future__ import annotations

import difflib
import importlib
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from data_tools.errors import UserError, run_command

HELP = ("-h", "--help")
PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


@dataclass(frozen=True)
class Command:
    """A line of a program's table.

    name: one word, or two such as "cache list". usage: what is shown after the name in the overview. line: what it
    does. place: the dataclass, as "module:Class". through: a function, as "module:function", that makes what tyro reads
    of the class and the words; for commands whose options depend on more than the class. takes_command: words after --
    are a command, which `__call__` is given.
    """

    name: str
    usage: str
    line: str
    place: str
    through: str = ""
    takes_command: bool = False


@dataclass(frozen=True)
class Program:
    """One of the programs: python -m NAME.

    groups: commands under a heading each. notes: text below them, or a function that makes it. renamed: old spellings
    of options, which are still understood, and what they are called now.
    """

    name: str
    title: str
    groups: Mapping[str, Sequence[Command]]
    notes: str | Callable[[], str] = ""
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def commands(self) -> dict[str, Command]:
        return {command.name: command for group in self.groups.values() for command in group}


def run_program(program: Program, argv: Sequence[str]) -> int:
    """Run a program; return its exit code, as `run_command` has it."""
    words, command = list(argv), list[str]()
    # Cut here, since `run_command` takes --debug from anywhere and the command after -- may have its own.
    if "--" in words and any(known.takes_command for known in program.commands.values()):
        cut = words.index("--")
        words, command = words[:cut], words[cut + 1 :]
    return run_command(lambda rest: run(program, rest, command), words)


def run(program: Program, argv: Sequence[str], command: Sequence[str] = ()) -> None:
    """Run the command that the words name; UserError for what the user can fix.

    command: the words that came after --.
    """
    if not argv or argv[0] in HELP:
        print(overview(program))
    elif argv[0] == "--version":
        print(f"stratagan {version()}")
    elif argv[0] in _families(program) and set(argv[1:2]) & set(HELP):
        print(overview(program, argv[0]))
    else:
        asked, words = find_command(program, argv)
        if command and not asked.takes_command:
            raise UserError(f"-- {command[0]}: {asked.name} takes no command - leave it out")
        call = parsed(program, asked, words)
        call(command) if asked.takes_command else call()


def parsed(program: Program, command: Command, words: Sequence[str]) -> Callable[..., None]:
    """The command with its options as given; SystemExit after --help and for words that tyro cannot place."""
    import tyro

    kind = _imported(command.place)
    if command.through:
        kind = _imported(command.through)(kind, list(words))
    return tyro.cli(
        kind,
        args=[_with_home(word) for word in _renamed(words, program.renamed)],
        prog=f"python -m {program.name} {command.name}",
        config=(tyro.conf.PositionalMetavarFromFieldName, tyro.conf.DisallowNone),
    )


def overview(program: Program, family: str = "") -> str:
    """What a program can do: all of it, or the commands whose first word is `family`."""
    shown = {
        heading: [command for command in group if not family or command.name.split()[0] == family]
        for heading, group in program.groups.items()
    }
    width = max(len(f"{command.name} {command.usage}") for group in shown.values() for command in group)
    called = f"{program.name} {family}".strip()
    lines = [f"usage: python -m {called} COMMAND ...", "", program.title]
    for heading, group in shown.items():
        if group:
            lines += ["", f"{heading}:"] if heading else [""]
            lines += [f"  {f'{command.name} {command.usage}':{width}}  {command.line}" for command in group]
    notes = program.notes if isinstance(program.notes, str) else program.notes()
    lines += ["", notes] if notes and not family else []
    return "\n".join([*lines, "", f"python -m {called} COMMAND --help lists the options of a command."])


def version() -> str:
    """The one version number of all programs, from the installed package or from the checkout."""
    try:
        return metadata.version("stratagan")
    except metadata.PackageNotFoundError:
        return (
            tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["version"]
            if PROJECT.is_file()
            else "(version unknown)"
        )


def _families(program: Program) -> set[str]:
    """First words of commands that have two."""
    return {name.split()[0] for name in program.commands if " " in name}


def find_command(program: Program, argv: Sequence[str]) -> tuple[Command, list[str]]:
    """The command, and the words that are left; UserError names all commands, and the nearest one."""
    commands = program.commands
    for count in (2, 1):
        if (name := " ".join(argv[:count])) in commands:
            return commands[name], list(argv[count:])
    asked, known = argv[0], list(commands)
    if argv[0] in _families(program):
        asked, known = " ".join(argv[:2]), [name for name in commands if name.split()[0] == argv[0]]
    near = difflib.get_close_matches(asked, known, 1)
    meant = f"did you mean {near[0]}? There are" if near else "choose among"
    raise UserError(f"{asked}: no such command - {meant} {', '.join(known[:-1])} and {known[-1]}")


def _renamed(words: Sequence[str], renamed: Mapping[str, str]) -> Iterator[str]:
    for word in words:
        option, equals, value = word.partition("=")
        yield renamed.get(option, option) + equals + value


def _with_home(word: str) -> str:
    """A shell makes ~ the home at the beginning of a word alone; here it is that of an option's value, too."""
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return option + equals + os.path.expanduser(value)


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
