"""Whether a call runs in order to be recorded."""

import torch
from torch.autograd import forward_ad


def is_jit_traced() -> bool:
    """Tell whether `torch.jit.trace` records the call: sizes are tensors then, and to check one gets a warning."""
    return torch._C._get_tracing_state() is not None


def is_tracing() -> bool:
    """Tell whether the code runs to be recorded, traced or compiled, so that values of tensors must not steer it."""
    return bool(torch.compiler.is_compiling() or is_jit_traced())


def is_transformed() -> bool:
    """Tell whether the call runs in a transform of `torch.func` or in forward-mode differentiation.

    These do not know a function with a backward of its own, and want torch's operations, or registered ones, instead.
    """
    # A compiler breaks off at this question.
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def is_recorded() -> bool:
    """Tell whether anybody follows the operations of the call: a tracer, a dispatch mode (flop counters), a transform.

    Such a one knows torch's usual operations, and may not know an equal one that is faster.
    """
    return is_tracing() or torch._C._len_torch_dispatch_stack() > 0 or is_transformed()
