"""The record of a training: one JSON object per line, in the order in which things happened.

`kind` tells them apart: "start" (model, text, baselines), "train" (one optimizer step), "held_out" (one evaluation).
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import RepoError
from modelwright.core.logging import get_logger

logger = get_logger(__name__)

METRICS_NAME = "metrics.jsonl"
Record = Mapping[str, Any]


def figure_of(record: Record) -> tuple[float, str]:
    """Return what a step or an evaluation is told by, and its unit: bits per byte, else the loss."""
    if "bits_per_byte" in record:
        return record["bits_per_byte"], "bits/byte"
    return record["loss"], record.get("unit", "nats/token")  # older records have none


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of the file at `path`, without a last line that a kill has torn.

    Raises RepoError if the file cannot be read or another line is not a JSON object.
    """
    try:
        lines = _whole_lines(path)
    except FileNotFoundError:
        raise RepoError(f"Metrics {path}: there is no such file.") from None
    except OSError as error:
        raise RepoError(f"Metrics {path}: cannot be read: {error.strerror or error}.") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_parse(line))
        except ValueError as error:
            shown = line[:40].decode("utf-8", "backslashreplace")
            raise RepoError(f"Metrics {path}, line {number}: expected a JSON object, got {shown!r}.") from error
    return records


def _whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is empty or torn


def _parse(line: bytes) -> dict[str, Any]:
    """Return the JSON object in `line`; raises ValueError for anything else."""
    try:
        value = json.loads(line.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")
    return value


def _step_of(line: bytes) -> int | None:
    """Return the step of the record in `line`, or None for a line that is no record."""
    try:
        record = _parse(line)
    except ValueError:
        return None
    step = record.get("step")
    return step if isinstance(step, int) and "kind" in record else None


class MetricsFile:
    """Appends records to the metrics file of the folder `out`; a kill after `write` loses nothing."""

    def __init__(self, out: Path, *, resume_at: int | None) -> None:
        """Start afresh if `resume_at` is None; else keep the records up to that step, and no later one.

        Lines that are no records are dropped, with a warning: a damaged log does not stop a training.
        """
        self.path = out / METRICS_NAME
        kept = [] if resume_at is None else self._kept(resume_at)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_bytes(b"".join(line + b"\n" for line in kept))
        temporary.replace(self.path)

    def _kept(self, resume_at: int) -> list[bytes]:
        try:
            lines = _whole_lines(self.path)
        except FileNotFoundError:
            return []
        except OSError as error:
            logger.warning("Metrics %s: cannot be read: %s. The file starts afresh.", self.path, error.strerror)
            return []
        steps = [_step_of(line) for line in lines]
        if dropped := steps.count(None):
            logger.warning("Metrics %s: dropped %d lines that are no records.", self.path, dropped)
        return [line for line, step in zip(lines, steps, strict=True) if step is not None and step <= resume_at]

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
