"""The record of a training: one JSON object per line, in the order in which things happened.

`kind` tells them apart: "start" (model, text, baselines), "train" (one optimizer step), "held_out" (one evaluation).
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import RepoError

METRICS_NAME = "metrics.jsonl"
Record = Mapping[str, Any]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of the file at `path`, without a last line that a kill has torn.

    Raises RepoError if the file is missing or another line is not JSON.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise RepoError(f"Metrics {path}: there is no such file.") from None
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is empty or torn
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise RepoError(f"Metrics {path}, line {number}: expected a JSON object, got {line[:40]!r}.") from error
    return records


class MetricsFile:
    """Appends records to the metrics file of the folder `out`; a kill after `write` loses nothing."""

    def __init__(self, out: Path, *, resume_at: int | None) -> None:
        """Start afresh if `resume_at` is None; else keep the records up to that step, and no later one."""
        self.path = out / METRICS_NAME
        kept: list[dict[str, Any]] = []
        if resume_at is not None and self.path.exists():
            kept = [record for record in read_metrics(self.path) if record["step"] <= resume_at]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(_line(record) for record in kept), encoding="utf-8")
        temporary.replace(self.path)

    def write(self, record: Record) -> None:
        """Append one record."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(record))


def _line(record: Record) -> str:
    return json.dumps(dict(record), allow_nan=False) + "\n"


def peak_rss() -> int:
    """Return the largest resident memory that this process has had so far, in bytes."""
    if sys.platform == "win32":
        from modelwright.core.optional import require

        psutil = require("psutil", extra="dev", why="Measuring the peak memory on Windows")
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kibibytes
