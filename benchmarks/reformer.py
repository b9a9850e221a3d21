"""Reformer against transformers 5.23.0: evaluation and training steps, seconds and peak memory, beside the floor.

Both sides load one checkpoint, their logits are compared before anything is timed, and both must have hashed. Peak
memory is over the worker's own idle with its model built. The floor is the work's matrix FLOPs over the rate at which
our own linear layers multiply in that dtype, measured on this machine: nothing with these products can be faster.

`--flat` measures ours alone at several lengths, in turn in one run: a training step is to cost each token the same,
however many there are. What does not depend on the length, gradient norm and optimizer, is timed by itself.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import harness

OURS, PEER = "modelwright", "transformers 5.23.0"
PYTHONS = {OURS: harness.OURS, PEER: harness.PEER_5}
LAYERS, WIDTH, FEED_FORWARD, VOCABULARY, CHUNK = 6, 256, 512, 258, 64


@dataclass(frozen=True)
class Case:
    """One setting. `autocast` concerns our side: upstream's own autocast gains nothing, so its fp32 is compared.

    `recompute` is our `recompute_attention`: less memory, more time. Upstream always does.
    """

    name: str
    window: int = 16384
    hashes: int = 1
    train: bool = True
    autocast: bool = False
    recompute: bool = False


CASES = [
    Case("evaluation fp32", train=False),
    Case("training fp32"),
    Case("training fp32, 4 hashes", hashes=4),
    Case("training bf16", autocast=True),
    Case("training fp32, 4,096", window=4096),
    Case("training fp32, 65,536", window=65536, recompute=True),
]

FLAT = [Case(f"{window:,}", window=window) for window in (4096, 16384, 65536)]


def config(case: Case, dropout: float | None) -> dict[str, Any]:
    """Arguments of ReformerConfig."""
    settings: dict[str, Any] = {
        "attention_head_size": 64,
        "attn_layers": ["local", "lsh"] * (LAYERS // 2),
        "axial_pos_shape": [64, case.window // 64],
        "axial_pos_embds_dim": [64, 192],
        "feed_forward_size": FEED_FORWARD,
        "hash_seed": 0,
        "hidden_size": WIDTH,
        "is_decoder": True,
        "local_attn_chunk_length": CHUNK,
        "lsh_attn_chunk_length": CHUNK,
        "max_position_embeddings": case.window,
        "num_attention_heads": 4,
        "num_buckets": 2 * case.window // CHUNK if case.window <= 4096 else [16, case.window // 512],
        "num_hashes": case.hashes,
        "recompute_attention": case.recompute,
        "vocab_size": VOCABULARY,
    }
    if dropout is not None:
        settings.update(dict.fromkeys(("hidden_dropout_prob", "local_attention_probs_dropout_prob"), dropout))
    return settings


def matrix_flops(case: Case) -> float:
    """The FLOPs of the matrix products that one step cannot do without."""
    linear = LAYERS * 2 * WIDTH * FEED_FORWARD + LAYERS // 2 * (4 + 3) * WIDTH * WIDTH
    attention = LAYERS // 2 * (1 + case.hashes) * 2 * (2 * CHUNK) * WIDTH
    head = 2 * WIDTH * VOCABULARY
    forward = 2 * case.window * (linear + attention + head)
    if not case.train:
        return forward
    # The backward is two products for each; a reversible stack computes its linear maps again, and scores without
    # stored probabilities are computed again.
    return 3 * forward + 2 * case.window * (linear + attention / 2)


def gemm_rate(dtype: str) -> float:
    """FLOP/s of the feed-forward network's product, the largest of the model, as our linear layers make it."""
    return 2 * 4096 * WIDTH * FEED_FORWARD / harness.product_seconds(4096, WIDTH, FEED_FORWARD, dtype)


