"""Reformer on a GPU against the transformers that is installed beside us: seconds, peak memory, and where time goes.

Both sides have the same weights, and their logits are compared before anything is timed. They take turns; seconds are
medians between synchronisations, memory is the allocator's peak over what is allocated between steps. bf16 is autocast
on both sides. Without a GPU it says so and ends.
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any

import harness


@dataclass(frozen=True)
class Case:
    """One setting: `large` is the size of google/reformer-enwik8, else that of the CPU's benchmark."""

    name: str
    window: int = 16384
    batch: int = 1
    hashes: int = 1
    train: bool = True
    bf16: bool = True
    large: bool = False


CASES = [
    Case("evaluation fp32, batch 4", batch=4, train=False, bf16=False),
    Case("evaluation bf16, batch 4", batch=4, train=False),
    Case("training fp32, batch 4", batch=4, bf16=False),
    Case("training bf16, batch 4", batch=4),
    Case("training bf16, batch 4, 4 hashes", batch=4, hashes=4),
    Case("training bf16, 65,536", window=65536),
    Case("enwik8 training bf16, 65,536", window=65536, large=True),
    Case("enwik8 training bf16, 65,536, 4 hashes", window=65536, hashes=4, large=True),
]


def config(case: Case) -> dict[str, Any]:
    """Arguments of ReformerConfig."""
    width, heads, head, inner, layers = (1024, 8, 128, 4096, 6) if case.large else (256, 4, 64, 512, 3)
    chunks = (128, 256) if case.large else (64, 64)
    return {
        "attention_head_size": head,
        "attn_layers": ["local", "lsh"] * layers,
        "axial_pos_shape": [128, case.window // 128],
        "axial_pos_embds_dim": [width // 4, width - width // 4],
        "feed_forward_size": inner,
        "hash_seed": 0,
        "hidden_size": width,
        "is_decoder": True,
        "local_attn_chunk_length": chunks[0],
        "lsh_attn_chunk_length": chunks[1],
        "max_position_embeddings": case.window,
        "num_attention_heads": heads,
        "num_buckets": [16, case.window // 512],
        "num_hashes": case.hashes,
        "vocab_size": 258,
    }


class Side:
    """A model of one library with its optimizer, and its measurements."""

    def __init__(self, library: Any, folder: str, case: Case) -> None:
        import torch

        self.torch, self.case = torch, case
        self.model = library.ReformerModelWithLMHead.from_pretrained(folder).cuda().train(case.train)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        generator = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(2, 258, (case.batch, case.window), generator=generator).cuda()
        self.taken: list[dict[str, float]] = []

    def logits(self) -> Any:
        """A sample of the logits in evaluation, in fp32."""
        with self.torch.no_grad():
            # Beyond position 0, where upstream loses up to 0.35 % to rounding when there are several hashes.
            sample = self.model.eval()(self.tokens[:1], use_cache=False).logits[:, 1::97].float()
        self.model.train(self.case.train)
        return sample

    def work(self) -> None:
        """One forward, or one training step."""
        torch = self.torch
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.case.bf16):
            if not self.case.train:
                with torch.no_grad():
                    self.model(self.tokens, use_cache=False)
                return
            loss = self.model(self.tokens, labels=self.tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def measure(self) -> None:
        """Do the work once and note what it took."""
        cuda = self.torch.cuda
        cuda.synchronize()
        cuda.reset_peak_memory_stats()
        before, start = cuda.memory_allocated(), time.perf_counter()
        self.work()
        cuda.synchronize()
        self.taken.append({"seconds": time.perf_counter() - start, "peak_bytes": cuda.max_memory_allocated() - before})

    def medians(self) -> dict[str, float]:
        """The median of each figure, the first two runs not counted."""
        return {key: statistics.median(taken[key] for taken in self.taken[2:]) for key in self.taken[0]}

    def profile(self) -> str:
        """Return the kernels that take most of the time of one run."""
        activities = [self.torch.profiler.ProfilerActivity.CPU, self.torch.profiler.ProfilerActivity.CUDA]
        with self.torch.profiler.profile(activities=activities) as profiler:
            self.work()
            self.torch.cuda.synchronize()
        return profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=18, max_name_column_width=60)


def compare(case: Case, rounds: int, profile: bool) -> dict[str, Any]:
    """Measure one setting on both sides."""
    import torch
    import transformers

    import modelwright

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = modelwright.ReformerModelWithLMHead(modelwright.ReformerConfig(**config(case)))
        model.save_pretrained(folder)
        sides = {"ours": Side(modelwright, folder, case), "theirs": Side(transformers, folder, case)}
    ours, theirs = (side.logits() for side in sides.values())
    apart = ((ours - theirs).norm() / theirs.norm()).item()
    if apart > 1e-2:
        sys.exit(f"{case.name}: the sides do not compute the same: logits differ by {apart:.1e}")
    for _ in range(rounds + 2):
        for side in sides.values():
            side.measure()
    if profile:
        print(sides["ours"].profile(), flush=True)
    medians = {name: side.medians() for name, side in sides.items()}
    ratios = {key: value / medians["theirs"][key] for key, value in medians["ours"].items()}
    return {"case": asdict(case), "logit_difference": apart, "sides": medians, "ratios": ratios}


def row(result: dict[str, Any]) -> list[str]:
    """One line of the table."""
    ours, theirs, ratios = result["sides"]["ours"], result["sides"]["theirs"], result["ratios"]
    return [
        result["case"]["name"],
        f"{1e3 * ours['seconds']:.1f} / {1e3 * theirs['seconds']:.1f}",
        f"{ratios['seconds']:.2f}",
        f"{ours['peak_bytes'] / 1e6:,.0f} / {theirs['peak_bytes'] / 1e6:,.0f}",
        f"{ratios['peak_bytes']:.2f}",
        f"{result['logit_difference']:.0e}",
    ]


def main() -> None:
    """Print the table and write the JSON."""
    import torch

    names = [case.name for case in CASES]
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=5, help="counted rounds (default %(default)s)")
    options.add_argument("--cases", nargs="+", choices=names, default=names, help="only these (default: all)")
    options.add_argument("--profile", action="store_true", help="print where our time goes, too")
    arguments = options.parse_args()
    if not torch.cuda.is_available():
        print("no GPU: nothing to measure")
        return
    import transformers

    results = []
    for case in CASES:
        if case.name in arguments.cases:
            results.append(compare(case, arguments.rounds, arguments.profile))
            print(row(results[-1]), flush=True)
            torch.cuda.empty_cache()
    head = ["work", "ms, ours / theirs", "ratio", "peak MB", "ratio", "logits differ"]
    where = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, transformers {transformers.__version__}"
    print(where, f"{arguments.rounds} rounds", sep="; ")
    print(harness.table([head, *map(row, results)]))
    print(harness.write_result("reformer_gpu", {"device": where, "results": results}))


if __name__ == "__main__":
    main()
