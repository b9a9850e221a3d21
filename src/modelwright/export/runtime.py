"""OnnxModel: an exported model that is called as the PyTorch one is, and answers with the same output class."""

import importlib
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import CheckpointError, InputError, reject_unknown
from modelwright.core.optional import require
from modelwright.export.onnx import OUTPUT_CLASS
from modelwright.export.session import make_session, warn_without_int8_instructions
from modelwright.hub.names import CONFIG_NAME, ONNX_NAME
from modelwright.outputs.base import ModelOutput

# ONNX Runtime's names of the types of inputs that `export_onnx` writes.
_DTYPES: dict[str, np.dtype[Any]] = {"tensor(int64)": np.dtype(np.int64), "tensor(float)": np.dtype(np.float32)}


class OnnxModel:
    """An ONNX file that `export_onnx` wrote, run by ONNX Runtime on the CPU.

    A call takes the inputs of the file by keyword, as tensors, arrays or lists, cast to the file's types (fractions are
    refused for whole numbers), and returns the output class of the model that was exported, with tensors. `config` is
    that of the folder, None if it has none. Inputs that are not given are made: a mask of ones, token types of zeros.
    """

    def __init__(self, path: str | os.PathLike[str], config: Any = None, *, threads: int | None = None) -> None:
        self.session = make_session(path, threads)
        noted = self.session.get_modelmeta().custom_metadata_map.get(OUTPUT_CLASS)
        if noted is None:
            raise CheckpointError(
                f"{os.fspath(path)}: expected an ONNX file written by export_onnx, found no note of it"
            )
        self.config, self._output_class = config, _class_of(noted)
        self._dtypes: dict[str, np.dtype[Any] | None] = {
            each.name: _DTYPES.get(each.type) for each in self.session.get_inputs()
        }
        self.input_names: list[str] = list(self._dtypes)
        self.output_names: list[str] = [each.name for each in self.session.get_outputs()]
        if _has_integers(path):
            warn_without_int8_instructions()

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], *, threads: int | None = None) -> Self:
        """Return the model of a folder with `model.onnx` and config.json; raise RepoError if there is no such file."""
        config = None
        if (Path(folder) / CONFIG_NAME).is_file():
            config = PretrainedConfig.from_pretrained(folder)
        return cls(Path(folder) / ONNX_NAME, config, threads=threads)

    def __call__(self, input_ids: Any = None, **inputs: Any) -> Any:
        """Return the output for ids [B, T] and the other inputs of the file; raise InputError for what it lacks."""
        if input_ids is not None:
            inputs["input_ids"] = input_ids
        return_dict = inputs.pop("return_dict", True)
        reject_unknown("OnnxModel", inputs, self.input_names)
        given = {
            name: _as_input(name, value, self._dtypes[name]) for name, value in inputs.items() if value is not None
        }
        main = given.get(self.input_names[0])
        if main is None:
            raise InputError(f"OnnxModel: expected {self.input_names[0]}, got {', '.join(given) or 'nothing'}")
        shape = main.shape if self.input_names[0] != "inputs_embeds" else main.shape[:-1]
        for name in self.input_names:
            if name not in given:
                given[name] = _default(name, shape)
        values = self.session.run(None, given)
        tensors: list[Tensor] = [torch.from_numpy(value) for value in values]
        output = self._output_class(**dict(zip(self.output_names, tensors, strict=True)))
        return output if return_dict else output.to_tuple()


def _class_of(noted: str) -> Any:
    """Return the output class that a file names as module:class."""
    module, _, name = noted.partition(":")
    found = getattr(importlib.import_module(module), name, None) if module.startswith("modelwright.") else None
    if not (isinstance(found, type) and issubclass(found, ModelOutput)):
        raise CheckpointError(f"OnnxModel: expected the name of an output class of modelwright, got {noted!r}")
    return found


def _as_input(name: str, value: Any, dtype: np.dtype[Any] | None) -> Any:
    """Return an array of the type that the file takes; raise InputError for fractions where that is whole numbers."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype is torch.bfloat16 else value  # which numpy has not
    array = np.asarray(value)
    if dtype is None or array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore", over="ignore"):  # infinities, which whole numbers refuse below
        cast = array.astype(dtype)
    if dtype.kind == "i" and not np.array_equal(cast, array):
        raise InputError(
            f"OnnxModel: expected whole numbers of {dtype} for {name}, got {array.dtype} with others, such as "
            f"{array[cast != array].flat[0]}"
        )
    return cast


def _default(name: str, shape: tuple[int, ...]) -> Any:
    if name == "attention_mask":
        return np.ones(shape, dtype=np.int64)
    if name == "token_type_ids":
        return np.zeros(shape, dtype=np.int64)
    raise InputError(f"OnnxModel: expected {name}, which has no default")


def _has_integers(path: str | os.PathLike[str]) -> bool:
    onnx: Any = require("onnx", extra="onnx", why="Reading an ONNX graph")
    graph = onnx.load(os.fspath(path), load_external_data=False).graph
    return any(node.op_type in ("QuantizeLinear", "MatMulInteger") for node in graph.node)
