"""Threads that share a piece of work with the thread that has it to do."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait


class Helpers:
    """Threads that are started when they are first needed and kept until `close`, which a thousand tensors need."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def run(self, work: Callable[[], None], threads: int) -> None:
        """Run `work` here and, at the same time, in `threads` - 1 others; return when no one works on it any more.

        `work` takes its parts from a common iterator until there are none. Raises what any of them raises.
        """
        jobs: list[Future[None]] = []
        if threads > 1:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(threads - 1)
            jobs = [self._pool.submit(work) for _ in range(threads - 1)]
        try:
            work()
        finally:
            # A helper that had no time to begin is not waited for; one that has begun still writes.
            begun = [job for job in jobs if not job.cancel()]
            wait(begun)
        for job in begun:
            job.result()

    def close(self) -> None:
        """Let the threads end."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None
