"""Loading a checkpoint: ours against transformers 5.23.0 and 4.57.1, interleaved, each side in a worker of its own.

Cases: "load" in fp32; "touch", the same and a look at every page; "bf16", the cast, in a new process for each round,
which has loaded a tiny model before; "bf16 again", the cast in a process that has loaded and dropped the same model: a
side whose C library keeps the freed memory gets no new pages, and starts with it as memory it had before; "cold", a new
process that imports, loads and runs one forward. Memory is the peak over what the worker had before. The checkpoints
are BERT-large's and T5-large's shapes times `--scale`, and a BERT of 775 small tensors, made here with random weights;
with `--folder` they stay there for the next run. Before anything is timed the sums of all weights are compared.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

SIDES = {
    "modelwright": harness.OURS,
    "transformers 5.23.0": harness.PEER_5,
    "transformers 4.57.1": harness.OURS,  # the oracle of the parity tests lives in our environment
}
SHAPES: dict[str, tuple[str, dict[str, int]]] = {
    "bert-large": (
        "BertModel",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "t5-large": (
        "T5ForConditionalGeneration",
        {"d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24, "num_heads": 16},
    ),
    "small tensors": (
        "BertModel",
        {"hidden_size": 64, "num_hidden_layers": 48, "num_attention_heads": 4, "intermediate_size": 256},
    ),
}
TINY: dict[str, dict[str, int]] = {
    "BertModel": {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64},
    "T5ForConditionalGeneration": {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 4},
}
LAYERS = ("num_hidden_layers", "num_layers")
CASES = {  # name: (what the workers do, dtype)
    "load": ("load", "float32"),
    "touch": ("touch", "float32"),
    "bf16": ("first", "bfloat16"),
    "bf16 again": ("load", "bfloat16"),
    "cold": None,
}


def library(side: str) -> Any:
    """Import the library of a side."""
    if side == "modelwright":
        import modelwright

        return modelwright
    import transformers

    return transformers


def worker(side: str, threads: int) -> None:
    """Serve measurements of one side."""
    import torch

    torch.set_num_threads(threads)
    models = library(side)

    def load(folder: str, model: str, dtype: str) -> Any:
        return getattr(models, model).from_pretrained(folder, dtype=getattr(torch, dtype))

    def touch(loaded: Any) -> float:
        return float(sum(parameter.detach().view(-1)[::1024].float().sum() for parameter in loaded.parameters()))

    def sample(**what: str) -> float:
        return touch(load(**what))

    def timed(**what: str) -> dict[str, float]:
        idle = harness.resident_bytes()
        kept: list[Any] = []
        return harness.measure(lambda: kept.append(touch_all(load(**what))), idle)

    def touch_all(loaded: Any) -> Any:
        for parameter in loaded.parameters():
            parameter.detach().view(-1)[:: 4096 // parameter.element_size()].sum()  # every page
        return loaded

    def only_load(**what: str) -> dict[str, float]:
        kept: list[Any] = []
        return harness.measure(lambda: kept.append(load(**what)), harness.resident_bytes())

    harness.serve({"sample": sample, "touch": timed, "load": only_load})


def cold(side: str, folder: str, model: str, threads: int) -> None:
    """Import, load, run one forward; what the cold start times."""
    import torch

    torch.set_num_threads(threads)
    loaded = getattr(library(side), model).from_pretrained(folder).eval()
    with torch.no_grad():
        loaded(input_ids=torch.tensor([[1, 2, 3, 4]]))


def make(folder: Path, model: str, shape: dict[str, int], scale: float) -> None:
    """Write a checkpoint with layers times `scale`."""
    import torch

    import modelwright

    shape = {key: max(1, round(value * scale)) if key in LAYERS else value for key, value in shape.items()}
    model_class = getattr(modelwright, model)
    outline = model_class.from_config(model_class.config_class(**shape), device="meta")
    generator = torch.Generator().manual_seed(0)
    values = {  # tied ones once
        id(parameter): torch.randn(parameter.shape, generator=generator) * 0.02 for parameter in outline.parameters()
    }
    weights = {name: values[id(tensor)] for name, tensor in outline.named_parameters(remove_duplicate=False)}
    outline.save_pretrained(folder, state_dict=weights, max_shard_size="5GB")


def environment(threads: int) -> dict[str, str]:
    """One number of threads for all, no look at the network, and compiled modules, as an installed package has them."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def cold_starts(folder: str, model: str, rounds: int, threads: int) -> dict[str, dict[str, float]]:
    """Start every side's process in turn; return the medians of the seconds until its forward is done."""
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for index in range(rounds + 1):
        for side, python in SIDES.items():
            start = time.perf_counter()
            arguments = ["--cold", side, folder, model, "--threads", str(threads)]
            subprocess.run(
                [str(python), __file__, *arguments], check=True, env=environment(threads), stderr=subprocess.DEVNULL
            )
            if index:
                taken[side].append({"seconds": time.perf_counter() - start})
    return harness.summarise(taken)