def count_hashings(side: str) -> list[int]:
    """Return a list that grows whenever an attention hashes."""
    home: Any
    if side == OURS:
        from modelwright.models.reformer import hashing

        home, name = hashing, "hash_vectors"
    else:
        from transformers.models.reformer.modeling_reformer import LSHSelfAttention

        home, name = LSHSelfAttention, "_hash_vectors"
    calls: list[int] = []
    original = getattr(home, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    setattr(home, name, counted)
    return calls


def worker(side: str, threads: int) -> None:
    """Serve measurements of one side."""
    import torch

    torch.set_num_threads(threads)
    if side == OURS:
        from modelwright import ReformerModelWithLMHead
    else:
        from transformers import ReformerModelWithLMHead
    hashings = count_hashings(side)
    state: dict[str, Any] = {}

    def load(checkpoint: str, window: int, train: bool, autocast: bool) -> list[float]:
        model = ReformerModelWithLMHead.from_pretrained(checkpoint)
        # Making the optimizer imports torch's compiler, which one side has imported already.
        state["optimizer"] = torch.optim.AdamW(model.parameters(), lr=1e-4)
        state["idle"] = harness.resident_bytes()
        tokens = torch.randint(2, VOCABULARY, (1, window), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            # Beyond position 0, where upstream loses up to 0.35 % to rounding when there are several hashes.
            sample = model(tokens, use_cache=False).logits[:, 1::97, ::16].flatten().tolist()
        if len(hashings) < LAYERS // 2:
            raise SystemExit(f"{side}: {len(hashings)} hashings in {LAYERS // 2} LSH layers")
        state.update(model=model.train(train), tokens=tokens, autocast=autocast and side == OURS)
        state["work"] = step if train else evaluate
        return sample

    def evaluate() -> None:
        with torch.no_grad():
            state["model"](state["tokens"], use_cache=False)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=state["autocast"]):
            loss = state["model"](state["tokens"], labels=state["tokens"]).loss
        loss.backward()
        start = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(state["model"].parameters(), 1.0)
        state["optimizer"].step()
        state["optimizer"].zero_grad(set_to_none=True)
        state["update_seconds"] = time.perf_counter() - start

    def run() -> dict[str, float]:
        before, state["update_seconds"] = resource.getrusage(resource.RUSAGE_SELF), 0.0
        figures = harness.measure(state["work"], state["idle"])
        after = resource.getrusage(resource.RUSAGE_SELF)
        return {
            **figures,
            "cpu_seconds": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime,
            "system_seconds": after.ru_stime - before.ru_stime,
            "page_faults": after.ru_minflt - before.ru_minflt,
            "update_seconds": state["update_seconds"],
        }

    harness.serve({"load": load, "run": run, "gemm_rate": gemm_rate})


def start(side: str, threads: int) -> harness.Worker:
    """Start a worker of a side."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return harness.Worker(PYTHONS[side], Path(__file__), side, "--threads", str(threads), environment=environment)


def load_all(cases: dict[harness.Worker, Case], dropout: float | None) -> list[list[float]]:
    """Let each worker load a checkpoint of its case, the same for the same case; return some logits of each."""
    from modelwright import ReformerConfig, ReformerModelWithLMHead

    samples = []
    with tempfile.TemporaryDirectory() as place:
        for running, case in cases.items():
            folder = Path(place) / case.name
            if not folder.exists():
                ReformerModelWithLMHead(ReformerConfig(**config(case, dropout))).save_pretrained(folder)
            what = {"window": case.window, "train": case.train, "autocast": case.autocast}
            samples.append(running.call("load", checkpoint=str(folder), **what))
    return samples


def compare(case: Case, dropout: float | None, rounds: int, threads: int) -> dict[str, Any]:
    """Measure one setting on both sides."""
    workers = {side: start(side, threads) for side in PYTHONS}
    samples = load_all(dict.fromkeys(workers.values(), case), dropout)
    scale = max(abs(value) for value in samples[1])
    differences = sorted(abs(a - b) / scale for a, b in zip(*samples, strict=True))
    # All but one in a hundred: a vector at the border of two buckets may fall to either side of it by rounding.
    difference = differences[-1 - len(differences) // 100]
    if difference > 1e-2:
        sys.exit(f"the sides do not compute the same: logits differ by {difference:.1e} of their scale")
    rate = workers[OURS].call("gemm_rate", dtype="bfloat16" if case.autocast else "float32")
    medians = harness.summarise(harness.interleave(workers, rounds, name="run"))
    for running in workers.values():
        running.close()
    ours, peer = medians[OURS], medians[PEER]
    return {
        "case": asdict(case),
        "logit_difference": difference,
        "gemm_flops_per_second": rate,
        "floor_seconds": matrix_flops(case) / rate,
        "sides": medians,
        "ratios": {key: ours[key] / peer[key] for key in ("seconds", "peak_bytes", "cpu_seconds")},
    }


def row(result: dict[str, Any]) -> list[str]:
    """One line of the table."""
    ours, peer, ratios = result["sides"][OURS], result["sides"][PEER], result["ratios"]
    return [
        result["case"]["name"],
        f"{ours['seconds']:.2f} / {peer['seconds']:.2f}",
        f"{ratios['seconds']:.2f}",
        f"{ratios['cpu_seconds']:.2f}",
        f"{ours['peak_bytes'] / 1e6:,.0f} / {peer['peak_bytes'] / 1e6:,.0f}",
        f"{ratios['peak_bytes']:.2f}",
        f"{1e6 * ours['seconds'] / result['case']['window']:.0f}",
        f"{result['floor_seconds']:.2f}",
    ]


def flatness(cases: list[Case], dropout: float | None, rounds: int, threads: int) -> list[dict[str, Any]]:
    """Measure our own training steps of several lengths in turn."""
    workers = {case.name: start(OURS, threads) for case in cases}
    load_all(dict(zip(workers.values(), cases, strict=True)), dropout)
    medians = harness.summarise(harness.interleave(workers, rounds, name="run"))
    for running in workers.values():
        running.close()
    return [{"case": asdict(case), **medians[case.name]} for case in cases]


def flat_rows(results: list[dict[str, Any]]) -> list[list[str]]:
    """The table of `flatness`; its last row is the largest time a token over the smallest."""
    rows, times = [], []
    for result in results:
        window, update = result["case"]["window"], result["update_seconds"]
        times.append([1e6 * seconds / window for seconds in (result["seconds"], result["seconds"] - update)])
        figures = [f"{result['seconds']:.2f}", *(f"{each:.0f}" for each in times[-1]), f"{update:.3f}"]
        share = 100 * result["system_seconds"] / result["cpu_seconds"]
        figures += [
            f"{share:.0f}",
            f"{result['page_faults'] / window:.1f}",
            f"{result['peak_bytes'] / window / 1e3:.1f}",
        ]
        rows.append([f"{window:,}", *figures])
    ratios = [f"{max(each) / min(each):.2f}" for each in zip(*times, strict=True)]
    return [*rows, ["largest / smallest", "", *ratios, "", "", "", ""]]


def measure_flatness(arguments: argparse.Namespace) -> None:
    """Print the table of lengths and write its JSON."""
    cases = [replace(case, recompute=arguments.recompute) for case in FLAT]
    results = flatness(cases, arguments.dropout, arguments.rounds, arguments.threads)
    head = [
        "tokens",
        "s",
        "us a token",
        "without update",
        "update, s",
        "% in kernel",
        "faults a token",
        "peak kB a token",
    ]
    print(harness.machine(), f"{arguments.threads} threads, batch 1, {arguments.rounds} rounds", sep="; ")
    print(harness.table([head, *flat_rows(results)]))
    print(harness.write_result("reformer_flat", {"threads": arguments.threads, "results": results}))


def main() -> None:
    """Print the table and write the JSON."""
    options = harness.parser(__doc__.splitlines()[0], rounds=3)
    names = [case.name for case in CASES]
    options.add_argument("--cases", nargs="+", choices=names, default=names, help="only these (default: all)")
    options.add_argument("--dropout", type=float, help="for all dropouts (default: the configuration's)")
    options.add_argument("--flat", action="store_true", help="only ours, training at several lengths")
    options.add_argument("--recompute", action="store_true", help="with --flat: with recompute_attention")
    arguments: argparse.Namespace = options.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.threads)
        return
    if arguments.flat:
        measure_flatness(arguments)
        return
    chosen = [case for case in CASES if case.name in arguments.cases]
    results = [compare(case, arguments.dropout, arguments.rounds, arguments.threads) for case in chosen]
    head = ["work", "s, ours / theirs", "ratio", "CPU ratio", "peak MB", "ratio", "us a token", "floor, s"]
    print(harness.machine(), f"{arguments.threads} threads, batch 1, {arguments.rounds} rounds", sep="; ")
    print(harness.table([head, *map(row, results)]))
    print(harness.write_result("reformer", {"threads": arguments.threads, "results": results}))


if __name__ == "__main__":
    main()
