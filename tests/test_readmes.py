"""What the READMEs say: links lead somewhere, commands are ones that the programs take, the first ones run."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.command_line import Program, find_command, parsed

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("tuning/results/**/*.md")]
    if not path.parent.name.startswith(".")
)
WORDS = 1500
TINY = (
    "--resolution 8 --width 8 --fade-images 32 --stable-images 32 --final-images 64 --minibatch.4 16 --minibatch.8 16"
    " --log-images 32 --workers 0 --precision float32"
)
"""In place of a quarter of an hour; without Ray, whose workers other tests have."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks_of(path: Path) -> list[str]:
    """What stands in fences without a language."""
    return re.findall(r"^```\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands_of(path: Path) -> list[str]:
    """Lines of ours, joined where one goes on, without comments; those where words are left open are not among them."""
    lines = "\n".join(blocks_of(path)).replace("\\\n", " ").splitlines()
    said = [re.split(r"\s#|\s\|\s", line)[0].strip() for line in lines if not re.search(r"…|\s\|\s", line)]
    said = [re.sub(r"^python -m cluster (submit|store STORE) -- ", "", line) for line in said]
    return [line for line in said if re.match(r"python -m (data_tools|trainer|tuning|cluster) ", line)]


def anchor_of(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= WORDS


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(anchor_of, headings), target


COMMANDS = sorted({(name_of(path), line) for path in PAGES for line in commands_of(path)})


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 30 and len({page for page, _ in COMMANDS}) >= 5


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_is_one_that_the_program_takes(page: str, line: str) -> None:
    """With its options, but for files and runs that have to be there."""
    words = shlex.split(line)
    program: Program = importlib.import_module(f"{words[2]}.__main__").PROGRAM
    command, rest = find_command(program, words[3:])
    assert parsed(program, command, rest)


def make_images(folder: Path) -> None:
    rng = np.random.default_rng(1)
    for kind, count in (("normal", 150), ("anomaly", 30)):
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 120 if kind == "normal" else 256, (16, 16), np.uint8)
            Image.fromarray(image).save(folder / kind / f"{number:03d}.png")


@pytest.mark.slow
def test_the_first_pages_own_images_run_from_the_first_command_to_the_last(tmp_path: Path) -> None:
    make_images(tmp_path / "images")
    make_images(tmp_path / "new")
    (tmp_path / "new/normal").rename(tmp_path / "new_images")
    ran = []
    for line in commands_of(ROOT / "README.md"):
        if "s3://" in line or "-m cluster" in line or "-m tuning" in line:
            continue  # a cluster's have tests of their own, tuning's take the presets as they are
        line = line.replace("--resolution 64", "--resolution 16 --test-size 10").replace("--workers 2", "")
        line = line.replace("--preset cells-small", f"--preset cells-small {TINY}")
        line = line.replace("--contamination 0.02", "--contamination 0.1").replace("python", sys.executable, 1)
        env = os.environ | {"PYTHONPATH": str(ROOT), "STRATAGAN_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(shlex.split(line), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (line, done.stderr[-2000:])
        ran.append(shlex.split(line)[3])
    assert ran == ["images", "inspect", "train", "evaluate", "score", "audit", "train", "score", "export"]
    assert (tmp_path / "detector/score.py").is_file() and (tmp_path / "scores.csv").is_file()


def test_there_is_one_version_number() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert re.search(rf"^version: {re.escape(project)}$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert f"## {project}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"stratagan:{project}-" in (ROOT / "k8s/README.md").read_text("utf-8")
