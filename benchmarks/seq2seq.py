"""A T5-small-shaped model against transformers 5.23.0: greedy and beam-4 decoding at batch 1 and 8.

Both sides load one checkpoint; logits, and the ids that each way of decoding writes, are compared before anything is
timed. Neither side prepares anything: the models are as `from_pretrained` makes them.
"""

import tempfile
from pathlib import Path

import harness

SHAPE = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "decoder_start_token_id": 0,
}
SIDES = {"ours": ("modelwright", harness.OURS), "transformers": ("transformers", harness.PEER_5)}
SOURCE, NEW = 64, 48
WAYS = {
    "greedy, batch 1": {"rows": 1, "num_beams": 1},
    "greedy, batch 8": {"rows": 8, "num_beams": 1},
    "beam 4, batch 1": {"rows": 1, "num_beams": 4},
    "beam 4, batch 8": {"rows": 8, "num_beams": 4},
}


def work(package: str, threads: int) -> None:
    """Be one side."""
    import importlib

    import torch

    torch.set_num_threads(threads)
    model_class = importlib.import_module(package).T5ForConditionalGeneration
    held = {}

    def load(folder: str) -> dict:
        held["model"] = model_class.from_pretrained(folder, dtype=torch.float32).eval()
        held["idle"] = harness.resident_bytes()
        return {}

    def batch(rows: int) -> dict:
        """Rows of different lengths, the longest of SOURCE tokens."""
        random = torch.Generator().manual_seed(rows)
        ids = torch.randint(3, SHAPE["vocab_size"], (rows, SOURCE), generator=random)
        lengths = torch.randint(SOURCE // 2, SOURCE + 1, (rows, 1), generator=random)
        lengths[0] = SOURCE
        mask = (torch.arange(SOURCE) < lengths).long()
        return {"input_ids": ids * mask, "attention_mask": mask}

    def generate(rows: int, num_beams: int) -> torch.Tensor:
        options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "num_beams": num_beams}
        return held["model"].generate(**batch(rows), **options)

    def outputs(rows: int, num_beams: int) -> dict:
        with torch.no_grad():
            logits = held["model"](**batch(rows), decoder_input_ids=torch.tensor([[0, 5, 9]] * rows)).logits
        return {"logits": logits[:, -1, :64].flatten().tolist(), "ids": generate(rows, num_beams).tolist()}

    def decode(rows: int, num_beams: int) -> dict:
        return harness.measure(lambda: generate(rows, num_beams), held["idle"])

    harness.serve({"load": load, "outputs": outputs, "decode": decode})


def compare(workers: dict, way: str) -> None:
    """Stop if the two sides do not compute the same."""
    mine, theirs = (worker.call("outputs", **WAYS[way]) for worker in workers.values())
    furthest = max(abs(a - b) for a, b in zip(mine["logits"], theirs["logits"], strict=True))
    print(f"{way}: logits differ by at most {furthest:.1e}, ids equal: {mine['ids'] == theirs['ids']}", flush=True)
    if furthest > 1e-3 or mine["ids"] != theirs["ids"]:
        raise SystemExit("the two sides do not agree; nothing was timed")


def save_checkpoint(folder: str) -> None:
    """Write the checkpoint that both sides load; larger queries than at the start of a training make it attend."""
    import torch

    from modelwright.models.t5.attention import T5Attention
    from modelwright.models.t5.configuration_t5 import T5Config
    from modelwright.models.t5.modeling_t5 import T5ForConditionalGeneration

    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**SHAPE))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, T5Attention):
                module.q.weight.mul_(8)
    model.save_pretrained(folder)


def main() -> None:
    """Print the table and write the JSON."""
    options = harness.parser(__doc__.splitlines()[0], rounds=5)
    options.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS), help="what to time")
    arguments = options.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.threads)
        return
    script, result = Path(__file__).resolve(), {}
    rows = [["what", "ours tokens/s", "transformers 5 tokens/s", "ratio", "ours MB", "transformers 5 MB"]]
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(folder)
        workers = {
            name: harness.Worker(python, script, package, "--threads", str(arguments.threads))
            for name, (package, python) in SIDES.items()
        }
        for worker in workers.values():
            worker.call("load", folder=folder)
        for way in arguments.ways:
            compare(workers, way)
            taken = harness.interleave(workers, arguments.rounds, name="decode", **WAYS[way])
            result[way] = taken
            figures = harness.summarise(taken)
            speeds = [WAYS[way]["rows"] * NEW / figures[name]["seconds"] for name in SIDES]
            peaks = [figures[name]["peak_bytes"] / 1e6 for name in SIDES]
            rows.append(
                [way, *(f"{speed:.0f}" for speed in speeds), f"{speeds[0] / speeds[1]:.2f}x"]
                + [f"{peak:.0f}" for peak in peaks]
            )
        for worker in workers.values():
            worker.close()
    print(harness.machine() + "\n")
    print(harness.table(rows))
    harness.write_result("seq2seq", result)


if __name__ == "__main__":
    main()
