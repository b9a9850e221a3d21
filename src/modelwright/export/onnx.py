"""From a model, float or quantized, to an ONNX file."""

import inspect
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError, check_choice
from modelwright.core.optional import require
from modelwright.export.attention import exportable_attention
from modelwright.export.graph import fuse_products, simplify
from modelwright.export.graph import quantize_embeddings as quantize_embedding_tables
from modelwright.export.unpadded import choose_attention
from modelwright.outputs.base import ModelOutput
from modelwright.quantization.onnx_nodes import OPSET, TARGETS, export_target, problem_of
from modelwright.quantization.switches import quantizers_of

# What a model is called with if nothing is said, as far as it takes it.
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_EXAMPLE_TOKENS = 8
# The key in the file's metadata under which the class of the outputs is noted.
OUTPUT_CLASS = "modelwright.output_class"


class _Outputs(nn.Module):
    """The model as a function from the tensors of the keywords `inputs` to those of the fields `outputs`."""

    def __init__(self, model: nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        output = self.model(**dict(zip(self.inputs, values, strict=True)), return_dict=True)
        return tuple(output[name] for name in self.outputs)


def export_onnx(
    model: Any,
    path: str | os.PathLike[str],
    *,
    target: str = "onnxruntime-cpu",
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    quantize_embeddings: bool = False,
) -> Path:
    """Write `model` as an ONNX file (opset 21) whose batch size and lengths vary, and return the path.

    target: "onnxruntime-cpu" (activations as uint8; quantized linear layers are operations of ONNX Runtime's own) or
    "tensorrt" (int8 with zero point 0; standard operations alone). Weights are stored as int8 for both. A quantizer
    that is disabled leaves its tensor float. inputs: keywords of `forward`; by default those of input_ids,
    attention_mask and token_type_ids that the model has. outputs: fields of what it returns; by default all tensors.
    quantize_embeddings: store the embedding tables as int8 too, with a scale for each row.

    The output class is noted in the file, for `OnnxModel`. Training mode, attention implementation and switches of the
    model are as before afterwards. Raises InputError for quantizers without a range (all of them are named), before
    anything is exported, for unknown inputs and outputs, and for a model that ONNX cannot express; MissingPackageError
    without the extra `onnx`.
    """
    for package in ("onnx", "onnxscript"):
        require(package, extra="onnx", why="export_onnx")
    check_choice("export: target", target, TARGETS)
    refusal = getattr(model, "_onnx_refusal", None)
    if refusal is not None:
        raise InputError(f"export: {type(model).__name__} cannot become an ONNX file: {refusal}")
    check_quantizers(model, target)
    example = _example(model, inputs)
    with _as_for_inference(model), export_target(target), torch.no_grad():
        output = model(**example, return_dict=True)
        names = _output_names(output, outputs)
        program = _traced(_Outputs(model, list(example), names).eval(), model, example, names)
    graph_model = program.model
    simplify(graph_model)
    if target == "onnxruntime-cpu":
        fuse_products(graph_model)
        choose_attention(graph_model)
    if quantize_embeddings:
        quantize_embedding_tables(graph_model)
    graph_model.metadata_props[OUTPUT_CLASS] = f"{type(output).__module__}:{type(output).__qualname__}"
    graph_model.metadata_props["modelwright.target"] = target
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(path)
    return path


def check_quantizers(model: nn.Module, target: str) -> None:
    """Raise InputError that names the enabled quantizers of a model that cannot be exported, if there are any."""
    problems: dict[str, list[str]] = {}
    for name, quantizer in quantizers_of(model).items():
        if not quantizer.is_enabled:
            continue
        problem = problem_of(quantizer)
        if problem is None and target == "tensorrt" and quantizer.asymmetric:
            problem = "with a zero point or a range for each token, which TensorRT has not; use symmetric ones"
        several = quantizer.amax is not None and quantizer.amax.numel() > 1
        if problem is None and several and not name.endswith("weight_quantizer"):
            problem = (
                "with a range for each channel of an activation, with which no product of integers can be computed; "
                "make them of a descriptor with axis=None, or disable() them"
            )
        if problem is not None:
            problems.setdefault(problem, []).append(name)
    for problem, names in problems.items():
        raise InputError(f"export: {len(names)} quantizers {problem}: {', '.join(names)}")


def _example(model: Any, inputs: Sequence[str] | None) -> dict[str, Tensor]:
    """Return a small batch by keyword."""
    known = inspect.signature(model.forward).parameters
    if inputs is None:
        typed = getattr(model.config, "type_vocab_size", 0)
        inputs = [name for name in _INPUTS if name in known and (name != "token_type_ids" or typed)]
    for name in inputs:
        if name not in known:
            raise InputError(f"export: {type(model).__name__} has no input {name!r}; it has {', '.join(known)}")
    leading = next(iter(model.dummy_inputs.values())).shape[:-1]
    shape = (*leading, min(_EXAMPLE_TOKENS, _longest(model) or _EXAMPLE_TOKENS))
    example = {}
    for name in inputs:
        if name == "inputs_embeds":
            example[name] = torch.zeros(*shape, model.config.hidden_size, dtype=model.dtype)
        elif name == "attention_mask":
            example[name] = torch.ones(shape, dtype=torch.long)
        elif name == "position_ids":
            example[name] = torch.arange(shape[-1]).expand(shape).clone()
        else:
            example[name] = torch.zeros(shape, dtype=torch.long)
    return {name: value.to(model.device) for name, value in example.items()}


def _longest(model: Any) -> int | None:
    longest: int | None = getattr(model.config, "max_position_embeddings", None)
    return longest


def _output_names(output: ModelOutput, wanted: Sequence[str] | None) -> list[str]:
    there = [name for name, value in output.items() if isinstance(value, Tensor)]
    for name in wanted or ():
        if name not in there:
            raise InputError(f"export: the model returns no tensor {name!r}; it returns {', '.join(there)}")
    return list(wanted or there)


@contextmanager
def _as_for_inference(model: Any) -> Iterator[None]:
    """Let the model be as it is for inference, without a cache, in the block."""
    training = {module: module.training for module in model.modules()}
    use_cache = getattr(model.config, "use_cache", None)
    try:
        model.eval()
        model.config.use_cache = False
        with exportable_attention(model):
            yield
    finally:
        model.config.use_cache = use_cache
        for module, mode in training.items():
            module.training = mode


def _traced(function: nn.Module, model: Any, example: dict[str, Tensor], names: list[str]) -> Any:
    dims = [torch.export.Dim("batch"), torch.export.Dim("choices"), torch.export.Dim("sequence", max=_longest(model))]
    shapes = []
    for name, value in example.items():
        tokens = value.shape[:-1] if name == "inputs_embeds" else value.shape
        axes = [dims[0], *dims[1:2] * (len(tokens) - 2), dims[2]]
        shapes.append(dict(enumerate(axes)))
    with _quiet_exporter():
        return torch.onnx.export(
            function,
            tuple(example.values()),
            dynamic_shapes={"values": tuple(shapes)},
            input_names=list(example),
            output_names=names,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Leave out what PyTorch's exporter says about itself, such as that torchvision is not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r"# The axis name: ", category=UserWarning)
        try:
            yield
        finally:
            logger.setLevel(level)
