"""Jobs on a Ray cluster: sent, followed, with the exit status of their command."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.local_state import running
from cluster.package import package
from data_tools.errors import UserError
from data_tools.storage import local_path, url_forms

PATHS = ("--data", "--out", "--from", "--run", "--images")
"""Options of our commands whose values are folders or URLs."""


def find_cluster(address: str | None, folder: Path) -> str:
    """The dashboard's address: the one given, RAY_API_SERVER_ADDRESS, or the local cluster's, whose token is taken.

    Errors: UserError where there is none.
    """
    if found := address or os.environ.get("RAY_API_SERVER_ADDRESS"):
        return found
    state = running(folder)
    if state is None:
        raise UserError("no cluster - start one with python -m cluster up, or give --address http://HOST:8265 of yours")
    os.environ.update(state.environment)
    return state.dashboard


@contextmanager
def client_of(address: str) -> Iterator[Any]:
    """A client of Ray's for jobs; what goes wrong with it is one line."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray.dashboard").setLevel(logging.WARNING)  # what there is to say is said by us
    logging.getLogger("ray._private.runtime_env").setLevel(logging.WARNING)
    try:
        yield JobSubmissionClient(address)
    except AuthenticationError as error:
        raise UserError(
            f"{address}: refuses our token - set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the cluster's file"
        ) from error
    except (ConnectionError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise UserError(f"{address}: no Ray cluster answers ({text[:160]}) - see python -m cluster status") from error


def check_words(command: Sequence[str]) -> None:
    """UserError where a job's command is none, or names a folder that only this machine has."""
    if not command:
        raise UserError("no command - give one after --, as in python -m cluster submit -- python -m trainer train ...")
    pairs = [word.split("=", 1) for word in command if word.startswith("--") and "=" in word]
    pairs += [list(pair) for pair in itertools.pairwise(command)]
    for option, value in pairs:
        if option in PATHS and local_path(value) and not value.startswith("/"):
            raise UserError(
                f"{option} {value}: the cluster does not know this folder - give {url_forms()}, or a whole path that"
                " all its machines share"
            )


def submit(address: str, command: Sequence[str], name: str | None, with_storage: bool, pip: Sequence[str]) -> str:
    """Send a command as a job; returns the job's name.

    with_storage: send the keys of the storage along. pip: packages that the cluster lacks.
    """
    with client_of(address) as client, package(with_storage) as ours:
        runtime: dict[str, Any] = {"working_dir": str(ours.folder), "env_vars": ours.environment}
        if pip:
            runtime["pip"] = list(pip)
        for note in ours.notes:
            print(note, file=sys.stderr, flush=True)
        print(f"sending {ours.size / 2**20:.2f} MB of code to {address}", flush=True)
        return client.submit_job(entrypoint=shlex.join(command), submission_id=name, runtime_env=runtime)


def follow(address: str, job: str) -> int:
    """Show a job's log until it ends; returns its exit status. KeyboardInterrupt leaves the job alone."""
    with client_of(address) as client:
        asyncio.run(_show(client, job))
        info = client.get_job_info(job)
    if info.status == "SUCCEEDED":
        return 0
    reason = (info.message or "").partition(", last available logs")[0]
    print(f"job {job}: {info.status.lower()}{f' ({reason})' if reason else ''}", flush=True)
    return info.driver_exit_code or 1


def overview(address: str) -> tuple[list[str], list[str]]:
    """A cluster's nodes that are alive, and a line for each of its jobs, the newest last."""
    from ray.util.state import list_nodes

    with client_of(address) as client:
        known: list[Any] = list_nodes(address)
        found = sorted((job for job in client.list_jobs() if job.submission_id), key=lambda job: job.start_time or 0)
    nodes = [node.node_ip for node in known if node.state == "ALIVE"]
    return nodes, [f"job {job.submission_id}  {job.status:9}  {job.entrypoint}" for job in found]


async def _show(client: Any, job: str) -> None:
    async for lines in client.tail_job_logs(job):
        print(lines, end="", flush=True)
