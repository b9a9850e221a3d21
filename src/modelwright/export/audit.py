"""Whether ONNX Runtime computes with integers what was quantized, read from the graph that it runs."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.core.errors import ModelwrightError
from modelwright.core.optional import require
from modelwright.export.session import make_session

_FLOAT_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "MatMulNBits")
_INTEGER_PRODUCTS = ("MatMulIntegerToFloat", "QLinearMatMul", "MatMulInteger", "DynamicQuantizeMatMul", "QGemm")
# Of these, the ones that an export writes itself.
_WRITTEN_INTEGER = ("MatMulIntegerToFloat", "MatMulInteger")
_PLACE_CHANGES = ("Transpose", "Reshape", "Cast", "Identity")


class FusionError(ModelwrightError, RuntimeError):
    """A product that was quantized, and that ONNX Runtime nevertheless computes in float."""


@dataclass
class FusionAudit:
    """The products of a graph: names of the quantized ones that became integer ones and that stayed float.

    `expected` counts the quantized products of the file. `operations` counts the nodes that run, by operation.
    """

    expected: int
    integer: list[str] = field(default_factory=list)
    stayed_float: list[str] = field(default_factory=list)
    operations: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every quantized product is an integer one."""
        return not self.stayed_float and len(self.integer) >= self.expected

    def check(self) -> None:
        """Raise FusionError that lists the products that stayed float, if there are any."""
        if not self.ok:
            raise FusionError(
                f"ONNX Runtime runs {len(self.integer)} of {self.expected} quantized products with integers; in float: "
                f"{', '.join(self.stayed_float) or 'not known'}; export with target='onnxruntime-cpu'"
            )


def audit_fusion(path: str | os.PathLike[str]) -> FusionAudit:
    """Return which quantized products of an ONNX file ONNX Runtime computes with integers.

    Raises as `make_session` does.
    """
    onnx: Any = require("onnx", extra="onnx", why="Reading an ONNX graph")
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        make_session(path, 1, optimized_path=optimized)
        runs = onnx.load(optimized, load_external_data=False)
    written = onnx.load(os.fspath(path), load_external_data=False)
    audit = FusionAudit(expected=len(_quantized_products(written)))
    audit.stayed_float = _quantized_products(runs, _FLOAT_PRODUCTS)
    for node in runs.graph.node:
        audit.operations[node.op_type] = audit.operations.get(node.op_type, 0) + 1
        if node.op_type in _INTEGER_PRODUCTS:
            audit.integer.append(node.name)
    return audit


def _quantized_products(model: Any, kinds: tuple[str, ...] = (*_FLOAT_PRODUCTS, *_WRITTEN_INTEGER)) -> list[str]:
    """Return the names of the products whose operands come out of DequantizeLinear, or which are of integers."""
    made_by = {name: node for node in model.graph.node for name in node.output}

    def is_dequantized(name: str) -> bool:
        node = made_by.get(name)
        while node is not None and node.op_type in _PLACE_CHANGES:
            node = made_by.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    return [
        node.name
        for node in model.graph.node
        if node.op_type in kinds and (node.op_type in _WRITTEN_INTEGER or all(map(is_dequantized, node.input[:2])))
    ]
