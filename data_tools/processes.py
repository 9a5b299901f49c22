"""Work in parallel processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from data_tools.errors import UserError

T = TypeVar("T")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(work: Callable[[Any, Any], T], shared: Any, jobs: Iterable[Any], processes: int) -> Iterator[T]:
    """Yield work(shared, job) for every job as each is done, in any order; the first error ends all.

    work: a module's function, since processes are spawned. shared: sent to each process once, unlike the jobs.
    processes: 1 works in this process. At most two jobs a process are under way or waiting, so jobs may be many.
    On an error or Ctrl-C nothing goes on working. UserError when a process was killed.
    """
    if processes <= 1:
        yield from (work(shared, job) for job in jobs)
        return
    # Not forked: threads of a storage's library and of the lease are running here.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(os.getpid(), work, shared))
    waiting = iter(jobs)
    try:
        running: set[Future[T]] = _submit(pool, itertools.islice(waiting, 2 * processes))
        pool.submit(int)  # CPython watches a process for its death only from the next submit on
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            running |= _submit(pool, itertools.islice(waiting, len(done)))
    except BrokenProcessPool as error:
        raise UserError(
            f"a process of {processes} was killed - choose fewer --processes if memory was short"
        ) from error
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()  # a long job need not be waited for
        raise
    finally:
        pool.shutdown(cancel_futures=True)  # waits, so that nobody writes while the caller clears up


def _submit(pool: ProcessPoolExecutor, jobs: Iterable[Any]) -> set[Future[Any]]:
    """A process started by this keeps the mask, so that Ctrl-C, which reaches all, is for this process alone."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return {pool.submit(_work, job) for job in jobs}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin(parent: int, work: Callable[[Any, Any], Any], shared: Any) -> None:
    global _task
    _task = (work, shared)
    # Be killed by the system when the parent process ends in whatever way.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


_task: tuple[Callable[[Any, Any], Any], Any] = (lambda shared, job: None, None)


def _work(job: Any) -> Any:
    work, shared = _task
    return work(shared, job)
