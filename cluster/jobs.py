"""Jobs on a Ray cluster: sent, followed, with the exit status of their command; what goes wrong is one line."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.local_state import running
from cluster.package import package
from data_tools.errors import UserError

SEE = "see python -m cluster status"


def find_cluster(address: str | None, folder: Path) -> str:
    """The dashboard's address: the one given, RAY_API_SERVER_ADDRESS, or the local cluster's, whose token is taken.

    Errors: UserError where there is none.
    """
    if result := address or os.environ.get("RAY_API_SERVER_ADDRESS"):
        return result
    state = running(folder)
    if state is None:
        raise UserError("no cluster - start one with python -m cluster up, or give --address http://HOST:8265 of yours")
    os.environ.update(state.environment)
    return state.dashboard


@contextmanager
def client_of(address: str) -> Iterator[Any]:
    """A client of Ray's for jobs; what goes wrong with it is one line."""
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient
    from ray.util.state.exception import RayStateApiException, ServerUnavailable

    shown = re.sub(r"//[^/@]*@", "//", address)  # without a password
    for talker in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env"):
        logging.getLogger(talker).setLevel(logging.WARNING)  # what there is to say is said by us
    try:
        try:
            if not re.match("https?://[^/]", address):  # Ray would look for other things there, some for minutes
                raise ValueError(address)
            client = JobSubmissionClient(address)
        except (requests.exceptions.JSONDecodeError, KeyError) as error:  # a page, or JSON of something else
            raise UserError(f"{shown}: no Ray cluster, but something else - give its dashboard's address") from error
        except ValueError as error:
            raise UserError(f"{shown}: is not an address of a dashboard - give one like http://HOST:8265") from error
        yield client
    except AuthenticationError as error:
        raise UserError(
            f"{shown}: refuses our token - set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the cluster's file"
        ) from error
    except (ConnectionError, requests.RequestException, ServerUnavailable) as error:
        raise UserError(f"{shown}: no Ray cluster answers ({_short(error)}) - {SEE}") from error
    except aiohttp.ClientError as error:
        raise UserError(
            f"{shown}: the connection to the job's log broke ({_short(error)}) - the job goes on;"
            f" follow it with ray job logs --follow --address {shown} NAME"
        ) from error
    except (RuntimeError, RayStateApiException) as error:
        raise UserError(f"{shown}: {_refusal(error)}") from error


def _short(error: Exception) -> str:
    return re.sub(r"//[^/@]*@", "//", " ".join(str(error).split()))[:160]


def _refusal(error: Exception) -> str:
    """What a job server said no with, out of the traceback that it answers, and what helps."""
    status = re.match(r"Request failed with status code (\d+): (.*?)\.?$", str(error), re.DOTALL)
    said = [line.strip() for line in (status[2] if status else str(error)).splitlines() if re.search(r"\w", line)]
    last = re.sub(r"^[\w.]*(Error|Exception): ", "", said[-1] if said else "no reason is given")
    if taken := re.search(r"submission_id (\S+) already exists", str(error)):
        return f"--name {taken[1]}: the name is taken, by a job that runs or has run - give another --name"
    if status and status[1] in ("502", "503", "504"):
        return f"no Ray cluster answers (status {status[1]} of what stands before it) - {SEE}"
    return f"the cluster refuses{f' (status {status[1]})' if status else ''}: {last[:300]} - fix that, and try again"


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
        result = sorted((job for job in client.list_jobs() if job.submission_id), key=lambda job: job.start_time or 0)
    nodes = [node.node_ip for node in known if node.state == "ALIVE"]
    return nodes, [f"job {job.submission_id}  {job.status:9}  {job.entrypoint}" for job in result]


async def _show(client: Any, job: str) -> None:
    async for lines in client.tail_job_logs(job):
        print(lines, end="", flush=True)
