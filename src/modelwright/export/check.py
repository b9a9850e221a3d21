"""An exported model against PyTorch's, layer by layer.

Each layer of PyTorch's gets the input that the layer of the ONNX file got, so that differences do not grow from layer
to layer: a number between two integer codes may fall to either, and then a deep network goes another way.
"""

import os
from typing import Any

import torch
from torch import nn

from modelwright.core.optional import require
from modelwright.export.graph import FUSED_PRODUCT
from modelwright.export.session import SLOW_FUSIONS
from modelwright.quantization.recording import linear_layers

_PRODUCTS = ("MatMul", "MatMulInteger", FUSED_PRODUCT)
_QUANTIZING = ("QuantizeLinear", "Div")


@torch.no_grad()
def compare_layers(model: nn.Module, path: str | os.PathLike[str], inputs: dict[str, Any]) -> dict[str, float]:
    """Return by name of each quantized linear layer how far the ONNX file's output is from PyTorch's.

    That is the root mean square of the difference over that of PyTorch's output, for one batch of `inputs` (arrays by
    the file's input names), with the same input to both. Raises MissingPackageError without the extra `onnx`.
    """
    onnx: Any = require("onnx", extra="onnx", why="Comparing an ONNX model")
    runtime: Any = require("onnxruntime", extra="onnx", why="Comparing an ONNX model")
    file = onnx.load(os.fspath(path))
    layers = {
        name: layer
        for name, layer in linear_layers(model).items()
        if layer.input_quantizer.is_enabled and layer.weight_quantizer.is_enabled
    }
    ends = _ends(file.graph, layers)
    wanted = sorted({name for pair in ends.values() for name in pair} - {each.name for each in file.graph.output})
    file.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        file.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(SLOW_FUSIONS)
    )
    names = [each.name for each in session.get_outputs()]
    values = dict(zip(names, map(torch.from_numpy, session.run(None, inputs)), strict=True))
    differences = {}
    for name, (before, after) in ends.items():
        expected = layers[name](values[before])
        differences[name] = float((values[after] - expected).square().mean().sqrt() / expected.square().mean().sqrt())
    return differences


def _ends(graph: Any, layers: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the names of the tensors before and after each layer."""
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {each.name for each in graph.initializer}
    ends: dict[str, tuple[str, str]] = {}
    for node in graph.node:
        layer, _, operation = node.name.rpartition("/")
        if layer not in layers:
            continue
        if operation in _PRODUCTS:
            ends[layer] = (_before(node, made_by, constants), node.output[0])
        elif layer in ends:
            # What follows the product in the layer: scales and the bias.
            ends[layer] = (ends[layer][0], node.output[0])
    return ends


def _before(product: Any, made_by: dict[str, Any], constants: set[str]) -> str:
    """Return the name of the tensor that is quantized for a product, before it is smoothed."""
    name: str = product.input[0]
    while made_by[name].op_type not in _QUANTIZING:
        name = made_by[name].input[0]
    name = made_by[name].input[0]
    node = made_by[name]
    if node.op_type == "Mul" and (known := constants & set(node.input)):
        name = next(each for each in node.input if each not in known)
    return name
