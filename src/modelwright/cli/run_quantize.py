"""What `modelwright quantize` does: calibrate, train if asked to, export, measure."""

import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.cli.quantize_judge import Judge
from modelwright.cli.quantize_task import Subject, load_subject, read_items
from modelwright.cli.quantize_training import (
    Training,
    check_folder_for,
    figures_before,
    train_quantized,
    tuning_task,
)
from modelwright.core.errors import InputError, check_choice
from modelwright.hub.names import ONNX_NAME

if TYPE_CHECKING:
    from torch import Tensor

    from modelwright.quantization.ptq import Progress

RECIPES = ("auto", "linear", "linear+matmul", "full")
PREDICTIONS_NAME = "predictions.json"


@dataclass(frozen=True)
class QuantizeRequest:
    """What to quantize, on which examples, how, and where to.

    accuracy_bar: a mean cosine; with labels, the share of the float model's accuracy or F1 that is to be kept.
    """

    checkpoint: str
    calib: Path
    out: Path
    recipe: str = "auto"
    target: str = "onnxruntime-cpu"
    accuracy_bar: float | None = None
    quantize_embeddings: bool = False
    max_length: int | None = None
    threads: int | None = None
    repeats: int = 10
    task: str | None = None
    stride: int | None = None

    training: Training | None = None

    @property
    def falls_back(self) -> bool:
        """Whether layers become float until a bar holds."""
        return self.recipe == "auto" or self.accuracy_bar is not None


def run_quantize(request: QuantizeRequest, progress: "Progress") -> dict[str, Any]:
    """Quantize a checkpoint, write it and its ONNX file, measure both, and return the report.

    Raises InputError for examples that cannot be used, and what loading, calibrating, training and exporting raise.
    """
    check_choice("--recipe", request.recipe, RECIPES)
    if request.accuracy_bar is not None and not 0 < request.accuracy_bar < 1:
        raise InputError(f"--accuracy-bar: expected a number between 0 and 1, got {request.accuracy_bar}")
    training = request.training
    if training is not None:
        check_folder_for(training, request.out)
    progress("loading", 0, 1)
    subject = load_subject(request.checkpoint, request.task, request.calib, request.max_length, request.stride)
    judge = Judge(subject, request.accuracy_bar)
    if training is None:
        chosen = _quantize(subject, request, judge, progress)
    else:
        items = read_items("--train", training.train, request.checkpoint, request.task)
        task = tuning_task(subject, training, items, judge.float_model, judge.deciding)
        chosen = _quantize(subject, request, judge, progress)
        before = figures_before(subject, judge, request.target)
        chosen["training"] = train_quantized(subject, training, task, request.out, progress)
        judge.float_model.cpu()
        chosen |= _fall_back(subject, request, judge, progress)
    report = _finish(subject, request, judge, chosen, progress)
    if training is not None:
        report["accuracy"]["before_training"] = before
    return report


def _quantize(subject: Subject, request: QuantizeRequest, judge: Judge, progress: "Progress") -> dict[str, Any]:
    """Quantize the model in place; return the part of the report that says what was chosen.

    What is to be trained stays quantized: layers become float after it, if the bar does not hold then.
    """
    from modelwright.quantization.descriptor import QuantDescriptor
    from modelwright.quantization.ptq import MOST_FLOAT, auto_quantize, calibrate
    from modelwright.quantization.recipe import Recipe
    from modelwright.quantization.swapping import swap

    model = subject.model
    # QDQBERT's own places have its own symmetric ranges, and so has all that TensorRT is to run.
    symmetric = request.recipe == "full" or request.target == "tensorrt"
    if request.recipe == "auto":
        result = auto_quantize(
            model,
            partial(subject.seen, model),
            partial(judge.deciding, model),
            run_few=partial(judge.few, model),
            bar=judge.deciding_bar,
            most_float=0.0 if request.training else MOST_FLOAT,
            symmetric=symmetric,
            progress=progress,
        )
        tried = {str(alpha): _plain(fidelity) for alpha, fidelity in result.tried.items()}
        return {"alpha": result.alpha, "tried_alphas": tried, **_float_part(result, result.sensitivity)}
    swap(model, Recipe(request.recipe, input=QuantDescriptor(asymmetric=not symmetric)))
    progress("calibrating", 0, 1)
    calibrate(model, partial(subject.seen, model))
    chosen: dict[str, Any] = {"alpha": None}
    return chosen if request.training else chosen | _fall_back(subject, request, judge, progress)


