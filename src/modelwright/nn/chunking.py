"""Apply a function to slices of its inputs, to trade time for a smaller peak of memory."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.nn.tracing import is_tracing

# Tokens whose states between the halves of a usual feed-forward fit into the caches of a CPU.
_BLOCK = 2048


def apply_chunking_to_forward(
    forward_fn: Callable[..., Tensor], chunk_size: int, chunk_dim: int, *input_tensors: Tensor
) -> Tensor:
    """Call `forward_fn` on slices of `chunk_size` along `chunk_dim` and concatenate the results along `chunk_dim`.

    Equal to the direct call if `forward_fn` treats the positions of `chunk_dim` one by one; 0 means the direct call.
    Raises AssertionError without tensors, and InputError if `forward_fn` takes another number of arguments, the tensors
    differ in size along `chunk_dim`, or that size is no multiple of `chunk_size`.
    Source: Kitaev et al. 2020, section 3 ("Chunking").
    """
    if not input_tensors:
        # Upstream's type: 4.x code may catch it.
        raise AssertionError("apply_chunking_to_forward: expected at least one tensor to cut, got none")
    expected = len(inspect.signature(forward_fn).parameters)
    if expected != len(input_tensors):
        raise InputError(
            f"apply_chunking_to_forward: the function takes {expected} arguments, got {len(input_tensors)} tensors"
        )
    if chunk_size <= 0:
        return forward_fn(*input_tensors)
    sizes = [tensor.shape[chunk_dim] for tensor in input_tensors]
    if len(set(sizes)) != 1:
        raise InputError(
            f"apply_chunking_to_forward: expected tensors of one size along dimension {chunk_dim}, got sizes {sizes}"
        )
    if sizes[0] % chunk_size:
        raise InputError(
            f"apply_chunking_to_forward: expected a size along dimension {chunk_dim} that is a multiple of the chunk "
            f"size {chunk_size}, got {sizes[0]}; change the chunk size or pad the input"
        )
    slices = zip(*(torch.split(tensor, chunk_size, dim=chunk_dim) for tensor in input_tensors), strict=True)
    return torch.cat([forward_fn(*parts) for parts in slices], dim=chunk_dim)


def apply_in_blocks(function: Callable[[Tensor], Tensor], x_BTE: Tensor, size: int = 0) -> Tensor:
    """Return `function(x)`, computed for `size` tokens of the batch at once; it must treat tokens one by one.

    With 0, blocks are made where they are faster: on a CPU, for many tokens, without gradients (which would keep all
    that lies between anyway), in a call that is not recorded.
    """
    if not size:
        if is_tracing() or torch.is_grad_enabled() or x_BTE.device.type != "cpu":
            return function(x_BTE)
        size = _BLOCK
    tokens_1NE = x_BTE.flatten(0, 1)[None]
    if tokens_1NE.shape[1] <= size:
        return function(x_BTE)
    parts = [function(part) for part in torch.split(tokens_1NE, size, dim=1)]
    return torch.cat(parts, dim=1).view(*x_BTE.shape[:2], -1)
