"""Where RAY_ADDRESS leads: looked at before Ray itself does, which waits for minutes and ends in a traceback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time

from data_tools.errors import UserError

STARTING = 30.0
"""Seconds that a cluster's head has to listen: it may just be starting."""
ANSWERS = 25.0
"""Seconds that it has to answer one who greets it."""
GREET = """
import sys
from trainer.private import greet_cluster
try:
    greet_cluster(sys.argv[1])
except Exception as error:
    sys.exit(print(error) or 1)
"""
FORM = "give RAY_ADDRESS=HOST:6379, the address that `ray start --head` names, or unset it to work on this machine"


def cluster_address() -> str:
    """RAY_ADDRESS, well-formed: HOST:PORT or auto; "" where Ray is to be started here. UserError for other forms."""
    value = os.environ.get("RAY_ADDRESS", "").strip()
    if value in ("", "local"):
        return ""
    if value == "auto":
        return value
    if value.startswith(("http://", "https://")):
        raise UserError(
            f"RAY_ADDRESS={value}: is where jobs are submitted, not where programs join the cluster - {FORM},"
            " or send this command as a job with python -m cluster submit"
        )
    if value.startswith("ray://"):
        raise UserError(
            f"RAY_ADDRESS={value}: Ray's client cannot run this - send this command as a job with"
            " python -m cluster submit, or run it on a machine of the cluster with RAY_ADDRESS=auto"
        )
    # Ray itself takes no ports below 1024.
    match = re.fullmatch(r"(?:[^\s/@\[\]:]+|\[[0-9a-fA-F:.]+\]):([0-9]{4,5})", value)
    if not match or not 1024 <= int(match[1]) <= 65535:
        raise UserError(f"RAY_ADDRESS={value!r}: is not an address of a Ray cluster - {FORM}")
    return value


def check_cluster(value: str) -> None:
    """UserError where no Ray cluster that takes us answers at this RAY_ADDRESS, within a minute.

    Call it after Ray's own variables are set, since it imports Ray.
    """
    from trainer.private import bootstrap_address

    try:
        address = bootstrap_address(value)
    except ConnectionError:
        raise UserError(
            f"RAY_ADDRESS={value}: no Ray cluster runs on this machine - start one with `ray start --head`, or {FORM}"
        ) from None
    host, _, port = address.rpartition(":")
    _wait_for_listener(value, host.strip("[]"), int(port))
    if refusal := _refusal(address):
        raise refused(value, refusal)


def _wait_for_listener(value: str, host: str, port: int) -> None:
    deadline = time.monotonic() + STARTING
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except (OSError, UnicodeError) as error:  # the latter of a name that cannot be one
            if time.monotonic() > deadline:
                reason = getattr(error, "strerror", None) or str(error)
                meant = "" if host in value else f" at {host}, by which Ray replaces it"
                raise UserError(
                    f"RAY_ADDRESS={value}: nothing listens there{meant} ({reason}) - start the cluster, or {FORM}"
                ) from error
        time.sleep(0.5)


def _refusal(address: str) -> str:
    """Why the cluster at HOST:PORT does not take us, in Ray's words; "" where it does.

    Found out by another process: Ray's C++ writes to stderr as it likes, and may end the process that asks.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_BACKEND_LOG_LEVEL": "fatal"}
    try:
        words = [sys.executable, "-c", GREET, address]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=ANSWERS)
    except subprocess.TimeoutExpired:
        return f"no answer of Ray's within {ANSWERS:.0f} s"
    if not done.returncode:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return done.stdout.strip() or (lines[0] if lines else f"Ray ended with status {done.returncode}")


def refused(value: str, reason: str) -> UserError:
    """Why a cluster cannot be joined, from what Ray says about it."""
    text = " ".join(reason.split())
    if re.search(r"unauthenticated|authenticat|auth.?token", text, re.IGNORECASE):
        return UserError(
            f"RAY_ADDRESS={value}: the cluster refuses our token - set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
            " to the cluster's file"
        )
    if match := re.search(r"Ray: (\S+) Python: (\S+) This process .*?Ray: (\S+) Python: (\S+)", text):
        theirs, ours = (f"Ray {match[i]} with Python {match[i + 1]}" for i in (1, 3))
        return UserError(f"RAY_ADDRESS={value}: the cluster has {theirs}, here is {ours} - use the same versions")
    return UserError(f"RAY_ADDRESS={value}: no Ray cluster answers there ({text[:200]}) - {FORM}")
