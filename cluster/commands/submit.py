"""python -m cluster submit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cluster.commands.shared import Address, Folder
from cluster.local_state import default_folder, running
from data_tools.headings import UNSET


@dataclass(frozen=True)
class Submit:
    """Send a command of ours, the words after --, as a job to a cluster, and follow it. Ctrl-C leaves it running."""

    folder: Folder = field(default_factory=default_folder)
    address: Address = None
    name: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: one that Ray makes)")] = None
    """The job's name."""
    pip: Annotated[tuple[str, ...], UNSET] = ()
    """Packages that the cluster lacks; Ray installs them for the job."""
    keys: bool = True
    """Send this shell's storage settings along: endpoint and keys. A local cluster has those of its own store."""
    detach: bool = False
    """Do not follow the job."""

    def __call__(self, command: Sequence[str]) -> None:
        """SystemExit with the job's status."""
        from cluster import jobs
        from cluster.arguments import check_arguments

        check_arguments(command)
        folder = self.folder.expanduser().resolve()
        address = jobs.find_cluster(self.address, folder)
        state = running(folder)
        local = state is not None and state.dashboard == address
        name = jobs.submit(address, command, self.name, self.keys and not local, self.pip)
        again = f"ray job logs --follow --address {address} {name}"
        print(f"job {name}; Ctrl-C leaves it running: {again}", flush=True)
        if self.detach:
            return
        try:
            status = jobs.follow(address, name)
        except KeyboardInterrupt:
            print(f"\njob {name} goes on: {again}")
            return
        sys.exit(status)
