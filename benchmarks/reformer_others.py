"""Reformer against reformer-pytorch 1.4.4 and a plain decoder (sdpa) of the same size: seconds and peak memory.

The three are different networks, so no outputs are compared: same number of layers, width, heads, feed-forward width,
vocabulary and tokens. Ours has local and LSH layers in turn; reformer-pytorch has half of each layer's heads local and
half LSH, which is its way to the same share (its local window is two chunks); the plain decoder attends to all tokens.
No dropout. The floor is that of our matrix products (see reformer.py).
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from reformer import (  # isort: skip
    CHUNK,
    FEED_FORWARD,
    LAYERS,
    OURS,
    VOCABULARY,
    WIDTH,
    Case,
    config,
    gemm_rate,
    matrix_flops,
)
import harness  # isort: skip - it takes this folder off the path

HEADS = 4
LUCID, PLAIN = "reformer-pytorch 1.4.4", "plain decoder, sdpa"
PYTHONS = {
    OURS: harness.OURS,
    LUCID: harness.ROOT / ".peers" / "reformer-pytorch" / "bin" / "python",
    PLAIN: harness.OURS,
}
CASES = [
    Case("evaluation fp32", train=False),
    Case("training fp32"),
    Case("training fp32, 4,096", window=4096),
]


def ours(window: int) -> Any:
    """Return our model."""
    from modelwright import ReformerConfig, ReformerModelWithLMHead

    return ReformerModelWithLMHead(ReformerConfig(**config(Case("", window=window), 0.0)))


def lucid(window: int) -> Any:
    """Return reformer-pytorch's model."""
    from reformer_pytorch import ReformerLM

    return ReformerLM(
        num_tokens=VOCABULARY,
        dim=WIDTH,
        depth=LAYERS,
        heads=HEADS,
        dim_head=WIDTH // HEADS,
        bucket_size=CHUNK,
        n_hashes=1,
        n_local_attn_heads=HEADS // 2,
        ff_mult=FEED_FORWARD // WIDTH,
        max_seq_len=window,
        causal=True,
        axial_position_emb=True,
        axial_position_shape=(64, window // 64),
    )


def plain(window: int) -> Any:
    """Return an ordinary pre-norm decoder."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
            self.inner, self.outer = nn.Linear(WIDTH, FEED_FORWARD), nn.Linear(FEED_FORWARD, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            heads = self.qkv(self.norms[0](x)).unflatten(-1, (3, HEADS, -1)).transpose(1, 3)
            attended = F.scaled_dot_product_attention(*heads.unbind(2), is_causal=True)
            x = x + self.out(attended.transpose(1, 2).flatten(2))
            return x + self.outer(self.inner(self.norms[1](x)).relu())

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(window, WIDTH)
            self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.head(self.norm(self.layers(self.words(tokens) + self.places.weight)))
            return scores

    return Decoder()


MODELS: dict[str, Callable[[int], Any]] = {OURS: ours, LUCID: lucid, PLAIN: plain}


def worker(side: str, threads: int) -> None:
    """Serve measurements of one side."""
    import torch

    torch.set_num_threads(threads)
    state: dict[str, Any] = {}

    def load(window: int, train: bool) -> int:
        torch.manual_seed(0)
        model = state["model"] = MODELS[side](window).train(train)
        state["tokens"] = torch.randint(2, VOCABULARY, (1, window), generator=torch.Generator().manual_seed(0))
        state["optimizer"] = torch.optim.AdamW(model.parameters(), lr=1e-4)
        state["work"] = step if train else evaluate
        state["idle"] = harness.resident_bytes()
        return sum(parameter.numel() for parameter in model.parameters())

    def evaluate() -> None:
        with torch.no_grad():
            state["model"](state["tokens"], **({"use_cache": False} if side == OURS else {}))

    def step() -> None:
        tokens = state["tokens"]
        if side == OURS:
            loss = state["model"](tokens, labels=tokens).loss
        else:
            logits = state["model"](tokens)[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, tokens[0, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(state["model"].parameters(), 1.0)
        state["optimizer"].step()
        state["optimizer"].zero_grad(set_to_none=True)

    harness.serve({"load": load, "run": lambda: harness.measure(state["work"], state["idle"]), "gemm_rate": gemm_rate})


def compare(case: Case, sides: list[str], rounds: int, threads: int) -> dict[str, Any]:
    """Measure one setting on all sides."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    workers = {
        side: harness.Worker(PYTHONS[side], __file__, side, "--threads", str(threads), environment=environment)
        for side in [OURS, *sides]
    }
    parameters = {side: running.call("load", window=case.window, train=case.train) for side, running in workers.items()}
    rate = workers[OURS].call("gemm_rate", dtype="float32")
    medians = harness.summarise(harness.interleave(workers, rounds, name="run"))
    for running in workers.values():
        running.close()
    return {
        "case": asdict(case),
        "parameters": parameters,
        "gemm_flops_per_second": rate,
        "floor_seconds": matrix_flops(case) / rate,
        "sides": medians,
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """The lines of the table of one setting."""
    mine = result["sides"][OURS]
    return [
        [
            result["case"]["name"],
            side,
            f"{figures['seconds']:.2f}",
            f"{mine['seconds'] / figures['seconds']:.2f}",
            f"{figures['peak_bytes'] / 1e6:,.0f}",
            f"{mine['peak_bytes'] / figures['peak_bytes']:.2f}",
            f"{result['parameters'][side] / 1e6:.1f}",
            f"{result['floor_seconds']:.2f}" if side == OURS else "",
        ]
        for side, figures in result["sides"].items()
    ]


def main() -> None:
    """Print the table and write the JSON."""
    options = harness.parser(__doc__.splitlines()[0], rounds=1)
    names = [case.name for case in CASES]
    options.add_argument("--cases", nargs="+", choices=names, default=names, help="only these (default: all)")
    options.add_argument("--peers", nargs="+", choices=[LUCID, PLAIN], default=[LUCID, PLAIN], help="only these")
    arguments: argparse.Namespace = options.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.threads)
        return
    chosen = [case for case in CASES if case.name in arguments.cases]
    results = [compare(case, arguments.peers, arguments.rounds, arguments.threads) for case in chosen]
    head = ["work", "side", "s", "ours / it", "peak MB", "ours / it", "M parameters", "floor, s"]
    print(harness.machine(), f"{arguments.threads} threads, batch 1, {arguments.rounds} rounds", sep="; ")
    print(harness.table([head, *(line for result in results for line in rows(result))]))
    print(harness.write_result("reformer_others", {"threads": arguments.threads, "results": results}))


if __name__ == "__main__":
    main()
