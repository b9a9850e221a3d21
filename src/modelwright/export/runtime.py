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


class OnnxModel:
    """An ONNX file that `export_onnx` wrote, run by ONNX Runtime on the CPU.

    A call takes the inputs of the file by keyword, as tensors or arrays, and returns the output class of the model that
    was exported, with tensors. `config` is that of the folder, None if it has none. Inputs that are not given are made:
    a mask of ones, token types of zeros.
    """

    def __init__(self, path: str | os.PathLike[str], config: Any = None, *, threads: int | None = None) -> None:
        self.session = make_session(path, threads)
        noted = self.session.get_modelmeta().custom_metadata_map.get(OUTPUT_CLASS)
        if noted is None:
            raise CheckpointError(
                f"{os.fspath(path)}: expected an ONNX file written by export_onnx, found no note of it"
            )
        self.config, self._output_class = config, _class_of(noted)
        self.input_names: list[str] = [each.name for each in self.session.get_inputs()]
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
        given = {name: np.asarray(value) for name, value in inputs.items() if value is not None}
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
