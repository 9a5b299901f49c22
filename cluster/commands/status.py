"""python -m cluster status."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.commands.shared import Address, Folder, show
from cluster.local_state import default_folder, running


@dataclass(frozen=True)
class Status:
    """Where the cluster is, its nodes and its jobs."""

    folder: Folder = field(default_factory=default_folder)
    address: Address = None

    def __call__(self) -> None:
        from cluster import jobs

        folder = self.folder.expanduser().resolve()
        address = jobs.find_cluster(self.address, folder)
        nodes, listed = jobs.overview(address)
        state = running(folder)
        if state and state.dashboard == address:
            show(state, folder)
        print(f"{len(nodes)} nodes: {', '.join(nodes)}")
        for line in listed:
            print(line)
