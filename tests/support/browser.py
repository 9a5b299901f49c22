"""Pages in a real browser: how wide they are on a screen of some width, and what they look like."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--virtual-time-budget=5000",
]
FRAME = """<!doctype html><body style="margin:0"><iframe src="{page}" style="border:0;width:{width}px;height:900px"
onload="let d = this.contentDocument;
document.title = [d.documentElement.scrollWidth,
[...d.images].filter(i => !i.naturalWidth).length].join(' ')"></iframe>"""


def _run(*words: str) -> str:
    assert CHROMIUM
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, *QUIET, f"--user-data-dir={profile}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def measured(page: Path, width: int) -> tuple[int, int]:
    """On a screen of this width: how wide the page wants to be, and how many of its images did not load."""
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"
        frame.write_text(FRAME.format(page=page.resolve().as_uri(), width=width))
        found = re.search(r"<title>(\d+) (\d+)</title>", _run("--window-size=1300,1000", "--dump-dom", frame.as_uri()))
    assert found, "the page did not load"
    return int(found[1]), int(found[2])


def screenshot(page: Path, out: Path, width: int = 1200, dark: bool = False) -> np.ndarray:
    """The page's first 1600 pixels as uint8 H x W x 3, also written to `out`."""
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    _run(*scheme, f"--window-size={width},1600", f"--screenshot={out}", page.resolve().as_uri())
    with Image.open(out) as picture:
        return np.asarray(picture.convert("RGB"))
