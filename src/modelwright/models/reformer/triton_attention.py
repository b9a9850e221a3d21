"""The attention kernels on a GPU: the same functions as `local_kernel` and `lsh_kernel`, launching `triton_kernels`.

Products of half-precision tensors are taken in that precision and summed in fp32, as the GPU's matrix units do; those
of fp32 tensors are in fp32, or in TF32 if `torch.backends.cuda.matmul.allow_tf32` says so. Gradients are the same in
every run. Dropout is another random choice than a CPU's.

Shapes: B batch, L tokens (a multiple of the chunk length), H heads, D head size, N hash rounds.
"""

from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from modelwright.models.reformer.local_kernel import Windows
from modelwright.nn.dropout import LEVELS

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MOST_SIZE = 256
# Positions are compared as fp32.
_MOST_TOKENS = 2**24


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def can_run(x: Tensor, num_heads: int) -> bool:
    """Return whether these kernels take tensors of that kind, (B, L, H*D): on a GPU, not fp64, D at most 256.

    NVIDIA's GPUs before Ampere have too little shared memory for the tiles.
    """
    fits = x.shape[-1] // num_heads <= _MOST_SIZE and x.shape[1] <= _MOST_TOKENS
    takes = x.is_cuda and x.dtype in _DTYPES and fits
    return takes and _has_triton() and not _is_old(x.device)


@cache
def _is_old(device: torch.device) -> bool:
    if torch.version.hip is not None or not torch.cuda.is_available():  # fake tensors need no GPU
        return False
    return torch.cuda.get_device_capability(device) < (8, 0)


