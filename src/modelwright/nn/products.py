"""The product of a linear layer, by the library that is fastest on this processor.

torch hands fp32 products on the CPU to MKL, which on AMD's processors does not use their 512-bit units; oneDNN, which
torch comes with too and hands half precision to, does. It takes half of the time there, in the same precision.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

# Multiplications below which the call itself costs more than it saves, and the numbers of a weight that is read from
# memory, so that one row of input is worth it.
_LARGE, _LARGE_WEIGHT = 2**20, 2**18
# Rows of a product that is added to a sum: 4 MB of 512 columns.
_PART = 2048


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what `F.linear` does, (..., inputs) and (outputs, inputs) -> (..., outputs), with its gradients.

    The weight may be a transposed view. What other code looks into (autocast, tracing, function transforms, dispatch
    modes, subclasses of tensors) and all other dtypes and devices are left to `F.linear`.
    """
    if not _suits(input, weight, bias):
        return F.linear(input, weight, bias)
    if torch.is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        result: Tensor = _Linear.apply(input, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return _product(input, weight, bias)


def add_product_(sum_NK: Tensor, left_NR: Tensor, right_RK: Tensor) -> None:
    """Add `left @ right` to `sum`, in place and without gradients; half precision is added to a sum in fp32."""
    if sum_NK.dtype != left_NR.dtype:
        sum_NK += left_NR @ right_RK
        return
    if not _suits(left_NR, right_RK.t(), None):
        sum_NK.addmm_(left_NR, right_RK)
        return
    # oneDNN does not add, so the product is made in parts that are added while they are in a cache.
    for rows in range(0, len(sum_NK), _PART):
        part = slice(rows, rows + _PART)
        sum_NK[part] += _product(left_NR[part], right_RK.t(), None)


class _Linear(torch.autograd.Function):
    """The product and its gradients, which are such products themselves and so have gradients too."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        return _product(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        rows_RN = grad.reshape(-1, grad.shape[-1])
        return (
            linear(grad, weight.t()) if of_input else None,
            linear(rows_RN.t(), input.reshape(-1, input.shape[-1]).t()) if of_weight else None,
            rows_RN.sum(dim=0) if of_bias else None,
        )


def _product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return result


def is_watched(*tensors: Tensor | None) -> bool:
    """Tell whether other code may look into what is computed of these tensors: then it should see torch's own calls."""
    return bool(
        torch.compiler.is_compiling()
        or any(each is not None and type(each) not in _PLAIN for each in tensors)
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def _suits(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return bool(
        (weight.numel() >= _LARGE_WEIGHT or input.numel() * weight.shape[0] >= _LARGE)
        and input.dtype is weight.dtype is torch.float32
        and input.device.type == weight.device.type == "cpu"
        and (bias is None or bias.dtype is torch.float32)
        and input.numel()
        and weight.dim() == 2
        # For others it has no fast kernel.
        and (weight.is_contiguous() or weight.t().is_contiguous())
        and input.shape[-1] == weight.shape[1]
        and onednn_is_faster()
        and not torch.is_autocast_enabled("cpu")
        and not is_watched(input, weight, bias)
    )


_PLAIN = (Tensor, torch.nn.Parameter)


@functools.cache
def onednn_is_faster(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Tell whether this is a processor of AMD with 512-bit units (Linux says so in `cpuinfo`) and torch has oneDNN."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch._C._has_mkldnn:
        return False
    try:
        is_amd = "AuthenticAMD" in Path(cpuinfo).read_text()
    except OSError:
        return False
    return is_amd and hasattr(torch.ops.mkldnn, "_linear_pointwise")
