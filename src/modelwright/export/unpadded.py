"""Two ways for each attention of a graph for ONNX Runtime: with a mask, and without where no token is padding.

Without a mask ONNX Runtime goes through keys block by block and keeps no scores, which is faster. One text alone, and
texts of one length, have no padding, so the graph looks at the mask once and chooses.
"""

from typing import Any

import numpy as np

from modelwright.export.attention import FUSED_ATTENTION

_MASK = 4


def choose_attention(model: Any) -> None:
    """Put each attention node with a mask into a choice of itself and one without the mask.

    A query that sees no key gets zeros, of which the node knows nothing. `model` is an `onnx_ir.Model`.
    """
    import onnx_ir as ir

    facts: dict[str, tuple[Any, Any]] = {}
    for node in list(model.graph):
        if node.op_type != FUSED_ATTENTION or len(node.inputs) <= _MASK:
            continue
        mask, old, place = node.inputs[_MASK], node.outputs[0], node.name.rpartition("/")[0]
        if mask.name not in facts:
            facts[mask.name] = _facts(model.graph, node, mask)
        unpadded, sighted = facts[mask.name]
        plain, masked = (_attention(node, inputs) for inputs in (node.inputs[:3], node.inputs))
        zeroed = ir.node("Mul", [masked.outputs[0], sighted], name=f"{place}/Mul")
        # Names are unique in the whole file, subgraphs included.
        for each, what in ((plain, "unpadded"), (masked, "masked"), (zeroed, "sighted")):
            each.outputs[0].name = f"{old.name}_{what}"
        branches = {"then_branch": _branch(plain), "else_branch": _branch(masked, zeroed)}
        choice = ir.node("If", [unpadded], attributes=branches, name=f"{place}/If")
        new = choice.outputs[0]
        new.shape, new.dtype, new.name = old.shape, old.dtype, old.name
        model.graph.insert_before(node, choice)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


def _facts(graph: Any, before: Any, mask: Any) -> tuple[Any, Any]:
    """Return whether a mask [B, S] of 0 and 1 has no 0, and, [B, 1, 1], 1.0 for rows with a 1, 0.0 for others."""
    import onnx_ir as ir

    axis = ir.node("Constant", [], attributes={"value": ir.tensor(np.array([1], dtype=np.int64))})
    least = ir.node("ReduceMin", [mask], attributes={"keepdims": 0})
    unpadded = ir.node("Cast", [least.outputs[0]], attributes={"to": ir.DataType.BOOL})
    most = ir.node("ReduceMax", [mask, axis.outputs[0]], attributes={"keepdims": 1})
    number = ir.node("Cast", [most.outputs[0]], attributes={"to": ir.DataType.FLOAT})
    sighted = ir.node("Unsqueeze", [number.outputs[0], axis.outputs[0]])
    nodes = [axis, least, unpadded, most, number, sighted]
    for each in nodes:
        each.name = f"{mask.name}/{each.op_type}"
    nodes[4].name = f"{mask.name}/Cast_2"
    graph.insert_before(before, nodes)
    return unpadded.outputs[0], sighted.outputs[0]


def _attention(node: Any, inputs: Any) -> Any:
    import onnx_ir as ir

    return ir.node(node.op_type, list(inputs), attributes=node.attributes, domain=node.domain, name=node.name)


def _branch(*nodes: Any) -> Any:
    """Return a graph without inputs of its own, whose output is that of the last node."""
    import onnx_ir as ir

    return ir.Graph([], [nodes[-1].outputs[0]], nodes=nodes, name=nodes[-1].name)
