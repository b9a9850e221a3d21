import io
import sys

import pytest

from modelwright.core import progress
from modelwright.core.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("seconds", "terminal", "shown"), [(2, True, True), (0.5, True, False), (2, False, False)])
def test_a_bar_appears_on_a_terminal_after_a_second(monkeypatch, seconds, terminal, shown):
    stderr = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    now = iter([0.0, *[seconds] * 10])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now, seconds))
    with Progress("loading", 2) as bar:
        bar.advance()
        bar.advance()
    assert ("loading" in stderr.getvalue()) is shown
