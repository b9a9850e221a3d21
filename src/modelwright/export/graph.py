"""What is done to a graph after PyTorch's exporter: integers stored as integers, names, nothing computed twice."""

import ast
import collections
from typing import Any

import numpy as np

# A table of fewer numbers is not worth a node.
_LEAST_TABLE = 4096
# (x - zero of x) (W - zero of W) * scales + bias, of integers x and W.
FUSED_PRODUCT = "MatMulIntegerToFloat"


def simplify(model: Any) -> None:
    """Name nodes after their modules, quantize constant weights for good, and let tensors that are equal be one.

    `model` is an `onnx_ir.Model`.
    """
    from onnx_ir.passes import common

    _name_nodes(model)
    _quantize_constants(model)
    _drop_round_trips(model)
    for change in (common.DeduplicateInitializersPass(), common.CommonSubexpressionEliminationPass()):
        change(model)
    _drop_unused(model)


def _name_nodes(model: Any) -> None:
    """Name each node "module/operation", and drop what the exporter notes of it, such as paths of this machine."""
    count: collections.Counter[str] = collections.Counter()
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "['', '']"))
        name = f"{scopes[-2].removeprefix('model.')}/{node.op_type}"
        count[name] += 1
        node.name = name if count[name] == 1 else f"{name}_{count[name]}"
        node.metadata_props.clear()


def _quantize_constants(model: Any) -> None:
    """Replace QuantizeLinear of an initializer, turned or not, by an initializer of integers."""
    import onnx_ir as ir

    for node in list(model.graph):
        if node.op_type != "QuantizeLinear":
            continue
        values = _constant(node.inputs[0])
        scale, zero = _constant(node.inputs[1]), _constant(node.inputs[2])
        if values is None or scale is None or zero is None:
            continue
        if scale.ndim:
            axis = node.attributes["axis"].as_int()
            along = [-1 if i == axis else 1 for i in range(values.ndim)]
            scale, zero = scale.reshape(along), zero.reshape(along)
        limits = np.iinfo(zero.dtype)
        codes = np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(zero.dtype)
        integers = _initializer(model, f"{node.name.partition('/')[0]}.weight_{zero.dtype}", codes)
        ir.convenience.replace_all_uses_with(node.outputs[0], integers)
        model.graph.remove(node, safe=True)


def _drop_round_trips(model: Any) -> None:
    """Take a tensor as it was where two Reshapes, one after the other, give it its old shape."""
    import onnx_ir as ir

    for node in list(model.graph):
        first = node.inputs[0].producer() if node.op_type == "Reshape" and node.inputs[0] is not None else None
        if first is None or first.op_type != "Reshape":
            continue
        source, shape = first.inputs[0], node.outputs[0].shape
        if shape is not None and source.shape == shape and not any(dim == ir.SymbolicDim(None) for dim in shape):
            ir.convenience.replace_all_uses_with(node.outputs[0], source, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
    _drop_unused(model)


def quantize_embeddings(model: Any) -> None:
    """Store tables that rows are gathered from as int8, with a scale for each row."""
    import onnx_ir as ir

    for node in list(model.graph):
        if node.op_type != "Gather" or node.inputs[0] is None:
            continue
        values = _constant(node.inputs[0])
        if values is None or values.dtype != np.float32 or values.ndim != 2 or values.size < _LEAST_TABLE:
            continue
        scale = np.maximum(np.abs(values).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
        codes = np.rint(values / scale).astype(np.int8)
        table, ids = node.inputs
        rows = [
            ir.node("Gather", [_initializer(model, f"{table.name}_int8", codes), ids]),
            ir.node("Gather", [_initializer(model, f"{table.name}_scale", scale.astype(np.float32)), ids]),
        ]
        rows.append(ir.node("Cast", [rows[0].outputs[0]], attributes={"to": ir.DataType.FLOAT}))
        rows.append(ir.node("Mul", [rows[2].outputs[0], rows[1].outputs[0]]))
        rows[3].outputs[0].shape, rows[3].outputs[0].dtype = node.outputs[0].shape, node.outputs[0].dtype
        model.graph.insert_before(node, rows)
        ir.convenience.replace_all_uses_with(node.outputs[0], rows[3].outputs[0])
        model.graph.remove(node, safe=True)
    _drop_unused(model)


def fuse_products(model: Any) -> None:
    """Make one node of each dequantized input, dequantized weight, product and bias: ONNX Runtime's own operation.

    ONNX Runtime finds the product in the standard nodes, too, but leaves the bias an addition of its own, a pass over
    the output that takes 4 to 7 % of the time of an INT8 BERT.
    """
    import onnx_ir as ir

    for node in list(model.graph):
        parts = _quantized_linear(node)
        if parts is None:
            continue
        (codes, scale, zero), (weight, weight_scale, weight_zero), bias, last = parts
        inputs = [codes, weight, scale, weight_scale, zero, weight_zero, *([] if bias is None else [bias])]
        fused = ir.node(FUSED_PRODUCT, inputs, domain="com.microsoft")
        fused.name = f"{node.name.rpartition('/')[0]}/{FUSED_PRODUCT}"
        old, new = last.outputs[0], fused.outputs[0]
        new.shape, new.dtype, new.name = old.shape, old.dtype, old.name
        model.graph.insert_before(last, fused)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        model.graph.remove([last] if last is node else [last, node], safe=True)
        model.graph.opset_imports["com.microsoft"] = 1
    _drop_unused(model)


def _quantized_linear(node: Any) -> Any:
    """Return the operands of both DequantizeLinear before a product, its bias if it has one, and the last node.

    None if `node` is not the product of a quantized linear layer with unsigned activations.
    """
    if node.op_type != "MatMul":
        return None
    sides = [value.producer() for value in node.inputs]
    if any(side is None or side.op_type != "DequantizeLinear" for side in sides):
        return None
    x, weight = (list(side.inputs) for side in sides)
    zero, codes = _constant(x[2]), _constant(weight[0])
    if codes is None or codes.ndim != 2 or zero is None or zero.ndim or zero.dtype != np.uint8:
        return None
    uses = node.outputs[0].uses()
    if len(uses) == 1 and (add := uses[0].node).op_type == "Add":
        for value in add.inputs:
            array = value.const_value
            if array is not None and list(array.shape) == [codes.shape[1]]:
                return x, weight, value, add
    return x, weight, None, node


def _drop_unused(model: Any) -> None:
    from onnx_ir.passes import common

    common.RemoveUnusedNodesPass()(model)


def _initializer(model: Any, name: str, array: Any) -> Any:
    import onnx_ir as ir

    if name not in model.graph.initializers:
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        model.graph.register_initializer(value)
    return model.graph.initializers[name]


def _source(value: Any) -> Any:
    """Return the value before the Transpose that made this one, or the value itself."""
    producer = value.producer()
    return producer.inputs[0] if producer is not None and producer.op_type == "Transpose" else value


def _constant(value: Any) -> Any:
    """Return the array of a value that is an initializer, a Constant, or a Transpose of one; else None."""
    source = _source(value)
    tensor = source.const_value
    if tensor is None and source.producer() is not None and source.producer().op_type == "Constant":
        tensor = source.producer().attributes["value"].as_tensor()
    if tensor is None:
        return None
    array = tensor.numpy()
    if source is value:
        return array
    return array.transpose(value.producer().attributes["perm"].as_ints())
