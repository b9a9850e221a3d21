"""ProphetNet against transformers 5.23.0 and 4.37.2: forward, training steps, greedy and beam decoding, and the floor.

All sides load one checkpoint (width 512, 4 + 4 layers, 8 heads, feed-forward 2048, vocabulary 30,522; batch 4, source
256). Losses, and the ids that decoding writes, are compared before anything is timed: on the side of transformers the
losses are those of its own reading of the relative bias, so ours loads with `relative_bias_layout="transformers"` for
the comparison and for all times. Every ratio is to the faster (or smaller) of the two versions of transformers.
Ours decodes with packed weights (`modelwright.nn.decode_layout`), which the uncounted first round packs; what they take
is in the task's memory. Its encoder leaves the source's padding (half of one text of four) out in the forward too, as
`to_bettertransformer()` asks for; training and decoding do without being asked.
CPU seconds are those of all threads, which on a busy machine say more than the clock; threads that wait count too.

The floor is the time of the matrix products alone, forward, or forward and backward, of the streams that the task needs
(the main stream of the last layer excepted), measured in the same worker by products of the same shapes, each made as
our linear layers make it (see `harness.product_seconds`).
"""

import tempfile
from pathlib import Path

import harness

SHAPE = {
    "vocab_size": 30522,
    "hidden_size": 512,
    "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048,
    "num_encoder_layers": 4,
    "num_decoder_layers": 4,
    "num_encoder_attention_heads": 8,
    "num_decoder_attention_heads": 8,
    "max_position_embeddings": 516,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}
BATCH, SOURCE, NEW = 4, 256, 32
SIDES = {
    "ours": ("modelwright", harness.OURS),
    "transformers 5": ("transformers", harness.PEER_5),
    "transformers 4.37": ("transformers", harness.PEER_437),
}
# What each task does, and what its ratio to transformers is to be: of time, of memory.
TASKS = {
    "forward 128": {"kind": "forward", "target": 128, "bar": 0.75},
    "train 128": {"kind": "train", "target": 128, "bar": 0.70, "memory_bar": 0.5},
    "train 512": {"kind": "train", "target": 512, "bar": 0.58, "memory_bar": 0.28},
    "train 128, bf16": {"kind": "train", "target": 128, "half": True, "bar": 0.35},
    "train 512, bf16": {"kind": "train", "target": 512, "half": True, "bar": 0.35},
    "greedy, batch 4": {"kind": "generate", "rows": 4, "beams": 1, "bar": 1 / 2.5},
    "beam 4, batch 4": {"kind": "generate", "rows": 4, "beams": 4, "bar": 1 / 2.5},
    "beam 5, batch 8": {"kind": "generate", "rows": 8, "beams": 5, "bar": 1 / 3},
}


