"""The image of k8s/Dockerfile: what it copies, and its steps in a fresh environment."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "k8s/Dockerfile"


def test_the_dockerfile_is_clean() -> None:
    done = subprocess.run([f"{sys.prefix}/bin/hadolint", str(DOCKERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_all_programs_are_copied() -> None:
    copied = re.findall(r"^COPY (\S+) (\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {source for source, _ in copied} == {package.removesuffix("*") for package in packages}
    assert all(source == target and (ROOT / source).is_dir() for source, target in copied)


@pytest.mark.slow
def test_its_steps_work_in_a_fresh_environment(tmp_path: Path) -> None:
    text = DOCKERFILE.read_text()
    (version,) = re.findall(r"^ARG RAY_VERSION=(\S+)$", text, re.MULTILINE)
    (step,) = re.findall(r"^RUN (python -m pip .*)$", text, re.MULTILINE)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv/bin/python")
    words = [word.replace("${RAY_VERSION}", version) for word in shlex.split(step)]
    subprocess.run([python, *words[1:]], cwd=ROOT, check=True)
    for program in ("data_tools", "trainer", "tuning", "cluster"):
        done = subprocess.run(
            [python, "-m", program, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert f"python -m {program}" in done.stdout
    for program in ("ray", "tensorboard", "weed"):
        assert (tmp_path / "venv/bin" / program).exists()
    said = subprocess.run([f"{tmp_path}/venv/bin/ray", "--version"], capture_output=True, text=True, check=True).stdout
    assert version in said
