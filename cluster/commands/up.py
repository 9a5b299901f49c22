"""python -m cluster up."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cluster.commands.shared import Folder, show
from cluster.local_state import bring_up, default_folder, running
from data_tools.errors import UserError


@dataclass(frozen=True)
class Up:
    """A Ray cluster on this machine; one that is up already is used as it is."""

    folder: Folder = field(default_factory=default_folder)
    nodes: int = 1
    """Ray nodes, including the head."""
    cpus: Annotated[int, tyro.conf.arg(help_behavior_hint="(default: those of this machine)")] = os.cpu_count() or 1
    """CPUs that each node offers."""
    object_store: int = 200
    """MB of memory for Ray's objects, on each node."""
    foreground: bool = False
    """Run the cluster in this process, until Ctrl-C or SIGTERM."""

    def __call__(self) -> None:
        for name, least in (("nodes", 1), ("cpus", 1), ("object_store", 80)):
            if getattr(self, name) < least:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least {least}")
        folder = self.folder.expanduser().resolve()
        if self.foreground:
            from cluster.local import LocalConfig, hold

            hold(LocalConfig(folder, self.nodes, self.cpus, self.object_store * 2**20))
            return
        state = running(folder)
        if state is None:
            sizes = ["--nodes", self.nodes, "--cpus", self.cpus, "--object-store", self.object_store]
            words = [sys.executable, "-m", "cluster", "up", "--foreground", "--folder", folder, *sizes]
            state = bring_up(folder, [str(word) for word in words])
        show(state, folder)
