"""Train a Reformer on one long document, 65,536 tokens at a time, and plot the memory of a training step.

    python examples/reformer_long_document.py [OUT] [STEPS] [FILE]

The document is Python's language reference unless FILE is given. OUT gets the model, its loss curve and memory.png: the
memory of one training step against the length, beside that of the same model with its activations stored, as an
ordinary stack of layers does. Each point is measured in a process of its own, on Linux. The pictures want
`pip install 'modelwright[plots]'`.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from modelwright.cli.build_model import ReformerSizes, config_from, make_model, reformer_config
from modelwright.cli.presets import PRESETS
from modelwright.cli.run_training import TrainRequest, run_training
from modelwright.core.optional import require

WINDOW = PRESETS["reformer-64k"]["window"]
LENGTHS, STORED_LENGTHS = (4096, 8192, 16_384, 32_768, WINDOW), (4096, 8192, 16_384)
# Smaller than the preset, so that a step takes seconds.
SIZES = {"hidden": 128, "layers": ("local", "lsh", "local", "lsh"), "num_hashes": 1, "local_chunk": 32}
KINDS = {"reversible": "recomputed from the layer above (reversible)", "stored": "stored"}


def step_memory(length: int, kind: str) -> int:
    """Return the bytes that one training step of `length` tokens takes beyond what the process had before."""
    config = config_from(reformer_config(ReformerSizes(**SIZES), window=length))
    model = make_model(config, seed=0, source="this example").train()
    if kind == "stored":
        # What is watched is run as an ordinary stack.
        model.reformer.encoder.layers[0].register_forward_hook(lambda *_: None)
    ids = torch.randint(2, 258, (1, length))
    model(ids[:, :256], labels=ids[:, :256]).loss.backward()  # gradients and libraries are there from now on
    model.config.num_buckets = None  # which the short text has chosen
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    model(ids, labels=ids).loss.backward()
    return memory("VmHWM") - before


def memory(field: str) -> int:
    """Return a figure of this process that Linux keeps, in bytes: resident memory, or its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measured(lengths: Mapping[str, Sequence[int]]) -> dict[str, dict[int, int]]:
    """Return the bytes for each kind and length, measured one after the other in new processes."""
    found: dict[str, dict[int, int]] = {}
    for kind, each in lengths.items():
        for length in each:
            command = [sys.executable, __file__, "--measure", str(length), kind]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found.setdefault(kind, {})[length] = int(printed)
            print(f"{kind:>10}: {length:6,} tokens take {int(printed) / 2**20:6,.0f} MiB", flush=True)
    return found


def plot(found: Mapping[str, Mapping[int, int]], path: Path) -> None:
    """Draw the measurements."""
    figure = require("matplotlib.figure", extra="plots", why="Drawing the memory").Figure(layout="constrained")
    axes = figure.add_subplot()
    for kind, points in found.items():
        axes.plot(points.keys(), [size / 2**20 for size in points.values()], "o-", label=f"activations {KINDS[kind]}")
    axes.set(xlabel="tokens", ylabel="memory of a training step, MiB", xlim=(0, None), ylim=(0, None))
    axes.legend()
    longest = max(length for points in found.values() for length in points)
    axes.set_xticks([longest * part // 4 for part in range(5)])
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_title("Reversible layers train on texts several times as long")
    figure.savefig(path, dpi=120)


def told(found: Mapping[str, Mapping[int, int]]) -> str:
    """Return what the measurements say of the longest text that both kinds were measured at."""
    length = max(found["reversible"].keys() & found["stored"].keys())
    times = found["stored"][length] / found["reversible"][length]
    return f"stored activations take {times:.1f} times the memory at {length:,} tokens"


def language_reference(path: Path) -> Path:
    """Write Python's language reference, as the standard library holds it for `help()`, to `path`."""
    from pydoc_data.topics import topics

    path.write_text("\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n", encoding="utf-8")
    return path


def main(out: Path, steps: int, document: Path | None = None, *, window: int = WINDOW) -> float:
    """Train, and return the bits per byte on the end of the document."""
    out.mkdir(parents=True, exist_ok=True)
    document = document or language_reference(out / "document.txt")
    print(f"{document}: {document.stat().st_size:,} bytes, {steps} steps of {window:,}", flush=True)
    settings = {"window": window, "steps": steps, "eval_every": 10, "lr": 3e-3, "eval_bytes": window}
    request = TrainRequest(out=out / "model", text=(document,), settings=settings, sizes=SIZES)
    result = run_training(request, observe=show)
    print(f"{result.held_out_bits:.3f} bits per byte held out; order-0 entropy is {result.baselines.entropy:.3f}")
    return result.held_out_bits


def show(record: Mapping[str, object]) -> None:
    """Print a line for each step and measurement."""
    if "bits_per_byte" in record:
        speed = f", {record['tokens_per_s']:,.0f} tokens/s" if "tokens_per_s" in record else ""
        print(
            f"{record['kind']:>8} step {record['step']:>4}: {record['bits_per_byte']:.3f} bits/byte{speed}", flush=True
        )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--measure"]:
        print(step_memory(int(arguments[1]), arguments[2]))
    else:
        folder = Path(arguments[0] if arguments else tempfile.mkdtemp(prefix="long-document-"))
        main(folder, int(arguments[1]) if len(arguments) > 1 else 20, *map(Path, arguments[2:3]))
        print("the memory of one training step, activations recomputed (reversible) or stored:", flush=True)
        sizes = measured({"reversible": LENGTHS, "stored": STORED_LENGTHS})
        plot(sizes, folder / "memory.png")
        print(f"{told(sizes)}; see {folder / 'memory.png'} and {folder / 'model' / 'loss.png'}")
