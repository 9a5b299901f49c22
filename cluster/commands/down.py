"""python -m cluster down."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.commands.shared import Folder
from cluster.local_state import bring_down, default_folder, running


@dataclass(frozen=True)
class Down:
    """End the Ray cluster on this machine with all that belongs to it; the store's objects stay."""

    folder: Folder = field(default_factory=default_folder)

    def __call__(self) -> None:
        folder = self.folder.expanduser().resolve()
        state = running(folder)
        if state is None:
            print(f"no cluster runs on {folder}")
            return
        bring_down(state, folder)
        print(f"the cluster on {folder} is down; its store's objects stay in {folder / 'store'}")
