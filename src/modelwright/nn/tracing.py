"""Whether a call runs in order to be recorded."""

import torch


def is_jit_traced() -> bool:
    """Tell whether `torch.jit.trace` records the call: sizes are tensors then, and to check one gets a warning."""
    return torch._C._get_tracing_state() is not None


def is_tracing() -> bool:
    """Tell whether the code runs to be recorded, traced or compiled, so that values of tensors must not steer it."""
    return bool(torch.compiler.is_compiling() or is_jit_traced())