def worker_of(side: str, threads: int) -> harness.Worker:
    """Start a worker of a side."""
    return harness.Worker(
        SIDES[side], Path(__file__), side, "--threads", str(threads), environment=environment(threads)
    )


def compare(sums: dict[str, float]) -> None:
    """Leave if the sides did not load the same weights."""
    if max(sums.values()) - min(sums.values()) > 1e-3 * max(1.0, *map(abs, sums.values())):
        sys.exit(f"the sides do not load the same weights: {sums}")


def run_case(call: str, folder: str, model: str, dtype: str, rounds: int, threads: int) -> dict[str, dict[str, float]]:
    """Measure one case on all sides."""
    workers = {side: worker_of(side, threads) for side in SIDES}
    what = {"folder": folder, "model": model, "dtype": dtype}
    compare({side: each.call("sample", **what) for side, each in workers.items()})
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in workers}
    for index in range(rounds + 1):
        for side, each in workers.items():
            figures = each.call(call, **what)
            if index:
                taken[side].append(figures)
    for each in workers.values():
        each.close()
    return harness.summarise(taken)


def first_loads(
    tiny: str, folder: str, model: str, dtype: str, rounds: int, threads: int
) -> dict[str, dict[str, float]]:
    """Measure the first load of a process that has only loaded the model in `tiny`, on all sides in turn."""
    what = {"folder": folder, "model": model, "dtype": dtype}

    def first(call: str, side: str) -> Any:
        worker = worker_of(side, threads)
        worker.call("sample", **{**what, "folder": tiny})
        result = worker.call(call, **what)
        worker.close()
        return result

    compare({side: first("sample", side) for side in SIDES})
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            taken[side].append(first("load", side))
    return harness.summarise(taken)


def report(rows: list[list[str]], case: str, sides: dict[str, dict[str, float]]) -> None:
    """Add a line for every side."""
    ours = sides["modelwright"]
    for side, figures in sides.items():
        cells = [case, side, f"{figures['seconds'] * 1000:,.0f}", f"{ours['seconds'] / figures['seconds']:.2f}"]
        if "peak_bytes" in figures:
            ratio = ours["peak_bytes"] / max(1.0, figures["peak_bytes"])
            cells += [f"{figures['peak_bytes'] / 1e6:,.0f}", f"{ratio:.2f}"]
        rows.append(cells + [""] * (6 - len(cells)))


def measure_shape(name: str, place: Path, arguments: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Make the checkpoint `name` if it is not there, and measure the cases on it."""
    model, shape = SHAPES[name]
    folder = place / name.replace(" ", "-")
    if not (folder / "model.safetensors").exists():
        make(folder, model, shape, 1.0 if name == "small tensors" else arguments.scale)
    tiny = place / f"tiny-{model}"
    if not (tiny / "model.safetensors").exists():
        make(tiny, model, TINY[model], 1.0)
    what = (str(folder), model)
    title = f"{name} ({(folder / 'model.safetensors').stat().st_size / 1e9:.2f} GB)"
    results = {}
    for case in arguments.cases:
        work = CASES[case]
        if work is not None and work[0] == "first":
            results[f"{title}, {case}"] = first_loads(str(tiny), *what, work[1], arguments.rounds, arguments.threads)
        elif work is not None:
            results[f"{title}, {case}"] = run_case(work[0], *what, work[1], arguments.rounds, arguments.threads)
        elif model == "BertModel":
            results[f"{title}, {case}"] = cold_starts(*what, arguments.rounds, arguments.threads)
    return results


def main() -> None:
    """Print the table and write the JSON."""
    options = harness.parser((__doc__ or "").splitlines()[0], rounds=5)
    options.add_argument("--scale", type=float, default=1.0, help="share of the layers of the large shapes")
    options.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    options.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    options.add_argument("--folder", type=Path, help="where to make the checkpoints (default: a temporary folder)")
    options.add_argument("--cold", nargs=3, metavar=("SIDE", "FOLDER", "MODEL"), help="run one cold start and leave")
    arguments = options.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.threads)
        return
    if arguments.cold:
        cold(*arguments.cold, threads=arguments.threads)
        return
    rows = [["case", "side", "ms", "ours / it", "peak MB", "ours / it"]]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for name in arguments.shapes:
            for case, sides in measure_shape(name, arguments.folder or Path(place), arguments).items():
                report(rows, case, sides)
                results[case] = sides
    print(
        harness.machine(), f"{arguments.threads} threads, {arguments.rounds} rounds, scale {arguments.scale}", sep="; "
    )
    print(harness.table(rows))
    print(harness.write_result("loading", {"scale": arguments.scale, "results": results}))
    print(json.dumps({"load average": os.getloadavg()}))


if __name__ == "__main__":
    main()
