"""Where the command writes: results to stdout, progress to stderr, sizes and counts as people read them."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console


def progress_console() -> Console:
    """Return the console of everything that is no result; it writes to stderr."""
    return Console(stderr=True)


def result_console() -> Console:
    """Return the console of results; it writes to stdout."""
    return Console(soft_wrap=True, highlight=False)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object to stdout."""
    print(json.dumps(value, indent=2, default=str))


def human_bytes(count: float) -> str:
    """Return a number of bytes with a binary unit: "3.2 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