class _Launch:
    """What the launches of one attention have in common."""

    def __init__(self, q_BLE: Tensor, num_heads: int, rounds: int, key_mask_BL: Tensor | None, shape: Windows) -> None:
        from modelwright.models.reformer import triton_kernels

        self.kernels: Any = triton_kernels
        self.shape, self.rounds, self.num_heads = shape, rounds, num_heads
        self.batch, self.length, width = q_BLE.shape
        self.like = q_BLE
        # Triton launches on the current device; its interpreter, which tests use, has none.
        self.device: Any = torch.cuda.device(q_BLE.device) if q_BLE.is_cuda else nullcontext()
        self.key_mask = key_mask_BL if key_mask_BL is None else key_mask_BL.contiguous().view(torch.uint8)
        self.size = width // num_heads
        wide = _power(self.size)
        block, warps = _tiling(wide * q_BLE.element_size())
        self.tile = min(block, _power(shape.chunk_length))
        dropped = round(shape.dropout * LEVELS)
        self.dropout = dropped, LEVELS / max(1, LEVELS - dropped), shape.seed
        self.constants: dict[str, Any] = {"SIZE": self.size, "BLOCK_D": wide, "BLOCK_Q": self.tile}
        self.windowed: dict[str, Any] = {
            "CAUSAL": shape.causal,
            "HAS_MASK": key_mask_BL is not None,
            "DROPS": dropped > 0,
            "SHARES": rounds > 1,
            "BLOCK_K": min(block, _power(shape.window)),
            "PRECISION": _precision(),
            "num_warps": warps,
            # The windows are short: loading ahead costs registers and gains nothing.
            "num_stages": 1,
        }

    def empty(self, *sizes: int) -> Tensor:
        """Return fp32 numbers (B, H, *sizes), with any content."""
        return self.like.new_empty((self.batch, self.num_heads, *sizes), dtype=torch.float32)

    @property
    def grid(self) -> tuple[int]:
        """Return the number of tiles of a round of all sequences: in one dimension, as a second may have 65535."""
        chunk = self.shape.chunk_length
        return (self.length // chunk * -(-chunk // self.tile) * self.batch * self.num_heads,)

    def attend(
        self,
        turn: int,
        q_BLE: Tensor,
        k_BLE: Tensor,
        v_BLE: Tensor,
        order_BHNL: Tensor | None,
        kept: Tensor | None,
        *,
        out: Tensor | None = None,
        total: Tensor | None = None,
        grad_BLE: Tensor | None = None,
        delta_BHL: Tensor | None = None,
    ) -> None:
        """Run one round; with `grad`, `delta` and `kept` are made and no output."""
        shape = self.shape
        scalars = (shape.chunk_length, shape.num_before, shape.window, self.size**-0.5, *self.dropout)
        with self.device:
            self.kernels.attend[self.grid](
                *(q_BLE, k_BLE, v_BLE, order_BHNL, self.key_mask, grad_BLE, out, kept, total, delta_BHL),
                *(self.num_heads, self.length, self.rounds, turn, *scalars),
                SHARED=order_BHNL is not None,
                STATISTICS=grad_BLE is not None,
                **self.constants,
                **self.windowed,
            )

    def attend_backward(
        self,
        turn: int,
        operands: tuple[Tensor, Tensor, Tensor],
        order_BHNL: Tensor | None,
        grad_BLE: Tensor,
        statistics: tuple[Tensor, Tensor | None, Tensor],
        into: tuple[Tensor, Tensor | None, Tensor],
    ) -> None:
        """Run one round; `statistics` are `kept`, the rounds' shares (if there are several) and `delta`."""
        shape = self.shape
        scalars = (shape.chunk_length, shape.num_before, shape.num_after, shape.window, self.size**-0.5, *self.dropout)
        with self.device:
            self.kernels.attend_backward[self.grid](
                *(*operands, order_BHNL, self.key_mask, grad_BLE, *statistics, *into),
                *(self.num_heads, self.length, self.rounds, turn, *scalars),
                SHARED=order_BHNL is not None,
                **self.constants,
                **self.windowed,
            )

    def products(self, x_BLE: Tensor, y_BLE: Tensor) -> Tensor:
        """Return the inner products (B, H, L) of the vectors of each token and head."""
        result = self.empty(self.length)
        grid = (-(-self.length // self.tile) * self.batch * self.num_heads,)
        with self.device:
            self.kernels.multiply_rows[grid](x_BLE, y_BLE, result, self.num_heads, self.length, **self.constants)
        return result


def _power(number: int) -> int:
    """Return the power of two that is not below; 16 at least, which is what matrix units take."""
    return max(16, 1 << (number - 1).bit_length())


def _tiling(vector_bytes: int) -> tuple[int, int]:
    """Return the tokens of a tile and the warps of a program: what the backward still does without spilled registers.

    Measured on an H100, and seen in what Triton compiles for it.
    """
    tokens = 64 if vector_bytes <= 128 else 32 if vector_bytes <= 512 else 16
    return tokens, 4 if vector_bytes <= 256 else 8


def _precision() -> str:
    """Return how fp32 products are taken: three products in TF32 are as exact as one, and several times as fast."""
    if torch.version.hip is not None:
        return "ieee"
    matmul: Any = torch.backends.cuda.matmul
    # Since torch 2.9, where the older name raises if the newer one was set.
    is_new = hasattr(matmul, "fp32_precision")
    allowed = matmul.fp32_precision == "tf32" if is_new else matmul.allow_tf32
    return "tf32" if allowed else "tf32x3"


def kept_shape(order_BHNL: Tensor) -> tuple[int, ...]:
    """Return the shape of the second result of `lsh_attention`."""
    return (*order_BHNL.shape, 2)


def local_attention(
    q_BLE: Tensor,
    k_BLE: Tensor,
    v_BLE: Tensor,
    key_mask_BL: Tensor | None,
    num_heads: int,
    shape: Windows,
    *,
    into: Tensor | None = None,
) -> Tensor:
    """Return what `local_kernel.local_attention` does; `into` may be `q`."""
    q_BLE, k_BLE, v_BLE = q_BLE.contiguous(), k_BLE.contiguous(), v_BLE.contiguous()
    # A program writes where it alone has read its queries.
    out_BLE = torch.empty_like(v_BLE) if into is None else into
    _Launch(q_BLE, num_heads, 1, key_mask_BL, shape).attend(0, q_BLE, k_BLE, v_BLE, None, None, out=out_BLE)
    return out_BLE


def local_attention_backward(
    grad_BLE: Tensor,
    q_BLE: Tensor,
    k_BLE: Tensor,
    v_BLE: Tensor,
    key_mask_BL: Tensor | None,
    num_heads: int,
    shape: Windows,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v; nothing of the forward is needed."""
    grad_BLE, q_BLE, k_BLE, v_BLE = (x.contiguous() for x in (grad_BLE, q_BLE, k_BLE, v_BLE))
    launch = _Launch(q_BLE, num_heads, 1, key_mask_BL, shape)
    kept, delta_BHL = launch.empty(1, launch.length, 2), launch.empty(launch.length)
    launch.attend(0, q_BLE, k_BLE, v_BLE, None, kept, grad_BLE=grad_BLE, delta_BHL=delta_BHL)
    grads = torch.empty_like(q_BLE), torch.empty_like(k_BLE), torch.empty_like(v_BLE)
    launch.attend_backward(0, (q_BLE, k_BLE, v_BLE), None, grad_BLE, (kept, None, delta_BHL), grads)
    return grads


def lsh_attention(
    qk_BLE: Tensor,
    v_BLE: Tensor,
    order_BHNL: Tensor,
    key_mask_BL: Tensor | None,
    shape: Windows,
    *,
    into: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the output of `lsh_kernel.lsh_attention` and what the backward needs of the rounds, (B, H, N, L, 2).

    The output is written to the contiguous tensor `into` if there is one, which shares no memory with `qk` and `v`.
    """
    qk_BLE, v_BLE, order_BHNL = qk_BLE.contiguous(), v_BLE.contiguous(), order_BHNL.contiguous()
    num_heads, rounds = order_BHNL.shape[1:3]
    launch = _Launch(qk_BLE, num_heads, rounds, key_mask_BL, shape)
    kept = torch.empty(kept_shape(order_BHNL), dtype=torch.float32, device=qk_BLE.device)
    into = torch.empty_like(v_BLE) if into is None else into
    # Several rounds are added up in fp32.
    adds_up = rounds == 1 or into.dtype is torch.float32
    out_BLE = into if adds_up else torch.empty_like(into, dtype=torch.float32)
    total = launch.empty(launch.length, 2) if rounds > 1 else None
    for turn in range(rounds):
        launch.attend(turn, qk_BLE, qk_BLE, v_BLE, order_BHNL, kept, out=out_BLE, total=total)
    return (into if out_BLE is into else into.copy_(out_BLE)), kept


def lsh_attention_backward(
    grad_BLE: Tensor,
    qk_BLE: Tensor,
    v_BLE: Tensor,
    order_BHNL: Tensor,
    key_mask_BL: Tensor | None,
    out_BLE: Tensor,
    kept: Tensor,
    shape: Windows,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `qk` and `v`; `out` and `kept` are what the forward returned."""
    grad_BLE, qk_BLE, v_BLE, order_BHNL, out_BLE = (
        x.contiguous() for x in (grad_BLE, qk_BLE, v_BLE, order_BHNL, out_BLE)
    )
    num_heads, rounds = order_BHNL.shape[1:3]
    launch = _Launch(qk_BLE, num_heads, rounds, key_mask_BL, shape)
    delta_BHL = launch.products(grad_BLE, out_BLE)
    share_BHNL = None
    if rounds > 1:
        top, log = kept.unbind(-1)
        share_BHNL = (top - top.amax(dim=2, keepdim=True) + log).softmax(dim=2)
    dtype = qk_BLE.dtype if rounds == 1 else torch.float32
    into = torch.empty_like(qk_BLE, dtype=dtype), None, torch.empty_like(v_BLE, dtype=dtype)
    for turn in range(rounds):
        statistics = (kept, share_BHNL, delta_BHL)
        launch.attend_backward(turn, (qk_BLE, qk_BLE, v_BLE), order_BHNL, grad_BLE, statistics, into)
    return into[0].to(qk_BLE.dtype), into[2].to(v_BLE.dtype)
