"""Which tensors of a state dict lie in the same memory, judged by their bytes, not by their storage objects.

(A storage can hold a whole mapped file of unrelated tensors.)
"""

from collections.abc import Iterable, Mapping, Sequence

import torch


def same_elements(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Tell whether both are the same elements of the same memory, not merely equal."""
    return (
        left.numel() > 0
        and left.device == right.device
        and left.data_ptr() == right.data_ptr()
        and (left.dtype, left.shape, left.stride()) == (right.dtype, right.shape, right.stride())
    )


def drop_tied(state_dict: Mapping[str, torch.Tensor], tied: Iterable[Sequence[str]]) -> dict[str, torch.Tensor]:
    """Return `state_dict` without the later names of each group of `tied` that really are the first one."""
    dropped = {
        name
        for group in tied
        for name in group[1:]
        if group[0] in state_dict and name in state_dict and same_elements(state_dict[group[0]], state_dict[name])
    }
    return {name: tensor for name, tensor in state_dict.items() if name not in dropped}


def overlapping(state_dict: Mapping[str, torch.Tensor]) -> dict[tuple[str, ...], int]:
    """Return the groups of two or more names whose memory overlaps, with the bytes that each group covers."""
    spans = sorted(
        (str(tensor.device), tensor.data_ptr(), tensor.data_ptr() + _extent(tensor), name)
        for name, tensor in state_dict.items()
        if tensor.numel()
    )
    groups: list[tuple[str, int, int, list[str]]] = []
    for device, start, end, name in spans:
        if groups and groups[-1][0] == device and start < groups[-1][2]:
            _, first, last, names = groups.pop()
            groups.append((device, first, max(last, end), [*names, name]))
        else:
            groups.append((device, start, end, [name]))
    order = {name: position for position, name in enumerate(state_dict)}
    return {
        tuple(sorted(names, key=order.__getitem__)): end - start for _, start, end, names in groups if len(names) > 1
    }


def own_memory(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors on the CPU, contiguous, no two in overlapping memory: what safetensors can write."""
    prepared = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    for names in overlapping(prepared):
        for name in names[1:]:
            prepared[name] = prepared[name].clone()
    return prepared


def compact_storages(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors on the CPU with storages no larger than they are, sharing kept: what torch.save should see.

    torch.save writes whole storages; a view of one row, or a parameter mapped from a file, would drag all of it along.
    """
    prepared = {name: tensor.detach().to("cpu") for name, tensor in tensors.items()}
    shared = {name: names for names in overlapping(prepared) for name in names}
    for name, tensor in list(prepared.items()):
        if tensor.untyped_storage().nbytes() <= _extent(tensor) or prepared[name] is not tensor:
            continue
        group = shared.get(name, (name,))
        if all(same_elements(tensor, prepared[other]) or other == name for other in group):
            copy = tensor.clone()
            for other in group:
                prepared[other] = copy
    return prepared


def _extent(tensor: torch.Tensor) -> int:
    """Return the bytes from the first to the last element, gaps included."""
    if not tensor.numel():
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()
