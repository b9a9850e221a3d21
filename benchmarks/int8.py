"""INT8 BERT-base (random weights, length 128) in ONNX Runtime and in PyTorch against the other routes on this CPU.

Sides, timed in turn: PyTorch float, ours and that of transformers 4.57.1 (whose products are not oneDNN's); ONNX
Runtime float; ours exported ("linear", asymmetric); the same calibrated model by `to_int8()`; a float model by
`to_int8()`, token by token; QDQBERT's own places exported ("full"), and that model with signed activations, as NVIDIA's
toolkit exports it; PyTorch's quantize_dynamic; ONNX Runtime's quantize_dynamic.
Also file sizes, and entropy calibration of MiniLM against pytorch-quantization 2.1.3.

Writing the files takes minutes: `--folder DIR --prepare` writes them once, `--folder DIR` then times, and
`--thread-counts`, `--batches` and `--sides` take parts. Results of parts are added to those that are there.
"""

import argparse
import copy
import json
import os
import tempfile
import time
import warnings
from pathlib import Path

import harness

SHAPE = {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
LENGTH = 128
TORCH = ("torch float", "transformers float", "ours, to_int8", "ours, to_int8 by token", "torch quantize_dynamic")
ONNX = {
    "ORT float": "float.onnx",
    "ours, exported": "ours.onnx",
    "ours, full": "full.onnx",
    "NVIDIA's s8": "nvidia.onnx",
    "ORT quantize_dynamic": "dynamic.onnx",
}
SIDES = (
    "torch float",
    "transformers float",
    "ORT float",
    "ours, exported",
    "ours, to_int8",
    "ours, to_int8 by token",
    *list(ONNX)[2:],
    TORCH[-1],
)
# Texts from which histograms are made.
TEXTS = 32
# Seconds before a call. The threads of the side before it go on spinning for a while, on a core that this one needs.
PAUSE = 0.15


def feed(batch: int):
    import numpy as np

    ids = np.random.default_rng(batch).integers(5, 30000, (batch, LENGTH))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def prepare(folder: Path, layers: int) -> None:
    """Write all files."""
    import torch

    from modelwright.export.audit import audit_fusion
    from modelwright.export.check import compare_layers
    from modelwright.export.onnx import export_onnx
    from modelwright.models.bert.configuration_bert import BertConfig
    from modelwright.models.bert.modeling_bert import BertModel
    from modelwright.quantization import QuantDescriptor, Recipe, swap
    from modelwright.quantization.ptq import calibrate

    torch.manual_seed(0)
    model = BertModel(BertConfig(**{**SHAPE, "num_hidden_layers": layers})).eval()
    model.save_pretrained(folder / "checkpoint")
    export_onnx(model, folder / "float.onnx")
    inputs = {name: torch.from_numpy(value) for name, value in feed(4).items()}
    for recipe, files in (
        (
            Recipe("linear", input=QuantDescriptor(asymmetric=True)),
            {"ours.onnx": "onnxruntime-cpu", "ours-embeddings.onnx": "onnxruntime-cpu"},
        ),
        (Recipe("full"), {"full.onnx": "onnxruntime-cpu", "nvidia.onnx": "tensorrt"}),
    ):
        quantized = copy.deepcopy(model)
        swap(quantized, recipe)
        calibrate(quantized, lambda quantized=quantized: quantized(**inputs))
        quantized.save_pretrained(folder / recipe.placement)
        for file, target in files.items():
            path = export_onnx(quantized, folder / file, target=target, quantize_embeddings="embeddings" in file)
            if target == "onnxruntime-cpu":
                audit_fusion(path).check()
                print(f"{file}: layers differ from PyTorch's by at most {worst(compare_layers, quantized, path):.1e}")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(folder / "float.onnx", folder / "dynamic.onnx", per_channel=True, weight_type=QuantType.QInt8)


def worst(compare, model, path) -> float:
    return max(compare(model, path, feed(1)).values())


def work(side: str, folder: Path, threads: int) -> None:
    """Be one side."""
    if side in TORCH:
        import torch

        from modelwright.models.bert.modeling_bert import BertModel

        torch.set_num_threads(threads)
        kind = BertModel
        if side == "transformers float":
            import transformers

            kind = transformers.BertModel
        model = kind.from_pretrained(folder / ("linear" if side == "ours, to_int8" else "checkpoint")).eval()
        if side.startswith("ours"):
            model.to_int8()
        elif side == "torch quantize_dynamic":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)

        def run(batch: int):
            with torch.inference_mode():
                return model(**{name: torch.from_numpy(value) for name, value in feed(batch).items()})[0].numpy()

    else:
        from modelwright.export.session import make_session

        session = make_session(folder / ONNX[side], threads)

        def run(batch: int):
            return session.run(["last_hidden_state"], feed(batch))[0]

    def timed(batch: int) -> dict:
        time.sleep(PAUSE)
        run(batch)  # not timed: its threads sleep, and the caches are full of another side's weights
        start = time.perf_counter()
        run(batch)
        return {"seconds": time.perf_counter() - start}

    harness.serve({"timed": timed, "output": lambda: run(1)[0, :8].tolist()})


