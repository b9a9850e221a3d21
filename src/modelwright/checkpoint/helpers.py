"""Threads that share a piece of work with the thread that has it to do."""

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from weakref import WeakValueDictionary

import torch

# By process, as a fork has no threads but its own, and by number. A checkpoint may have hundreds of files open: all
# share the same few threads, which end when the last file lets them go.
_pools: WeakValueDictionary[tuple[int, int], ThreadPoolExecutor] = WeakValueDictionary()


class Helpers:
    """Threads that are started when they are first needed and kept until `close`, which a thousand tensors need."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def run(self, work: Callable[[], None], threads: int) -> None:
        """Run `work` here and, at the same time, in `threads` - 1 others; return when no one works on it any more.

        `work` takes its parts from a common iterator until there are none. Raises what any of them raises. Where no
        thread can be started (the interpreter ends, the system allows no more), it is done here alone.
        """
        jobs: list[Future[None]] = [Future() for _ in range(threads - 1)]
        inference = torch.is_inference_mode_enabled()
        with contextlib.suppress(RuntimeError):
            for job in jobs:
                self._pool_of(threads).submit(_help, job, work, inference)
        try:
            work()
        finally:
            # A helper that had no time to begin is not waited for; one that has begun still writes.
            begun = [job for job in jobs if not job.cancel()]
            wait(begun)
        for job in begun:
            job.result()

    def close(self) -> None:
        """Let the threads end, if nobody else needs them."""
        self._pool = None

    def _pool_of(self, threads: int) -> ThreadPoolExecutor:
        pool = self._pool
        if pool is None:
            pool = self._pool = _pools.setdefault((os.getpid(), threads), ThreadPoolExecutor(threads - 1))
        return pool


def _help(job: "Future[None]", work: Callable[[], None], inference: bool) -> None:
    """Work as the caller would, whose mode of inference is not this thread's, unless the job was cancelled."""
    if not job.set_running_or_notify_cancel():
        return
    try:
        with torch.inference_mode(inference):
            work()
    except BaseException as error:
        job.set_exception(error)
    else:
        job.set_result(None)
