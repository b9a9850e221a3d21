"""A BERT-base encoder on rows of unequal length: unpadded (`to_bettertransformer`) against transformers 5.23.0 padded.

Both sides load one checkpoint and get one padded batch with its attention mask; their states at the real tokens are
compared before anything is timed. The shape is BERT-base's, the weights are random, there are no gradients.
"""

import os
import sys
import tempfile
import time
from typing import Any

import harness

SIDES = {"modelwright": harness.OURS, "transformers 5.23.0": harness.PEER_5}
ROWS, SHORTEST, LONGEST, SEED = 32, 8, 512, 1
TOLERANCE = {"float32": 2e-4, "bfloat16": 0.1}


def batch() -> Any:
    """Return ids and mask of rows of SHORTEST to LONGEST tokens, the longest among them."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (ROWS,), generator=generator)
    ids = torch.randint(1000, 30000, (ROWS, int(lengths.max())), generator=generator)
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def worker(side: str, threads: int) -> None:
    """Serve measurements of one side."""
    import torch

    torch.set_num_threads(threads)
    if side == "modelwright":
        from modelwright import BertModel
    else:
        from transformers import BertModel
    state: dict[str, Any] = {}
    ids, mask = batch()

    def load(checkpoint: str, dtype: str) -> None:
        options = {"dtype": getattr(torch, dtype), "attn_implementation": "sdpa"}
        model = BertModel.from_pretrained(checkpoint, **options).eval()
        state.update(model=model.to_bettertransformer() if side == "modelwright" else model)
        state["idle"] = harness.resident_bytes()

    def run() -> torch.Tensor:
        with torch.no_grad():
            states: torch.Tensor = state["model"](ids, attention_mask=mask).last_hidden_state
        return states

    def sample() -> list[float]:
        return run()[mask.bool()][::53, ::29].float().flatten().tolist()

    def timed() -> dict[str, float]:
        before = time.process_time()
        figures = harness.measure(run, state["idle"])
        # What other work on the machine does not change.
        return {**figures, "cpu_seconds": time.process_time() - before}

    harness.serve({"load": load, "sample": sample, "run": timed})


def compare(folder: str, dtype: str, rounds: int, threads: int) -> dict[str, Any]:
    """Measure both sides in one dtype."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    workers = {
        side: harness.Worker(python, __file__, side, "--threads", str(threads), environment=environment)  # type: ignore[arg-type]
        for side, python in SIDES.items()
    }
    for each in workers.values():
        each.call("load", checkpoint=folder, dtype=dtype)
    ours, theirs = (each.call("sample") for each in workers.values())
    difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    if difference > TOLERANCE[dtype]:
        sys.exit(f"the sides do not compute the same: states differ by {difference:.1e}")
    medians = harness.summarise(harness.interleave(workers, rounds, name="run"))
    for each in workers.values():
        each.close()
    return {"dtype": dtype, "difference": difference, "sides": medians}


def main() -> None:
    """Print the table and write the JSON."""
    options = harness.parser(__doc__.splitlines()[0], rounds=3)
    options.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=list(TOLERANCE))
    arguments = options.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.threads)
        return
    import torch

    from modelwright import BertConfig, BertModel

    _, mask = batch()
    fill = mask.float().mean().item()
    results, rows = [], [["dtype", "side", "seconds", "faster", "CPU s", "less", "peak MB", "less", "states differ by"]]
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        BertModel(BertConfig()).save_pretrained(folder)
        for dtype in arguments.dtypes:
            result = compare(folder, dtype, arguments.rounds, arguments.threads)
            results.append(result)
            peer = result["sides"]["transformers 5.23.0"]
            for side, figures in result["sides"].items():
                cells = [dtype, side]
                for key, unit in (("seconds", 1), ("cpu_seconds", 1), ("peak_bytes", 1e6)):
                    cells += [f"{figures[key] / unit:,.2f}", f"{peer[key] / figures[key]:.2f}x"]
                rows.append([*cells, f"{result['difference']:.1e}"])
    what = f"{ROWS} rows of up to {mask.shape[1]} tokens, fill {fill:.2f}"
    print(harness.machine(), what, f"{arguments.threads} threads, {arguments.rounds} rounds", sep="; ")
    print(harness.table(rows))
    print(harness.write_result("encoder", {"fill": fill, "threads": arguments.threads, "results": results}))


if __name__ == "__main__":
    main()
