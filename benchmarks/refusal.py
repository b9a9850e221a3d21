"""How long it takes to refuse each damaged checkpoint of the corruption matrix (tests/hostile/test_corruption.py)."""

import argparse
import runpy
import statistics
import sys
import tempfile
import time
from pathlib import Path

import harness


def main() -> None:
    """Print the slowest refusals, in milliseconds, and write all of them as JSON."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=5, help="counted rounds (default %(default)s)")
    rounds = options.parse_args().rounds
    matrix = runpy.run_path(str(harness.ROOT / "tests" / "hostile" / "test_corruption.py"))
    refusals = (matrix["CheckpointError"], matrix["CheckpointMismatchError"], matrix["RepoError"])
    found: dict[str, float] = {}
    for fault, (shards, damage, _) in matrix["MATRIX"].items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "ckpt"
            matrix["tensors"]("secret.safetensors", **{"a.weight": matrix["W"], "b.weight": matrix["W"]})(folder.parent)
            matrix["sound"](folder, shards)
            damage(folder)
            (folder / "modelwright.manifest.json").unlink(missing_ok=True)
            taken = []
            for _ in range(rounds):
                start = time.perf_counter()
                try:
                    matrix["load"](folder)
                except refusals:
                    taken.append((time.perf_counter() - start) * 1000)
                else:
                    sys.exit(f"{fault}: not refused")
            found[fault] = statistics.median(taken)
    slowest = sorted(found.items(), key=lambda item: -item[1])
    print(harness.machine(), f"{len(found)} faults, {rounds} rounds, median {statistics.median(found.values()):.1f} ms")
    print(harness.table([["slowest", "ms"], *([fault, f"{ms:.1f}"] for fault, ms in slowest[:8])]))
    print(harness.write_result("refusal", {"milliseconds": found}))


if __name__ == "__main__":
    main()