def compare(workers: dict) -> None:
    """Stop if a side's output is far from PyTorch's float one: random weights, so rounding alone moves it."""
    import numpy as np

    outputs = {name: np.array(worker.call("output")).ravel() for name, worker in workers.items()}
    expected = outputs["torch float"]
    for name, found in outputs.items():
        cosine = float(found @ expected / np.linalg.norm(found) / np.linalg.norm(expected))
        print(f"{name}: cosine {cosine:.4f} to float")
        if cosine < 0.9:
            raise SystemExit(f"{name} does not compute the same; nothing was timed")


def entropy(every: int) -> dict[str, float]:
    """Processor seconds of the entropy search of MiniLM's activation quantizers ("full"), ours and the oracle's.

    every: the oracle does each so manieth, and so many times their time counts for all. Its ranges are compared.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorch_quantization.calib import HistogramCalibrator as Theirs

    from modelwright.cli.texts import load_model
    from modelwright.models.auto.tokenization_auto import AutoTokenizer
    from modelwright.quantization import QuantDescriptor, Recipe, calibrating, quantizers_of, swap
    from modelwright.training.examples import Examples, TextKind

    model = load_model(str(harness.minilm()))
    swap(model, Recipe("full", input=QuantDescriptor(calib_method="histogram")))
    with calibrating(model), torch.no_grad():
        kind = TextKind(AutoTokenizer.from_pretrained(harness.minilm()), LENGTH)
        Examples(kind, harness.sentences("calibration")[:TEXTS])(model)
    calibrators = [each.calibrator for each in quantizers_of(model, "_input_quantizer").values()]
    start = time.process_time()
    ranges = [float(each.compute_amax("entropy")) for each in calibrators]
    ours, theirs = time.process_time() - start, 0.0
    for calibrator, found in list(zip(calibrators, ranges, strict=True))[::every]:
        other = Theirs(8, None, False)
        other._calib_hist = calibrator._calib_hist.numpy().astype("int64")
        other._calib_bin_edges = calibrator._calib_bin_edges.numpy()
        start = time.process_time()
        expected = float(other.compute_amax("entropy"))
        theirs += time.process_time() - start
        assert found == expected, (found, expected)
    compared = len(calibrators[::every])
    return {
        "quantizers": len(calibrators),
        "compared": compared,
        "ours": ours,
        "pytorch-quantization": theirs / compared * len(calibrators),
    }


def main() -> None:
    """Print the tables and write the JSON."""
    parser = harness.parser(__doc__.splitlines()[0], rounds=7)
    parser.add_argument("--folder", type=Path, help="where the files are kept (default: a temporary folder)")
    parser.add_argument("--prepare", action="store_true", help="write the files into the folder, and time nothing")
    parser.add_argument("--layers", type=int, default=12, help="layers of the model (default %(default)s)")
    parser.add_argument("--thread-counts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES, metavar="SIDE", help=", ".join(SIDES))
    parser.add_argument("--entropy", action="store_true", help="time the entropy search, and nothing else")
    parser.add_argument("--oracle-every", type=int, default=1, help="its entropy search of each so manieth quantizer")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.folder, arguments.threads)
    elif arguments.entropy:
        seconds = entropy(arguments.oracle_every)
        print("entropy search of all quantizers, processor seconds:", json.dumps(seconds))
        add_result({"entropy seconds": seconds})
    elif arguments.prepare:
        if arguments.folder is None:
            parser.error("--prepare needs --folder")
        arguments.folder.mkdir(parents=True, exist_ok=True)
        prepare(arguments.folder, arguments.layers)
    elif arguments.folder is not None:
        time_sides(arguments.folder, arguments)
    else:
        with tempfile.TemporaryDirectory() as name:
            prepare(Path(name), arguments.layers)
            time_sides(Path(name), arguments)


def time_sides(folder: Path, arguments: argparse.Namespace) -> None:
    """Time the sides in turn, and print and write what was found."""
    size = {path.stem: path.stat().st_size for path in folder.glob("*.onnx")}
    ratios = {stem: size[stem] / size["float"] for stem in ("ours", "ours-embeddings")}
    rows = [["fastest call, ms (times torch float)", *arguments.sides]]
    found: dict[str, dict[str, float]] = {}
    for threads in arguments.thread_counts:
        workers = {side: start(side, folder, threads) for side in arguments.sides}
        if "torch float" in workers:
            compare(workers)
        for batch in arguments.batches:
            taken = harness.interleave(workers, arguments.rounds, name="timed", batch=batch)
            fastest = {side: min(each["seconds"] for each in all_) * 1e3 for side, all_ in taken.items()}
            key = f"batch {batch}, {threads} thread{'s' * (threads > 1)}"
            found[key] = fastest
            base = fastest.get("torch float", next(iter(fastest.values())))
            rows.append([key, *(f"{each:.1f} ({base / each:.2f})" for each in fastest.values())])
        for worker in workers.values():
            worker.close()
    print(harness.machine())
    print(harness.table(rows))
    print("file size over float:", json.dumps(ratios))
    add_result({"milliseconds": found, "file ratio": ratios})


def start(side: str, folder: Path, threads: int) -> harness.Worker:
    """Return the process of one side."""
    return harness.Worker(
        harness.OURS,
        Path(__file__).resolve(),
        side,
        *("--folder", str(folder), "--threads", str(threads)),
        environment={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )


def add_result(part: dict) -> None:
    """Write the figures to the results, beside those of other parts that are there."""
    path = harness.RESULTS / "int8.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    before.pop("machine", None)
    for key, value in part.items():
        before[key] = {**before.get(key, {}), **value}
    print(harness.write_result("int8", before))


if __name__ == "__main__":
    main()