def work(package: str, threads: int) -> None:
    """Be one side."""
    import contextlib
    import importlib
    import time

    import torch

    torch.set_num_threads(threads)
    model_class = importlib.import_module(package).ProphetNetForConditionalGeneration
    held = {}

    def load(folder: str) -> dict:
        options = {"relative_bias_layout": "transformers"} if package == "modelwright" else {}
        held["model"] = model_class.from_pretrained(folder, **options).eval()
        if package == "modelwright":
            held["model"].to_bettertransformer()
        # Weights that a side maps from the file are resident only once they have been read.
        sum(float(parameter.detach().sum()) for parameter in held["model"].parameters())
        held["idle"] = harness.resident_bytes()
        return {}

    def batch(rows: int, target: int) -> dict:
        random = torch.Generator().manual_seed(rows + target)
        draw = lambda length: torch.randint(3, SHAPE["vocab_size"], (rows, length), generator=random)  # noqa: E731
        mask = torch.ones(rows, SOURCE, dtype=torch.long)
        mask[0, SOURCE // 2 :] = 0
        return {"input_ids": draw(SOURCE), "attention_mask": mask, "labels": draw(target)}

    def lay_out(packed: bool) -> None:
        # Once for all rounds, as a user does: to lay out again lets the packed copies go, and they are made anew.
        if package == "modelwright" and held.get("packed") is not packed:
            held["packed"] = packed
            decode_layout = importlib.import_module("modelwright.nn.decode_layout")
            decode_layout.lay_out_for_decoding(held["model"], enable=packed, packed=packed)

    def generate(rows: int, beams: int) -> torch.Tensor:
        inputs = batch(rows, 1)
        del inputs["labels"]
        length = {"max_new_tokens": NEW, "min_new_tokens": NEW}
        with torch.no_grad():
            return held["model"].generate(**inputs, **length, do_sample=False, num_beams=beams)

    def outputs(kind: str, target: int = 0, rows: int = BATCH, beams: int = 1) -> dict:
        """What the sides must agree on."""
        lay_out(packed=kind == "generate")
        if kind == "generate":
            return {"ids": generate(rows, beams).tolist()}
        model, scale = held["model"], {}
        loss = model(**batch(BATCH, target)).loss
        if kind == "train":
            loss.backward()
            named = dict(model.named_parameters())
            scale = {name: float(named[name].grad.norm()) for name in sorted(named) if named[name].grad is not None}
            model.zero_grad(set_to_none=True)
        return {"loss": float(loss), "gradients": scale}

    def run(kind: str, target: int = 0, half: bool = False, rows: int = BATCH, beams: int = 1) -> dict:
        lay_out(packed=kind == "generate")
        before = time.process_time()
        figures = timed(kind, target, half, rows, beams)
        return {**figures, "cpu_seconds": time.process_time() - before}

    def timed(kind: str, target: int, half: bool, rows: int, beams: int) -> dict:
        model = held["model"]
        if kind == "generate":
            return harness.measure(lambda: generate(rows, beams), held["idle"])
        inputs = batch(BATCH, target)
        if kind == "forward":
            del inputs["labels"]
            inputs["decoder_input_ids"] = batch(BATCH, target)["labels"]
            with torch.no_grad():
                return harness.measure(lambda: model(**inputs), held["idle"])
        model.train()
        # In half precision we are compared with what transformers does in single.
        autocast = half and package == "modelwright"
        context = torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()

        def step() -> None:
            with context:
                loss = model(**inputs).loss
            loss.backward()

        try:
            return harness.measure(step, held["idle"])
        finally:
            model.eval().zero_grad(set_to_none=True)

    def floor(kind: str, target: int = 0, half: bool = False, rows: int = BATCH, beams: int = 1) -> dict:
        """Seconds of the matrix products alone."""
        dtype, decodes = "bfloat16" if half else "float32", kind == "generate"
        products = _decoding_products(rows * beams) if decodes else _products(target)
        total = sum(count * harness.product_seconds(*shape, dtype, packed=decodes) for shape, count in products)
        return {"seconds": total * (3 if kind == "train" else NEW if kind == "generate" else 1)}

    harness.serve({"load": load, "outputs": outputs, "run": run, "floor": floor})


def _products(target: int) -> list[tuple[tuple[int, int, int], float]]:
    """The products of one forward: their shapes (m, k, n) and how many there are of each."""
    E, F, V, L, H = 512, 2048, SHAPE["vocab_size"], 4, 8
    source, rows = BATCH * SOURCE, BATCH * target
    asked = L * 3 - 1  # Streams and layers that ask: the last layer's main one does not.
    return [
        ((source, E, E), 4 * L + 2 * L),
        ((source, E, F), L),
        ((source, F, E), L),
        ((rows, E, E), 2 * L * 3 + 4 * asked),
        ((rows, E, 32 * H), asked),
        ((rows, E, F), asked),
        ((rows, F, E), asked),
        ((rows, E, V), 2),
        ((SOURCE, E // H, SOURCE), 2 * BATCH * H * L),
        ((target, E // H, SOURCE), 2 * BATCH * H * asked),
        # A token sees half of the others.
        ((target, E // H, target), BATCH * H * asked),
    ]


def _decoding_products(rows: int) -> list[tuple[tuple[int, int, int], float]]:
    """The products of one step of decoding, of the main stream and the first that predicts."""
    E, F, V, L, H = 512, 2048, SHAPE["vocab_size"], 4, 8
    return [
        ((2 * rows, E, E), 2 * L + 4 * L),
        ((2 * rows, E, 32 * H), L),
        ((2 * rows, E, F), L),
        ((2 * rows, F, E), L),
        ((rows, E, V), 1),
    ]


def compare(workers: dict, task: str, request: dict) -> None:
    """Stop if a side does not compute the same as we do."""
    answers = {name: worker.call("outputs", **request) for name, worker in workers.items()}
    mine = answers.pop("ours")
    for name, theirs in answers.items():
        if "ids" in mine:
            same, what = mine["ids"] == theirs["ids"], "the same ids"
        else:
            gaps = [abs(mine["loss"] - theirs["loss"]) / theirs["loss"]]
            gaps += [abs(mine["gradients"][key] - value) / (value + 1e-3) for key, value in theirs["gradients"].items()]
            same, what = max(gaps) < 1e-3, f"loss and gradients differ by at most {max(gaps):.0e}"
        print(f"{task}, {name}: {what if same else 'NOT THE SAME: ' + what}", flush=True)
        if not same:
            raise SystemExit("the sides do not agree; nothing was timed")


def save_checkpoint(folder: str) -> None:
    """Write the checkpoint that all sides load, with weights that make it attend and write more than one token."""
    import torch

    from modelwright import ProphetNetConfig, ProphetNetForConditionalGeneration

    torch.manual_seed(0)
    model = ProphetNetForConditionalGeneration(ProphetNetConfig(**SHAPE))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "query_proj.weight" in name or "relative" in name:
                parameter.mul_(4)
    model.save_pretrained(folder)


def main() -> None:
    """Print the table and write the JSON."""
    options = harness.parser(__doc__.splitlines()[0], rounds=5)
    options.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS), help="what to time")
    arguments = options.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.threads)
        return
    script, result = Path(__file__).resolve(), {}
    rows = [
        [
            "task",
            "ours s",
            "better of transformers s",
            "ratio",
            "bar",
            "floor s",
            "ours CPU s",
            "theirs CPU s",
            "ratio",
            "ours MB",
            "theirs MB",
            "ratio",
            "bar",
        ]
    ]
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(folder)
        workers = {
            name: harness.Worker(python, script, package, "--threads", str(arguments.threads))
            for name, (package, python) in SIDES.items()
        }
        for worker in workers.values():
            worker.call("load", folder=folder)
        for task in arguments.tasks:
            request = {key: value for key, value in TASKS[task].items() if "bar" not in key}
            if not request.get("half"):
                compare(workers, task, request)
            taken = harness.interleave(workers, arguments.rounds, name="run", **request)
            floor = workers["ours"].call("floor", **request)["seconds"]
            result[task] = {**taken, "floor_seconds": floor}
            rows.append(_row(task, harness.summarise(taken), floor))
            print(rows[-1], flush=True)
        for worker in workers.values():
            worker.close()
    print(harness.machine() + "\n")
    print(harness.table(rows))
    harness.write_result("prophetnet", result)


def _row(task: str, figures: dict, floor: float) -> list[str]:
    """One row of the table."""
    mine = figures.pop("ours")
    keys = ("seconds", "cpu_seconds", "peak_bytes")
    seconds, cpu, peak = (min(each[key] for each in figures.values()) for key in keys)
    memory_bar = TASKS[task].get("memory_bar")
    return [
        task,
        f"{mine['seconds']:.2f}",
        f"{seconds:.2f}",
        f"{mine['seconds'] / seconds:.2f}",
        f"{TASKS[task]['bar']:.2f}",
        f"{floor:.2f}",
        f"{mine['cpu_seconds']:.2f}",
        f"{cpu:.2f}",
        f"{mine['cpu_seconds'] / cpu:.2f}",
        f"{mine['peak_bytes'] / 1e6:.0f}",
        f"{peak / 1e6:.0f}",
        f"{mine['peak_bytes'] / peak:.2f}",
        "" if memory_bar is None else f"{memory_bar:.2f}",
    ]


if __name__ == "__main__":
    main()
