"""Tensors that are in memory already, as a checkpoint."""

from collections.abc import Mapping
from pathlib import Path

import torch

from modelwright.checkpoint.headers import CheckpointBase, TensorInfo
from modelwright.core.errors import InputError


class MemoryCheckpoint(CheckpointBase):
    """The tensors of `state_dict`, for loading a model from memory. Reading copies; what was given stays untouched."""

    def __init__(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in state_dict.items():
            if not isinstance(tensor, torch.Tensor):
                raise InputError(f"state_dict: expected a tensor under {name!r}, got a {type(tensor).__name__}.")
        where = Path("state_dict (in memory)")
        self._tensors = dict(state_dict)
        self.infos = {
            name: TensorInfo(name, tensor.dtype, tuple(tensor.shape), tensor.nbytes, where)
            for name, tensor in state_dict.items()
        }
        self.files = ()

    def read(self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return a copy of the tensor `name`; see `Checkpoint.read`."""
        tensor = self._tensors[name].detach()
        return tensor.to(device=device, dtype=dtype or tensor.dtype, copy=True, memory_format=torch.contiguous_format)

    def equal(self, first: str, second: str) -> bool:
        """Tell whether two stored tensors hold the same values in the same shape and dtype."""
        left, right = self._tensors[first], self._tensors[second]
        return left.dtype == right.dtype and torch.equal(left, right)
