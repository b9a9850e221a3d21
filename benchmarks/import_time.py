"""What importing costs: `import modelwright` alone, and a model with a tokenizer over `import torch`, against peers.

Every figure is a fresh process; the sides take turns.
"""

import statistics
import subprocess
from pathlib import Path

import harness

TIMER = """
import time
start = time.perf_counter()
import torch
middle = time.perf_counter()
{statement}
print(middle - start, time.perf_counter() - middle)
"""
ALONE = "import time; start = time.perf_counter(); import modelwright; print(0.0, time.perf_counter() - start)"
MODEL = "from {package} import ReformerModelWithLMHead, AutoTokenizer"


def seconds(python: Path, code: str) -> float:
    """Run `code` in a fresh process and return the second figure that it prints."""
    if not python.exists():
        raise SystemExit(f"{python} is missing: run `make peers` first")
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print the table and write the JSON."""
    arguments = harness.parser(__doc__.splitlines()[0], rounds=7).parse_args()
    ours = TIMER.format(statement=MODEL.format(package="modelwright"))
    theirs = TIMER.format(statement=MODEL.format(package="transformers"))
    cases = {
        "import modelwright": (harness.OURS, ALONE),
        "modelwright: Reformer and AutoTokenizer, over torch": (harness.OURS, ours),
        "transformers 5.23.0: the same, over torch": (harness.PEER_5, theirs),
        "transformers 4.37.2: the same, over torch": (harness.PEER_437, theirs),
    }
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for index in range(arguments.rounds + 1):
        for name, (python, code) in cases.items():
            figure = seconds(python, code)
            if index:
                taken[name].append(figure)
    rows = [["what", "median s", "minimum s"]]
    rows += [[name, f"{statistics.median(figures):.3f}", f"{min(figures):.3f}"] for name, figures in taken.items()]
    print(harness.machine(), f"{arguments.rounds} rounds", sep="; ")
    print(harness.table(rows))
    print(harness.write_result("import_time", {"seconds": taken}))


if __name__ == "__main__":
    main()
