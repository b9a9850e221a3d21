"""ONNX Runtime sessions with the options that matter for Transformer encoders on a CPU."""

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelwright.core.errors import InputError, RepoError
from modelwright.core.logging import get_logger
from modelwright.core.optional import require
from modelwright.quantization.int8_linear import has_int8_instructions

logger = get_logger(__name__)

# These make one slow node of an addition and a fast LayerNormalization or Gelu: a fifth and a twentieth of the time of
# an INT8 BERT.
SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasGeluFusion")


def make_session(
    path: str | os.PathLike[str],
    threads: int | None = None,
    *,
    disabled_optimizers: Sequence[str] = SLOW_FUSIONS,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    optimized_path: str | os.PathLike[str] | None = None,
) -> Any:
    """Return an `onnxruntime.InferenceSession` of an ONNX file.

    threads: within a node; by default one for each core. disabled_optimizers: names of ONNX Runtime's graph
    optimizers. optimized_path: where to write the graph that runs. Raises MissingPackageError without the extra
    `onnx`, RepoError if there is no such file, InputError for threads below 1.
    """
    runtime = require("onnxruntime", extra="onnx", why="Running an ONNX model")
    if not os.path.isfile(path):  # noqa: PTH113 - a str, too
        raise RepoError(f"make_session: expected an ONNX file, there is none at {os.fspath(path)}")
    if threads is not None and threads < 1:
        raise InputError(f"make_session: expected at least 1 thread, got {threads}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    if optimized_path is not None:
        options.optimized_model_filepath = os.fspath(optimized_path)
    return runtime.InferenceSession(
        os.fspath(path), options, providers=list(providers), disabled_optimizers=list(disabled_optimizers)
    )


def warn_without_int8_instructions() -> None:
    """Say, once, how fast integer products are here if the processor has no instructions for them."""
    if not has_int8_instructions():
        ratio = int8_speedup()
        logger.warning_once(
            "This processor has no instructions for products of 8-bit integers (VNNI, AMX, dot product): INT8 layers "
            f"run at {ratio:.1f} times the speed of float ones here (measured)."
        )


def int8_speedup(size: int = 768, tokens: int = 128, repeats: int = 10) -> float:
    """Return how many times as fast as a float product an integer product is here, on one thread."""
    runtime = require("onnxruntime", extra="onnx", why="Measuring integer products")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    x = np.ones((tokens, size), dtype=np.float32)
    seconds = []
    for text in (_product(size, integers=False), _product(size, integers=True)):
        session = runtime.InferenceSession(text, options, providers=["CPUExecutionProvider"])
        seconds.append(_fastest(session, {"x": x}, repeats))
    return seconds[0] / seconds[1]


def _fastest(session: Any, feed: dict[str, Any], repeats: int) -> float:
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        session.run(None, feed)
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def _product(size: int, *, integers: bool) -> bytes:
    """Return a model of one product, as ONNX."""
    from onnx import TensorProto, helper, numpy_helper

    constants: dict[str, Any] = {"w": np.ones((size, size), dtype=np.int8 if integers else np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if integers:
        constants |= {"s": np.float32(0.1), "z": np.uint8(128), "c": np.int8(0)}
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            helper.make_node("DequantizeLinear", ["w", "s", "c"], ["v"]),
            helper.make_node("MatMul", ["d", "v"], ["y"]),
        ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size]) for name in "xy")
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "product", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    text: bytes = model.SerializeToString()
    return text
