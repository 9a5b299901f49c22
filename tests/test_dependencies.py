"""What is installed: a range for users, one set of versions for make, CI and the image."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_what_is_pinned_lies_in_the_packages_range_and_is_what_runs_here() -> None:
    ranges = {each.name: each.specifier for each in map(Requirement, PROJECT["dependencies"])}
    for name, pinned in pins().items():
        assert ranges[name].contains(pinned) and len(ranges[name]) == 2, f"{name} has a lower and an upper bound"
        assert version(name).split("+")[0] == pinned


def test_make_the_image_and_so_hosted_ci_install_what_is_pinned() -> None:
    for file in ("Makefile", "k8s/Dockerfile"):
        installs = re.findall(r"pip install .*", (ROOT / file).read_text())
        assert installs and all("-c constraints.txt" in line for line in installs), file
    assert re.search(r"run: make test", (ROOT / ".github/workflows/tests.yml").read_text())


def test_every_requirement_has_a_lower_bound() -> None:
    extras = PROJECT["optional-dependencies"].values()
    for each in map(Requirement, [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]):
        assert each.name == "stratagan" or any(one.operator in (">=", "==") for one in each.specifier), each
