"""What `modelwright quantize` does: calibrate, export, measure."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.cli.texts import TextRunner, load_model, longest, read_texts
from modelwright.core.errors import check_choice
from modelwright.hub.names import ONNX_NAME

if TYPE_CHECKING:
    from modelwright.quantization.ptq import Progress

RECIPES = ("auto", "linear", "linear+matmul", "full")
# Of the texts, every so manieth is held out of calibration and judges it.
_HELD_OUT = 4
_LEAST_TEXTS = 8
# Texts on which the layers are measured one at a time, which takes as many forward passes as there are layers.
_FEW = 16


@dataclass(frozen=True)
class QuantizeRequest:
    """What to quantize, on which texts, how, and where to; `accuracy_bar` is a mean cosine."""

    checkpoint: str
    calib: Path
    out: Path
    recipe: str = "auto"
    target: str = "onnxruntime-cpu"
    accuracy_bar: float | None = None
    quantize_embeddings: bool = False
    max_length: int = 128
    threads: int | None = None
    repeats: int = 10


def run_quantize(request: QuantizeRequest, progress: "Progress") -> dict[str, Any]:
    """Quantize a checkpoint, write it and its ONNX file, measure both, and return the report.

    Raises InputError for texts that cannot be used, and what loading, calibrating and exporting raise.
    """
    from modelwright.export.audit import audit_fusion
    from modelwright.export.check import compare_layers
    from modelwright.export.onnx import export_onnx
    from modelwright.export.runtime import OnnxModel
    from modelwright.models.auto.tokenization_auto import AutoTokenizer
    from modelwright.quantization.ptq import Bar, Fidelity

    check_choice("--recipe", request.recipe, RECIPES)
    texts = read_texts("--calib", request.calib, _LEAST_TEXTS)
    progress("loading", 0, 1)
    model, tokenizer = load_model(request.checkpoint), AutoTokenizer.from_pretrained(request.checkpoint)
    length = longest(model.config, request.max_length)
    held_out = TextRunner(tokenizer, texts[::_HELD_OUT], length)
    seen = TextRunner(tokenizer, [text for i, text in enumerate(texts) if i % _HELD_OUT], length)
    float_model = copy.deepcopy(model)
    reference = held_out(float_model)
    bar = Bar() if request.accuracy_bar is None else Bar(request.accuracy_bar)
    few = TextRunner(tokenizer, texts[: _HELD_OUT * _FEW : _HELD_OUT], length)
    runs = [lambda runner=runner: runner(model) for runner in (seen, held_out, few)]
    chosen = _quantize(model, request, runs, bar, progress)

    progress("exporting", 0, 1)
    request.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(request.out)
    tokenizer.save_pretrained(request.out)
    path = export_onnx(
        model, request.out / ONNX_NAME, target=request.target, quantize_embeddings=request.quantize_embeddings
    )
    progress("measuring", 0, 1)
    exported = OnnxModel(path, model.config, threads=request.threads)
    fidelity = Fidelity.of(held_out(exported), reference)
    report: dict[str, Any] = {
        "checkpoint": request.checkpoint,
        "folder": str(request.out),
        "recipe": request.recipe,
        "target": request.target,
        "texts": {"calibration": len(texts) - len(held_out.order), "held_out": len(held_out.order)},
        "accuracy": {
            "in_pytorch": asdict(Fidelity.of(held_out(model), reference)),
            "in_onnx_runtime": asdict(fidelity),
            "bar": {"mean": bar.mean, "minimum": bar.minimum},
            "holds": bar.shortfall(fidelity) <= 1,
        },
        **chosen,
        "bytes": {"float": _float_bytes(float_model), "int8": path.stat().st_size},
        "milliseconds": _latencies(float_model, exported, length, request),
        "layer_differences": compare_layers(model, path, _arrays(held_out.batches[0], exported)),
    }
    if request.target == "onnxruntime-cpu":
        audit = audit_fusion(path)
        report["fusion"] = {
            "quantized": audit.expected,
            "integer": len(audit.integer),
            "stayed_float": audit.stayed_float,
        }
    return report


def _quantize(
    model: Any, request: QuantizeRequest, runs: Sequence[Callable[[], Any]], bar: Any, progress: "Progress"
) -> dict[str, Any]:
    """Quantize `model` in place; return the part of the report that says what was chosen.

    runs: on the texts for the ranges, on those that judge, on those on which each layer is measured.
    """
    from modelwright.quantization.descriptor import QuantDescriptor
    from modelwright.quantization.ptq import auto_quantize, calibrate, sensitivity
    from modelwright.quantization.recipe import Recipe
    from modelwright.quantization.swapping import swap

    run, run_held_out, run_few = runs
    if request.recipe == "auto":
        result = auto_quantize(model, run, run_held_out, run_few=run_few, bar=bar, progress=progress)
        return {
            "alpha": result.alpha,
            "tried_alphas": {str(alpha): asdict(fidelity) for alpha, fidelity in result.tried.items()},
            "float_layers": {name: asdict(fidelity) for name, fidelity in result.float_layers.items()},
            "float_share": result.float_share,
            "sensitivity": result.sensitivity,
        }
    # QDQBERT's own places have its own symmetric ranges, and so has all that TensorRT is to run.
    symmetric = request.recipe == "full" or request.target == "tensorrt"
    swap(model, Recipe(request.recipe, input=QuantDescriptor(asymmetric=not symmetric)))
    progress("calibrating", 0, 1)
    calibrate(model, run)
    costs = sensitivity(model, run_few, progress=progress)
    return {"alpha": None, "float_layers": {}, "float_share": 0.0, "sensitivity": costs}


def _float_bytes(model: Any) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _arrays(batch: dict[str, Any], exported: Any) -> dict[str, Any]:
    return {name: batch[name].numpy() for name in exported.input_names}


def _latencies(model: Any, exported: Any, length: int, request: QuantizeRequest) -> dict[str, float]:
    """Return the fastest of some calls of each side with one text of `length` tokens, taken in turn."""
    import torch

    threads = torch.get_num_threads()
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    ids = torch.arange(length)[None] % min(1000, model.config.vocab_size)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    taken: dict[str, list[float]] = {"float": [], "int8": []}
    try:
        with torch.inference_mode():
            for _ in range(request.repeats + 1):
                for name, run in (("float", model), ("int8", exported)):
                    start = time.perf_counter()
                    run(**batch)
                    taken[name].append((time.perf_counter() - start) * 1e3)
    finally:
        torch.set_num_threads(threads)
    return {name: min(values[1:]) for name, values in taken.items()}
