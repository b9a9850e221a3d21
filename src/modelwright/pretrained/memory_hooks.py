"""Hooks that record how much the process's resident memory grows during each module's forward."""

from typing import Any

from torch import nn

from modelwright.core.optional import require

_FIELDS = ("mem_rss_diff", "mem_rss_post_forward", "mem_rss_pre_forward")


def add_hooks(model: nn.Module) -> None:
    """Put the two hooks on every module of `model`, once, and set the counters to zero."""
    for module in model.modules():
        if not hasattr(module, _FIELDS[0]):
            module.register_forward_pre_hook(_before_forward)
            module.register_forward_hook(_after_forward)
    reset(model)


def reset(model: nn.Module) -> None:
    """Set the counters (bytes) of every module of `model` to zero."""
    for module in model.modules():
        for field in _FIELDS:
            setattr(module, field, 0)


def _resident_bytes() -> int:
    psutil: Any = require("psutil", extra="dev", why="add_memory_hooks()")
    return int(psutil.Process().memory_info().rss)


def _before_forward(module: Any, _args: Any) -> None:
    module.mem_rss_pre_forward = _resident_bytes()


def _after_forward(module: Any, _args: Any, _output: Any) -> None:
    module.mem_rss_post_forward = _resident_bytes()
    module.mem_rss_diff += module.mem_rss_post_forward - module.mem_rss_pre_forward
