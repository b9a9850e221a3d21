"""The stack of Reformer layers with the final norm over both residual streams."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.models.reformer.attention_maps import ChunkedAttentions
from modelwright.models.reformer.call import ForwardCall, LayerCall
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.layer import ReformerLayer, token_slices
from modelwright.models.reformer.reversible import outside_compilers, reversible_stack, run_layer
from modelwright.nn.dropout import Dropout
from modelwright.nn.norm import LayerNorm
from modelwright.nn.tracing import is_transformed


class ReformerEncoder(nn.Module):
    """Runs the layers on two fp32 streams, which both start as the embeddings.

    Shapes: (B, L, 2, E) -> (B, L, 2E), with the second stream after each layer and attention probabilities if asked.
    The stack changes its input in place and, with gradients, recomputes activations rather than storing them. It is
    an ordinary one when the intermediate results themselves are asked for, a layer or branch has forward hooks, a
    head mask wants a gradient, or a compiler traces an evaluation: then modules are called whole, and all gradients
    exist.
    """

    def __init__(self, config: ReformerConfig, **factory: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ReformerLayer(config, kind, **factory) for kind in config.attn_layers])
        self.layer_norm = LayerNorm(2 * config.hidden_size, eps=config.layer_norm_eps, **factory)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.recompute_attention = config.recompute_attention

    def forward(
        self, streams: Tensor, call: ForwardCall, head_mask: Tensor | None, *, output_hidden_states: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        """Return the normed streams, and per layer the hidden states and attentions that were asked for."""
        calls = [
            LayerCall(index, block.training, None if head_mask is None else head_mask[index])
            for index, block in enumerate(self.layers)
        ]
        hidden_states: list[Tensor] = []
        attentions: list[Tensor] = []
        masked_with_grad = head_mask is not None and head_mask.requires_grad
        seen = output_hidden_states or call.return_attentions or masked_with_grad or call.keeps_states
        if not seen and not _is_traced() and not any(map(_has_hooks, self.layers)):
            blocks = list(self.layers)
            run: Any = outside_compilers if torch.compiler.is_compiling() else reversible_stack
            streams = run(blocks, streams, call, calls, recompute_attention=self.recompute_attention)
        else:
            x1, x2 = streams.unbind(dim=2)
            hidden_states.append(x2.contiguous())
            for block, layer in zip(self.layers, calls, strict=True):
                x1, x2, probs = block(partial(run_layer, call=call, layer=layer), x1, x2)
                if output_hidden_states:
                    hidden_states.append(x2)
                if probs is not None:
                    attentions.append(probs)
            streams = torch.stack([x1, x2], dim=2)
            del x1, x2
        last = self.dropout(self._normed(streams.flatten(2)))
        return (
            last,
            tuple(state.to(last.dtype) for state in hidden_states) if output_hidden_states else None,
            ChunkedAttentions.trimmed(attentions, [layer.places for layer in calls if layer.places])
            if call.return_attentions
            else None,
        )

    def _normed(self, streams: Tensor) -> Tensor:
        """Return the normed streams (B, L, 2E), without gradients in their own memory."""
        norm = self.layer_norm
        watched = norm._forward_hooks or norm._forward_pre_hooks
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or watched or norm.weight.dtype != streams.dtype:
            normed: Tensor = norm(streams)
            return normed
        for _, part in token_slices(streams):
            streams[:, part] = norm(streams[:, part])
        return streams


def _is_traced() -> bool:
    """Return whether a transform or a compiler needs to see the layers.

    A compiler does not while training, whose backward is the stack's.
    """
    return (
        is_transformed()
        or torch.compiler.is_exporting()
        or (torch.compiler.is_compiling() and not torch.is_grad_enabled())
    )


def _has_hooks(block: nn.Module) -> bool:
    """Return whether somebody watches a layer, a branch, or attention itself, being called."""
    assert isinstance(block, ReformerLayer)
    if any(not _is_of_sharding(hook) for hook in _hooks(block)):
        return True
    return any(_hooks(part) for part in (block.attention, block.attention.self_attention, block.feed_forward))


def _hooks(module: nn.Module) -> list[Callable[..., Any]]:
    return [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]


def _is_of_sharding(hook: Callable[..., Any]) -> bool:
    """Return whether a hook is one of `torch.distributed.fsdp.fully_shard`, which looks at no value."""
    return type(getattr(hook, "__self__", None)).__module__.startswith("torch.distributed.fsdp.")
