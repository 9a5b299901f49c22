"""--help of every command of all four programs: quick, complete, and said once."""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import tyro

from trainer.commands.configured import from_preset
from trainer.commands.train import Train
from trainer.methods import METHODS

ROOT = Path(__file__).parents[1]
PROGRAMS = ("data_tools", "trainer", "tuning", "cluster")
HEAVY = ("torch", "ray", "boto3", "scipy")
CPU_SECONDS = 2.0
"""At most, on a busy machine; a quiet one takes less than half of it."""
SAYS_ITS_HELP = """
import contextlib, importlib, io, json, resource, sys
from data_tools.command_line import run
program, words = importlib.import_module(sys.argv[1] + ".__main__").PROGRAM, sys.argv[2].split()
said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
    run(program, [*words, "--help"])
used = resource.getrusage(resource.RUSAGE_SELF)
said.flush()
facts = {"help": said.buffer.getvalue().decode(), "modules": sorted(sys.modules)}
facts["seconds"] = used.ru_utime + used.ru_stime
print(json.dumps(facts))
"""


def commands() -> Iterator[tuple[str, str]]:
    """Every program with "", its overview, and with each of its commands."""
    for program in PROGRAMS:
        yield program, ""
        yield from ((program, name) for name in importlib.import_module(f"{program}.__main__").PROGRAM.commands)


@lru_cache
def facts_of(program: str, name: str) -> dict:
    """What --help says in a process of its own, the modules it imported, and the CPU seconds it took."""
    words = [sys.executable, "-c", SAYS_ITS_HELP, program, name]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "110"})
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


def options(text: str) -> list[tuple[str, list[str]]]:
    """Each group of a help text: its own sentence, and its options with all that is said of them."""
    found: list[tuple[str, list[str]]] = []
    for box in re.findall(r"╭─ .*?╰─", text, re.DOTALL):
        lines = [line.strip("│ ") for line in box.splitlines()[1:-1]]
        cut = next((i + 1 for i, line in enumerate(lines) if line.startswith("──")), 0)
        said: list[str] = []
        for line, raw in zip(lines[cut:], box.splitlines()[1 + cut : -1]):
            if raw.startswith("│  "):
                said[-1] += " " * 3 + line
            else:
                said.append(line)
        found.append((" ".join(lines[: max(cut - 1, 0)]), said))
    return found


QUICK = ("train", "sweep", "serve", "images")
"""A command of each program; each takes a process of its own."""
EACH = [each if each[1] in QUICK else pytest.param(*each, marks=pytest.mark.slow) for each in commands()]


@pytest.mark.parametrize(("program", "name"), EACH)
def test_help_is_quick(program: str, name: str) -> None:
    facts = facts_of(program, name)
    print(f"{program} {name}: {facts['seconds']:.2f} CPU seconds")
    assert not set(HEAVY) & set(facts["modules"])
    assert facts["seconds"] < CPU_SECONDS


METHOD_HELPS = [pytest.param("trainer", f"train --method {name}", marks=pytest.mark.slow) for name in METHODS]


@pytest.mark.parametrize(("program", "name"), [*(pair for pair in commands() if pair[1]), *METHOD_HELPS])
def test_every_option_is_explained_and_no_default_is_said_twice(program: str, name: str) -> None:
    text = facts_of(program, name)["help"]
    assert f"usage: python -m {program} {name.split(' --')[0]} [-h]" in text
    groups = options(text)
    assert groups
    for sentence, said in groups:
        for option in said:
            explained = " ".join(option.partition("  ")[2].split())
            sentences = re.sub(r"\(default: [^()]*\)$|\(required[^()]*\)$", "", explained).strip()
            assert sentence or sentences.endswith((".", "exit")), option
            assert explained.count("(default") <= 1 and "[default" not in explained, option
            assert not re.search(r"\(default: (''|None)?\)", explained), option


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_overview_lists_every_command(program: str) -> None:
    text = facts_of(program, "")["help"]
    assert all(f"\n  {name} " in text for of, name in commands() if of == program and name)
    assert max(map(len, text.splitlines())) <= 120


def test_what_is_said_of_the_cache_is_what_it_does() -> None:
    """tests/data_tools/test_cache.py shows that it does."""
    texts = {place: facts_of(*place)["help"] for place in commands()}
    told = {place: " ".join(text.replace("│", " ").split()) for place, text in texts.items() if "--cache-limit" in text}
    assert len(told) >= 6
    assert all("least recently used entries are evicted first" in text for text in told.values())


def test_the_options_of_one_method_are_shown_and_those_of_all_are_read() -> None:
    text = facts_of("trainer", "train --preset study --method geom")["help"]
    assert "--geom.depth" in text and "--svdd.width" not in text
    assert "--geom.depth" not in facts_of("trainer", "train")["help"]
    config = from_preset(Train, ["--preset", "demo"])
    read = tyro.cli(config, args=["--preset", "demo", "--svdd.width", "8"])
    assert read.config.flat().svdd.width == 8


def test_an_old_spelling_is_not_shown() -> None:
    for program, name in (("trainer", "score"), ("trainer", "audit"), ("trainer", "export"), ("cluster", "score")):
        text = facts_of(program, name)["help"]
        assert "--lambda FLOAT" in text and not re.search(r"--lam\b", text)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_itself(program: str) -> None:
    """By its front door, since the other tests call what stands behind it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", program, "--version"], cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and re.fullmatch(r"stratagan \d+\.\d+.*\n", done.stdout)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < CPU_SECONDS
