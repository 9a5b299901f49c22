"""python -m data_tools simulate: what may be asked for, and where it goes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from data_tools.errors import UserError
from data_tools.simulator.videos import Videos


@dataclass(frozen=True)
class Simulate:
    """Write simulated cell videos in the Baxter layout, with debris as false positives."""

    out: tyro.conf.Positional[Path]
    """Folder to write: a new one, or one that is empty."""
    videos: tyro.conf.OmitArgPrefixes[Videos] = field(default_factory=Videos)
    processes: int = 0
    """Processes; 0 takes one per core."""

    def __call__(self) -> None:
        """Write the experiment; it appears complete or not at all.

        UserError: an option out of range, or `out` is a file or holds something.
        """
        from data_tools.storage.transfer import uploaded

        self.videos.check()
        if self.processes < 0:
            raise UserError(f"--processes {self.processes} is out of range - choose 0 or more")
        self._check_out()
        with uploaded(self.out) as out:
            self._write(out.resolve())

    def _write(self, out: Path) -> None:
        from data_tools.simulator.simulate import write_videos

        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            made = Path(scratch) / out.name
            for line in write_videos(self.videos, made, self.processes):
                print(line, flush=True)
            if out.exists():
                out.rmdir()  # empty, as checked; fails if somebody has filled it meanwhile
            made.rename(out)

    def _check_out(self) -> None:
        from data_tools.storage import open_storage
        from data_tools.storage.transfer import as_url

        if as_url(self.out) and open_storage(as_url(self.out)).names():
            raise UserError(f"{as_url(self.out)}: exists and is not empty - choose another, or remove it")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UserError(f"{self.out}: exists and is not an empty folder - choose another, or remove it")
