"""A Llama-shaped model (8 layers, width 512) against transformers 5.23.0: prefill, decode, start, training memory.

Both sides load one checkpoint; logits and greedy tokens are compared before anything is timed. Ours reads prompts and
decodes with its weights laid out for it (`modelwright.nn.decode_layout`; no second copy) and trains with them as torch
makes them.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness

SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
}
SIDES = {"ours": ("modelwright", harness.OURS), "transformers": ("transformers", harness.PEER_5)}
PREFILL, PROMPT, NEW, TRAINED = 512, 16, 48, 1024
START = """
import time
import torch
start = time.perf_counter()
from {package} import LlamaConfig, LlamaForCausalLM
LlamaForCausalLM(LlamaConfig(**{shape}))
print(time.perf_counter() - start)
"""


def work(package: str, threads: int) -> None:
    """Be one side."""
    import importlib

    import torch

    torch.set_num_threads(threads)
    model_class = importlib.import_module(package).LlamaForCausalLM
    held = {}

    def load(folder: str, dtype: str) -> dict:
        held["model"] = model_class.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        if package == "modelwright":
            from modelwright.nn.decode_layout import lay_out_for_decoding

            lay_out_for_decoding(held["model"])
        held["idle"] = harness.resident_bytes()
        return {}

    def ids(length: int) -> torch.Tensor:
        return torch.randint(3, 32000, (1, length), generator=torch.Generator().manual_seed(length))

    def generate() -> torch.Tensor:
        prompt = ids(PROMPT)
        return held["model"].generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
        )

    def outputs() -> dict:
        with torch.no_grad():
            logits = held["model"](ids(32)).logits.float()
        return {"logits": logits[0, -1, :64].tolist(), "tokens": generate().tolist()}

    def prefill() -> dict:
        with torch.no_grad():
            return harness.measure(lambda: held["model"](ids(PREFILL)), held["idle"])

    def decode() -> dict:
        return harness.measure(generate, held["idle"])

    def train_step() -> dict:
        model = held["model"].train()
        if package == "modelwright":
            from modelwright.nn.decode_layout import lay_out_for_decoding

            lay_out_for_decoding(model, enable=False)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

        def step() -> None:
            model(ids(TRAINED), labels=ids(TRAINED)).loss.backward()
            model.zero_grad(set_to_none=True)

        return harness.measure(step, held["idle"])

    harness.serve({"load": load, "outputs": outputs, "prefill": prefill, "decode": decode, "train_step": train_step})


def compare(workers: dict, dtype: str) -> None:
    """Stop if the two sides do not compute the same."""
    mine, theirs = (worker.call("outputs") for worker in workers.values())
    furthest = max(abs(a - b) for a, b in zip(mine["logits"], theirs["logits"], strict=True))
    print(
        f"{dtype}: logits differ by at most {furthest:.1e}, greedy tokens equal: {mine['tokens'] == theirs['tokens']}"
    )
    if furthest > (1e-3 if dtype == "float32" else 0.2) or (dtype == "float32" and mine["tokens"] != theirs["tokens"]):
        raise SystemExit("the two sides do not agree; nothing was timed")


def start_seconds(rounds: int) -> dict[str, float]:
    """Median seconds of importing the classes and constructing the model, torch not counted."""
    taken: dict[str, list[float]] = {name: [] for name in SIDES}
    for index in range(rounds + 1):
        for name, (package, python) in SIDES.items():
            code = START.format(package=package, shape=SHAPE)
            done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
            if index:
                taken[name].append(float(done.stdout.split()[-1]))
    return {name: statistics.median(figures) for name, figures in taken.items()}


def save_checkpoint(folder: str) -> None:
    """Write the checkpoint that both sides load."""
    import torch

    from modelwright.models.llama.configuration_llama import LlamaConfig
    from modelwright.models.llama.modeling_llama import LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)


def main() -> None:
    """Print the table and write the JSON."""
    arguments = harness.parser(__doc__.splitlines()[0], rounds=5).parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.threads)
        return
    script, rows, result = Path(__file__).resolve(), [["what", "ours", "transformers 5", "ratio"]], {}
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(folder)
        for dtype in ("float32", "bfloat16"):
            workers = {
                name: harness.Worker(python, script, package, "--threads", str(arguments.threads))
                for name, (package, python) in SIDES.items()
            }
            for worker in workers.values():
                worker.call("load", folder=folder, dtype=dtype)
            compare(workers, dtype)
            calls = ("prefill", "decode", "train_step") if dtype == "float32" else ("prefill", "decode")
            for call in calls:
                taken = harness.interleave(workers, arguments.rounds, name=call)
                result[f"{call} {dtype}"] = taken
                figures = harness.summarise(taken)
                ours, theirs = figures["ours"], figures["transformers"]
                rows.append(row(f"{call} {dtype}, s", ours["seconds"], theirs["seconds"]))
                if call == "train_step":
                    rows.append(row("  its peak, MiB", ours["peak_bytes"] / 2**20, theirs["peak_bytes"] / 2**20))
                if call == "decode":
                    rows.append(row("  tokens/s", NEW / ours["seconds"], NEW / theirs["seconds"]))
            for worker in workers.values():
                worker.close()
    start = start_seconds(arguments.rounds)
    result["start"] = start
    rows.append(row("import and construct, s", start["ours"], start["transformers"]))
    print(harness.machine(), f"{arguments.rounds} rounds, {arguments.threads} threads", sep="; ")
    print(harness.table(rows))
    print(harness.write_result("toolbox", result))


def row(what: str, ours: float, theirs: float) -> list[str]:
    """One line of the table."""
    return [what, f"{ours:.3f}", f"{theirs:.3f}", f"{ours / theirs:.2f}"]


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"took {time.perf_counter() - started:.0f} s", file=sys.stderr)
