"""What models can say about themselves (sizes, dtype, device, cost), and the 4.x helpers for masks."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger
from modelwright.placement.offload import execution_device, offloaded_values
from modelwright.pretrained import attention_masks, flops, memory_hooks

logger = get_logger(__name__)


class ModuleUtilsMixin:
    """Methods of every model that need nothing but its parameters, its config and torch."""

    # What the class that mixes this in brings along.
    config: Any
    main_input_name: str

    @property
    def device(self) -> torch.device:
        """The device of the first parameter (or buffer; "cpu" for a model without either).

        Of a model whose first parameter is offloaded, the device that it runs on.
        """
        device = next((tensor.device for tensor in _tensors(self)), torch.device("cpu"))
        return (execution_device(_module(self)) if device.type == "meta" else None) or device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first floating-point parameter (or buffer; torch's default without any)."""
        return next(
            (tensor.dtype for tensor in _tensors(self) if tensor.is_floating_point()), torch.get_default_dtype()
        )

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Count the parameters' elements; a tied parameter counts once.

        `exclude_embeddings` leaves out the tables of `nn.Embedding` modules, and with them what is tied to them.
        """
        parameters = _distinct_parameters(self)
        if exclude_embeddings:
            tables = {f"{name}.weight" for name, module in _module(self).named_modules(remove_duplicate=False)
                      if isinstance(module, nn.Embedding)}  # fmt: skip
            parameters = [(names, parameter) for names, parameter in parameters if tables.isdisjoint(names)]
        return sum(parameter.numel() for _, parameter in parameters if parameter.requires_grad or not only_trainable)

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Return the bytes of all parameters and, unless `return_buffers` is False, buffers; tied ones count once."""
        tensors: list[Tensor] = [parameter for _, parameter in _distinct_parameters(self)]
        if return_buffers:
            tensors += list(_module(self).buffers())
        return sum(tensor.nbytes for tensor in tensors)

    def estimate_tokens(self, input_dict: Mapping[str, Tensor | Any]) -> int:
        """Return the number of elements of the main input in `input_dict`, or 0 (said once) if it is not there."""
        if self.main_input_name in input_dict:
            return int(input_dict[self.main_input_name].numel())
        logger.warning_once(
            f"{type(self).__name__}.estimate_tokens: expected the main input {self.main_input_name!r} among "
            f"{', '.join(sorted(input_dict)) or 'no inputs'}; counting 0 tokens"
        )
        return 0

    def floating_point_ops(self, input_dict: Mapping[str, Tensor | Any], exclude_embeddings: bool = True) -> int:
        """Estimate the floating-point operations of a forward and a backward: 6 x tokens x parameters.

        Attention scores, quadratic in the length, are not counted: see `count_floating_point_ops`.
        Source: Kaplan et al. 2020, section 2.1.
        """
        return 6 * self.estimate_tokens(input_dict) * self.num_parameters(exclude_embeddings=exclude_embeddings)

    def count_floating_point_ops(self, input_dict: Mapping[str, Tensor | Any], backward: bool = True) -> int:
        """Run the model on `input_dict`, with its backward unless that is False, and count what it computes.

        A multiplication and an addition are two operations. Counted are matrix products, convolutions and attention
        kernels (a causal one as if it were full), and what is recomputed by gradient checkpointing; not elementwise
        work. Gradients (`grad`) and torch's random stream stay as they are. Raises InputError for the backward of a
        model with nothing to train.
        """
        return flops.count(_module(self), input_dict, backward)

    def add_memory_hooks(self) -> None:
        """Record in `mem_rss_diff` of each submodule by how many bytes its forwards make the process grow.

        Raises MissingPackageError at the first forward if psutil is not installed.
        """
        memory_hooks.add_hooks(_module(self))

    def reset_memory_hooks_state(self) -> None:
        """Set `mem_rss_diff` of every submodule to zero."""
        memory_hooks.reset(_module(self))

    def invert_attention_mask(self, encoder_attention_mask: Tensor) -> Tensor:
        """Turn ones (attend) and zeros into what is added to scores: 0 and the lowest number of the model's dtype.

        (B, S) becomes (B, 1, 1, S), (B, T, S) becomes (B, 1, T, S); another rank raises InputError.
        """
        return attention_masks.additive(attention_masks.broadcastable(encoder_attention_mask), self.dtype)

    @staticmethod
    def create_extended_attention_mask_for_decoder(
        input_shape: tuple[int, ...], attention_mask: Tensor, device: torch.device | None = None
    ) -> Tensor:
        """Return (B, 1, T, S), ones where a token may attend: not to later tokens, nor where the mask (B, S) is 0.

        A mask longer than `input_shape` (B, T) begins with a prefix, such as cached tokens, that all may attend to.
        """
        mask = attention_masks.causal_and_padding(attention_mask, input_shape[1])
        return mask if device is None else mask.to(device)

    def get_extended_attention_mask(
        self,
        attention_mask: Tensor,
        input_shape: tuple[int, ...],
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Return what is added to attention scores for a mask (B, S), made causal in a decoder, or (B, T, S) as it is.

        `input_shape` is (B, T); `dtype` is the model's if None. Raises InputError for a mask of another rank.
        """
        if attention_mask.dim() not in (2, 3):
            raise InputError(
                f"attention_mask: expected the shape (batch, keys) or (batch, queries, keys) for an input of shape "
                f"{tuple(input_shape)}, got {tuple(attention_mask.shape)}"
            )
        if attention_mask.dim() == 2 and self.config.is_decoder:
            mask = self.create_extended_attention_mask_for_decoder(input_shape, attention_mask)
        else:
            mask = attention_masks.broadcastable(attention_mask)
        mask = attention_masks.additive(mask, dtype or self.dtype)
        return mask if device is None else mask.to(device)

    def get_head_mask(
        self, head_mask: Tensor | None, num_hidden_layers: int, is_attention_chunked: bool = False
    ) -> Tensor | list[None]:
        """Return one mask per layer: (N, 1, H, 1, 1) from (H,) or (N, H), or a list of None.

        1 keeps a head, 0 drops it. `is_attention_chunked` adds one more axis of size 1 at the end.
        Raises InputError for another shape.
        """
        if head_mask is None:
            return [None] * num_hidden_layers
        mask = attention_masks.head_mask_per_layer(head_mask, num_hidden_layers, self.dtype)
        return mask.unsqueeze(-1) if is_attention_chunked else mask


def _module(model: ModuleUtilsMixin) -> nn.Module:
    return cast(nn.Module, model)


def _distinct_parameters(model: ModuleUtilsMixin) -> list[tuple[list[str], nn.Parameter]]:
    """Return every parameter once, with its names; offloaded ones are on meta, and tied still."""
    values = offloaded_values(model)
    found: dict[int, tuple[list[str], nn.Parameter]] = {}
    for name, parameter in _module(model).named_parameters(remove_duplicate=False):
        found.setdefault(id(values.get(name, parameter)), ([], parameter))[0].append(name)
    return list(found.values())


def _tensors(model: ModuleUtilsMixin) -> Iterator[Tensor]:
    yield from _module(model).parameters()
    yield from _module(model).buffers()