def _fall_back(subject: Subject, request: QuantizeRequest, judge: Judge, progress: "Progress") -> dict[str, Any]:
    """Measure what each layer costs and, if the request says so, make layers float until the bar holds."""
    from modelwright.quantization.ptq import leave_float, sensitivity

    model = subject.model
    costs = sensitivity(model, partial(judge.few, model), progress=progress)
    if not request.falls_back:
        return {"float_layers": {}, "float_share": 0.0, "sensitivity": costs}
    reference = judge.deciding(judge.float_model)
    run = partial(judge.deciding, model)
    left = leave_float(model, costs, run, reference, bar=judge.deciding_bar, progress=progress)
    return _float_part(left, costs)


def _float_part(left: Any, costs: dict[str, float]) -> dict[str, Any]:
    return {
        "float_layers": {name: _plain(fidelity) for name, fidelity in left.float_layers.items()},
        "float_share": left.float_share,
        "sensitivity": costs,
    }


def _plain(fidelity: Any) -> dict[str, float]:
    return {name: value for name, value in asdict(fidelity).items() if value is not None}


def _finish(
    subject: Subject, request: QuantizeRequest, judge: Judge, chosen: dict[str, Any], progress: "Progress"
) -> dict[str, Any]:
    """Write the model and its ONNX file, measure them, and return the report."""
    from modelwright.export.audit import audit_fusion
    from modelwright.export.check import compare_layers
    from modelwright.export.onnx import export_onnx
    from modelwright.export.runtime import OnnxModel

    model, held_out = subject.model, subject.held_out
    progress("exporting", 0, 1)
    request.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(request.out)
    subject.tokenizer.save_pretrained(request.out)
    path = export_onnx(
        model, request.out / ONNX_NAME, target=request.target, quantize_embeddings=request.quantize_embeddings
    )
    progress("measuring", 0, 1)
    exported = OnnxModel(path, model.config, threads=request.threads)
    figures, holds = judge.figures(exported)
    report: dict[str, Any] = {
        "checkpoint": request.checkpoint,
        "folder": str(request.out),
        "task": request.task,
        "recipe": request.recipe,
        "target": request.target,
        "texts": {
            "what": subject.kind.item_name,
            "calibration": len(subject.seen),
            "held_out": len(held_out),
            "deciding": len(judge.deciding),
        },
        "accuracy": {
            "float": judge.figures(judge.float_model)[0],
            "in_pytorch": judge.figures(model)[0],
            "in_onnx_runtime": figures,
            "bar": judge.bar_figures(),
            "holds": holds,
        },
        **chosen,
        "bytes": {"float": _float_bytes(judge.float_model), "int8": path.stat().st_size},
        "tokens_of_latency": subject.kind.max_length,
        "milliseconds": _latencies(judge.float_model, exported, subject.kind.max_length, request),
        "layer_differences": compare_layers(model, path, _arrays(held_out.batches[0], exported)),
    }
    if request.target == "onnxruntime-cpu":
        audit = audit_fusion(path)
        report["fusion"] = {
            "quantized": audit.expected,
            "integer": len(audit.integer),
            "stayed_float": audit.stayed_float,
        }
    if request.task == "qa":
        _write_predictions(subject, held_out(exported), request.out / PREDICTIONS_NAME)
    return report


def _write_predictions(subject: Subject, outputs: "Tensor", path: Path) -> None:
    """Write the answers of the INT8 model to the held-out questions as the official scripts read them."""
    from modelwright.training.answers import QuestionKind

    assert isinstance(subject.kind, QuestionKind)
    answers = subject.kind.predictions(subject.held_out.items, subject.held_out.encoded, outputs)
    path.write_text(json.dumps(answers, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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
