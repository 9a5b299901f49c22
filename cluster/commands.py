"""python -m cluster up, down, status and submit: what each takes, as a typed command line, and what it says."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster import jobs
from cluster.local import EXPORTS, LocalConfig, hold
from cluster.local_state import LocalState, bring_down, bring_up, default_folder, running
from data_tools.errors import UserError


@dataclass(frozen=True)
class Up:
    """A Ray cluster on this machine; one that is up already is used as it is."""

    folder: Path = field(default_factory=default_folder)
    """Where it keeps its state, its store and its logs."""
    nodes: int = 1
    """Ray nodes, the head among them."""
    cpus: int = os.cpu_count() or 1
    """CPUs that each node offers."""
    object_store: int = 200
    """MB of memory for Ray's objects, on each node."""
    foreground: bool = False
    """Hold the cluster in this very process, until Ctrl-C or SIGTERM."""

    def run(self, command: Sequence[str]) -> None:
        no_command(command)
        for name, least in (("nodes", 1), ("cpus", 1), ("object_store", 80)):
            if getattr(self, name) < least:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least {least}")
        folder = self.folder.expanduser().resolve()
        config = LocalConfig(folder, self.nodes, self.cpus, self.object_store * 2**20)
        if self.foreground:
            hold(config)
            return
        state = running(folder)
        if state is None:
            sizes = ["--nodes", self.nodes, "--cpus", self.cpus, "--object-store", self.object_store]
            words = [sys.executable, "-m", "cluster", "up", "--foreground", "--folder", folder, *sizes]
            state = bring_up(folder, [str(word) for word in words])
        _show(state, folder)


@dataclass(frozen=True)
class Down:
    """End the Ray cluster on this machine with all that belongs to it; the store's objects stay."""

    folder: Path = field(default_factory=default_folder)
    """Where it keeps its state."""

    def run(self, command: Sequence[str]) -> None:
        no_command(command)
        folder = self.folder.expanduser().resolve()
        state = running(folder)
        if state is None:
            print(f"no cluster runs on {folder}")
            return
        bring_down(state, folder)
        print(f"the cluster on {folder} is down; its store's objects stay in {folder / 'store'}")


@dataclass(frozen=True)
class Status:
    """Where the cluster is, its nodes and its jobs."""

    folder: Path = field(default_factory=default_folder)
    """Where a local cluster keeps its state."""
    address: str | None = None
    """The dashboard of another cluster, http://HOST:8265 [default: RAY_API_SERVER_ADDRESS, else the local one]."""

    def run(self, command: Sequence[str]) -> None:
        no_command(command)
        folder = self.folder.expanduser().resolve()
        address = jobs.find_cluster(self.address, folder)
        nodes, listed = jobs.overview(address)
        state = running(folder)
        if state and state.dashboard == address:
            _show(state, folder)
        print(f"{len(nodes)} nodes: {', '.join(nodes)}")
        for line in listed:
            print(line)


@dataclass(frozen=True)
class Submit:
    """Send a command of ours, the words after --, as a job to a cluster, and follow it. Ctrl-C leaves it running."""

    folder: Path = field(default_factory=default_folder)
    """Where a local cluster keeps its state."""
    address: str | None = None
    """The dashboard of another cluster, http://HOST:8265 [default: RAY_API_SERVER_ADDRESS, else the local one]."""
    name: str | None = None
    """The job's name [default: one that Ray makes]."""
    pip: tuple[str, ...] = ()
    """Packages that the cluster lacks; Ray installs them for the job."""
    keys: bool = True
    """Send the keys of the storage along. A local cluster has its store's anyway."""
    detach: bool = False
    """Do not follow the job."""

    def run(self, command: Sequence[str]) -> None:
        """SystemExit with the job's status."""
        jobs.check_words(command)
        address = jobs.find_cluster(self.address, self.folder.expanduser().resolve())
        state = running(self.folder.expanduser().resolve())
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


def no_command(command: Sequence[str]) -> None:
    """UserError where words come after -- of a command that takes none."""
    if command:
        raise UserError(f"-- {command[0]}: takes no command - leave it out")


def _show(state: LocalState, folder: Path) -> None:
    print(f"dashboard    {state.dashboard}")
    print(f"tensorboard  {state.tensorboard}    (runs under {state.store}/runs)")
    print(f"store        {state.store}")
    print(f"for this shell, to use ray, aws and our commands with it:\n    source {folder / EXPORTS}")
