"""What pip installs: all modules and pages of the four programs, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from cluster.package import PROGRAMS

ROOT = Path(__file__).parents[1]


def test_every_module_and_page_is_in_the_wheel(tmp_path: Path) -> None:
    for program in PROGRAMS:
        shutil.copytree(ROOT / program, tmp_path / program, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)  # built in a copy, since setuptools leaves folders behind
    script = "from setuptools import build_meta; build_meta.build_wheel('made')"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "made").glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        packed = {name for name in file.namelist() if ".dist-info/" not in name}
    here = {
        path.relative_to(ROOT).as_posix()
        for program in PROGRAMS
        for ending in ("py", "html", "js", "typed")
        for path in (ROOT / program).rglob(f"*.{ending}")
    }
    assert packed == here and {f"{program}/py.typed" for program in PROGRAMS} <= packed
