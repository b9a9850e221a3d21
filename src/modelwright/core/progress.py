"""A progress bar on stderr for what takes longer than a second, and nothing for what does not."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from modelwright.core.logging import WARNING, get_verbosity

_AFTER_SECONDS = 1.0


class Progress:
    """A context that counts to `total`; the bar appears after a second, on a terminal, unless only errors are logged.

    >>> with Progress("loading", total=2) as progress:
    ...     progress.advance()
    """

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._start = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._wanted = sys.stderr.isatty() and get_verbosity() <= WARNING

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int = 1) -> None:
        """Note that `count` more of `total` are done."""
        self._done += count
        if not self._wanted or (self._bar is None and time.monotonic() - self._start < _AFTER_SECONDS):
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._label, total=self._total)
            self._bar.start()
        self._bar.update(self._task, completed=self._done)
