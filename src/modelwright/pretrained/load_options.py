"""What `from_pretrained` was asked for, checked, in one object."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from modelwright.checkpoint.strictness import Strictness
from modelwright.core.errors import InputError, check_choice
from modelwright.hub.download import Download


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """The keywords of `from_pretrained` that decide what is loaded and how; their meaning is documented there."""

    where: str
    config: Any = None
    state_dict: Mapping[str, torch.Tensor] | None = None
    dtype: Any = None
    torch_dtype: Any = None
    device_map: Any = None
    max_memory: Any = None
    offload_folder: Any = None
    offload_buffers: bool = False
    mmap: bool = True
    verify: str | None = None
    subfolder: str = ""
    variant: str | None = None
    use_safetensors: bool | None = None
    strict: bool | Mapping[str, str] = False
    ignore_mismatched_sizes: bool = False
    output_loading_info: bool = False
    key_mapping: Mapping[str, str] | None = None
    generation_config: Any = None
    attn_implementation: Any = None
    adapter_kwargs: Mapping[str, Any] | None = None
    adapter_name: str = "default"
    download: Download = field(default_factory=Download)

    def __post_init__(self) -> None:
        """Raise InputError for a value of a wrong type."""
        self._check("state_dict", Mapping, "a dictionary of tensors or None", optional=True)
        self._check("subfolder", str, "a folder name")
        self._check("variant", str, "a name such as 'fp16' or None", optional=True)
        self._check("use_safetensors", bool, "True, False or None", optional=True)
        self._check("adapter_kwargs", Mapping, "a dictionary of keywords of load_adapter or None", optional=True)
        self._check("adapter_name", str, "a name")
        self._check("key_mapping", Mapping, "a dictionary {pattern: replacement} or None", optional=True)
        self._check("offload_folder", str | os.PathLike, "a folder or None", optional=True)
        for name in ("ignore_mismatched_sizes", "output_loading_info", "offload_buffers", "mmap"):
            self._check(name, bool, "True or False")
        check_choice(f"{self.where}: verify", self.verify or "None", ("size", "hash", "None"))
        self.strictness()

    def _check(self, name: str, kind: Any, expected: str, optional: bool = False) -> None:
        value = getattr(self, name)
        if not isinstance(value, kind) and not (optional and value is None):
            raise InputError(f"{self.where}: expected {name} to be {expected}, got {value!r}")

    def strictness(self) -> Strictness:
        """Return what `strict` and `ignore_mismatched_sizes` ask for; raise InputError if that makes no sense."""
        return Strictness.of(self.where, self.strict, self.ignore_mismatched_sizes)


PathLike = str | os.PathLike[str]
