"""Reformer against transformers 5.23.0: cached decoding, tokens a second after a context.

Both sides load one checkpoint and read the same context; the logits behind it are compared before anything is timed,
and so is the first decoded token's, at batch 1 (upstream's LSH layers read row 0's states for every row of a batch).
At batch 1 our weights are laid out for decoding (`modelwright.nn.decode_layout`). Each measurement decodes a fixed
number of tokens greedily, and the context grows with it on both sides alike.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any

from reformer import OURS, PEER, PYTHONS, VOCABULARY, Case as Setting, config as settings_of  # isort: skip
import harness  # isort: skip - it takes this folder off the path


@dataclass(frozen=True)
class Case:
    """One setting: rows, tokens of context, and the bar that it is held to (ratio of tokens a second)."""

    batch: int
    context: int
    bar: float

    @property
    def name(self) -> str:
        """What the case is called."""
        return f"batch {self.batch}, {self.context:,}"


CASES = [Case(1, 1000, 4.2), Case(1, 8000, 10.0), Case(8, 8000, 8.0)]


def worker(side: str, threads: int) -> None:
    """Serve measurements of one side."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    if side == OURS:
        from modelwright import ReformerModelWithLMHead
        from modelwright.nn.decode_layout import lay_out_for_decoding
    else:
        from transformers import ReformerModelWithLMHead
    state: dict[str, Any] = {}

    def load(checkpoint: str, batch: int, context: int) -> list[list[float]]:
        model = state["model"] = ReformerModelWithLMHead.from_pretrained(checkpoint).eval()
        if side == OURS and batch == 1:
            lay_out_for_decoding(model)
        state["idle"] = harness.resident_bytes()
        tokens = torch.randint(2, VOCABULARY, (batch, context), generator=torch.Generator().manual_seed(0))
        output = model(tokens, use_cache=True)
        prompt = output.logits[:, -1]
        state.update(cache=output.past_buckets_states, last=tokens[:, -1:])
        state["last"] = prompt.argmax(dim=-1, keepdim=True)
        step()
        return [prompt.flatten().tolist(), state["logits"].flatten().tolist()]

    def step() -> None:
        output = state["model"](state["last"], past_buckets_states=state["cache"], use_cache=True)
        state["logits"] = output.logits[:, -1]
        state["last"] = state["logits"].argmax(dim=-1, keepdim=True)
        state["cache"] = output.past_buckets_states

    def run(tokens: int) -> dict[str, float]:
        before = time.process_time()

        def work() -> None:
            for _ in range(tokens):
                step()

        figures = harness.measure(work, state["idle"])
        rate = len(state["last"]) * tokens
        return {
            "tokens_per_second": rate / figures["seconds"],
            "tokens_per_cpu_second": rate / (time.process_time() - before),
            "peak_bytes": figures["peak_bytes"],
        }

    harness.serve({"load": load, "run": run})


def compare(case: Case, rounds: int, threads: int, tokens: int) -> dict[str, Any]:
    """Measure one setting on both sides."""
    from modelwright import ReformerConfig, ReformerModelWithLMHead

    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    workers = {
        side: harness.Worker(python, __file__, side, "--threads", str(threads), environment=environment)
        for side, python in PYTHONS.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        config = ReformerConfig(**settings_of(Setting("decoding", train=False), None))
        ReformerModelWithLMHead(config).save_pretrained(folder)
        request = {"checkpoint": folder, "batch": case.batch, "context": case.context}
        samples = [running.call("load", **request) for running in workers.values()]
    scale = max(map(abs, samples[1][0]))
    differences = [max(abs(a - b) for a, b in zip(*pair, strict=True)) / scale for pair in zip(*samples, strict=True)]
    if differences[0] > 1e-2 or (case.batch == 1 and differences[1] > 1e-2):
        sys.exit(f"the sides do not compute the same: logits differ by {differences} of their scale")
    medians = harness.summarise(harness.interleave(workers, rounds, name="run", tokens=tokens))
    for running in workers.values():
        running.close()
    ours, peer = medians[OURS], medians[PEER]
    return {
        "case": asdict(case),
        "logit_differences": differences,
        "sides": medians,
        "ratios": {key: ours[key] / peer[key] for key in ours},
    }


def row(result: dict[str, Any]) -> list[str]:
    """One line of the table."""
    ours, peer, ratios = result["sides"][OURS], result["sides"][PEER], result["ratios"]
    return [
        f"{Case(**result['case']).name} tokens",
        f"{ours['tokens_per_second']:.0f} / {peer['tokens_per_second']:.0f}",
        f"{ratios['tokens_per_second']:.1f}",
        f"{ratios['tokens_per_cpu_second']:.1f}",
        f"{result['case']['bar']:.1f}",
        f"{ours['peak_bytes'] / 1e6:,.0f} / {peer['peak_bytes'] / 1e6:,.0f}",
    ]


def main() -> None:
    """Print the table and write the JSON."""
    options = harness.parser(__doc__.splitlines()[0], rounds=5)
    names = [case.name for case in CASES]
    options.add_argument("--cases", nargs="+", choices=names, default=names, help="only these (default: all)")
    options.add_argument("--tokens", type=int, default=32, help="tokens of one measurement")
    arguments: argparse.Namespace = options.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.threads)
        return
    chosen = [case for case in CASES if case.name in arguments.cases]
    results = [compare(case, arguments.rounds, arguments.threads, arguments.tokens) for case in chosen]
    head = ["context", "tokens/s, ours / theirs", "ratio", "CPU ratio", "bar", "peak MB, ours / theirs"]
    print(harness.machine(), f"{arguments.threads} threads, {arguments.rounds} rounds", sep="; ")
    print(harness.table([head, *map(row, results)]))
    print(harness.write_result("reformer_decode", {"threads": arguments.threads, "results": results}))


if __name__ == "__main__":
    main()
