"""One Reformer training step (forward, backward, clip, AdamW) against transformers 5.23.0: time and peak memory.

Both sides load one checkpoint, and their logits are compared before anything is timed. Peak memory is over the
worker's own idle with its model built.
"""

import argparse
import os
import sys
import tempfile
from typing import Any

import harness

SIDES = {"modelwright": harness.OURS, "transformers 5.23.0": harness.PEER_5}


def config(window: int, hashes: int) -> dict[str, Any]:
    """Arguments of ReformerConfig: 6 layers, width 256, local and LSH attention in turn, the default dropout."""
    return {
        "attention_head_size": 64,
        "attn_layers": ["local", "lsh"] * 3,
        "axial_pos_shape": [64, window // 64],
        "axial_pos_embds_dim": [64, 192],
        "feed_forward_size": 1024,
        "hash_seed": 0,
        "hidden_size": 256,
        "is_decoder": True,
        "max_position_embeddings": window,
        "num_attention_heads": 4,
        "num_buckets": 2 * window // 64 if window <= 4096 else [16, window // 512],
        "num_hashes": hashes,
        "vocab_size": 258,
    }


def worker(side: str, threads: int) -> None:
    """Serve measurements of one side."""
    import torch

    torch.set_num_threads(threads)
    if side == "modelwright":
        from modelwright import ReformerModelWithLMHead
    else:
        from transformers import ReformerModelWithLMHead
    state: dict[str, Any] = {}

    def load(checkpoint: str, window: int, batch: int) -> list[float]:
        model = ReformerModelWithLMHead.from_pretrained(checkpoint)
        tokens = torch.randint(2, 258, (batch, window), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            # Beyond position 0, where upstream loses up to 0.35 % to rounding when there are several hashes.
            sample = model(tokens).logits[:, 1::97, ::16].flatten().tolist()
        state.update(model=model.train(), tokens=tokens, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-4))
        state["idle"] = harness.resident_bytes()
        return sample

    def step() -> None:
        loss = state["model"](state["tokens"], labels=state["tokens"]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(state["model"].parameters(), 1.0)
        state["optimizer"].step()
        state["optimizer"].zero_grad(set_to_none=True)

    harness.serve({"load": load, "step": lambda: harness.measure(step, state["idle"])})


def compare(window: int, batch: int, hashes: int, rounds: int, threads: int) -> dict[str, Any]:
    """Measure one setting on both sides."""
    from modelwright import ReformerConfig, ReformerModelWithLMHead

    with tempfile.TemporaryDirectory() as folder:
        ReformerModelWithLMHead(ReformerConfig(**config(window, hashes))).save_pretrained(folder)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        workers = {
            side: harness.Worker(python, __file__, side, "--threads", str(threads), environment=environment)  # type: ignore[arg-type]
            for side, python in SIDES.items()
        }
        samples = [w.call("load", checkpoint=folder, window=window, batch=batch) for w in workers.values()]
        scale = max(abs(value) for value in samples[1])
        difference = max(abs(a - b) for a, b in zip(*samples, strict=True)) / scale
        if difference > 1e-2:
            sys.exit(f"the sides do not compute the same: logits differ by {difference:.1e} of their scale")
        medians = harness.summarise(harness.interleave(workers, rounds, name="step"))
        for running in workers.values():
            running.close()
    return {"window": window, "batch": batch, "hashes": hashes, "logit_difference": difference, "sides": medians}


def main() -> None:
    """Print the table and write the JSON."""
    options = harness.parser(__doc__.splitlines()[0], rounds=5)
    options.add_argument("--windows", type=int, nargs="+", default=[4096, 16384], help="tokens (default 4096 16384)")
    options.add_argument("--hashes", type=int, nargs="+", default=[1, 4], help="hash rounds (default 1 4)")
    options.add_argument("--batch", type=int, default=1, help="rows (default 1)")
    arguments: argparse.Namespace = options.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.threads)
        return
    results, rows = [], [["window", "hashes", "side", "seconds", "ratio", "peak MB", "ratio"]]
    for window in arguments.windows:
        for hashes in arguments.hashes:
            result = compare(window, arguments.batch, hashes, arguments.rounds, arguments.threads)
            results.append(result)
            peer = result["sides"]["transformers 5.23.0"]
            for side, figures in result["sides"].items():
                rows.append(
                    [
                        f"{window:,}",
                        str(hashes),
                        side,
                        f"{figures['seconds']:.2f}",
                        f"{figures['seconds'] / peer['seconds']:.2f}",
                        f"{figures['peak_bytes'] / 1e6:,.0f}",
                        f"{figures['peak_bytes'] / peer['peak_bytes']:.2f}",
                    ]
                )
    print(
        harness.machine(),
        f"{arguments.threads} threads, fp32, batch {arguments.batch}, {arguments.rounds} rounds",
        sep="; ",
    )
    print(harness.table(rows))
    print(harness.write_result("reformer_train", {"threads": arguments.threads, "results": results}))


if __name__ == "__main__":
    main()
