"""Local self-attention: each chunk attends to itself and its neighbours (Kitaev et al. 2020, appendix; Trax).

Shapes: B batch, L tokens, H heads, D head size, G = B*H, C chunks, Q tokens of a chunk, W of its window, E hidden size.
"""

import torch
from torch import Tensor, nn

from modelwright.models.reformer.call import ForwardCall, LayerCall
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.windows import MASKED_BIAS, attend_in_windows, look_around, merge_heads, split_heads


def local_attention(
    q_BHLD: Tensor,
    k_BHLD: Tensor,
    v_BHLD: Tensor,
    *,
    chunk_length: int,
    num_before: int,
    num_after: int,
    causal: bool,
    key_mask_BL: Tensor | None,
    head_mask_H: Tensor | None,
    dropout: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Attend within chunks and their neighbours; return (B, H, L, D) and the probabilities (B, H, C, Q, W)."""
    batch, heads, length, _ = q_BHLD.shape
    chunks = length // chunk_length

    def windows(x: Tensor) -> Tensor:
        return look_around(x.reshape(-1, chunks, chunk_length, *x.shape[3:]), num_before, num_after)

    bias: Tensor | None = None
    if causal:
        position_1CQ = torch.arange(length, device=q_BHLD.device).view(1, chunks, chunk_length)
        future = position_1CQ.unsqueeze(-1) < look_around(position_1CQ, num_before, num_after).unsqueeze(-2)
        bias = torch.zeros(future.shape, device=q_BHLD.device).masked_fill_(future, MASKED_BIAS)
    if key_mask_BL is not None:
        mask_BCW = look_around(key_mask_BL.view(batch, chunks, chunk_length), num_before, num_after)
        mask_GC1W = mask_BCW.repeat_interleave(heads, dim=0).unsqueeze(-2)
        bias = (torch.zeros((), device=q_BHLD.device) if bias is None else bias).masked_fill(~mask_GC1W, MASKED_BIAS)
    out_GCQD, _, probs_GCQW = attend_in_windows(
        q_BHLD.reshape(-1, chunks, chunk_length, q_BHLD.shape[-1]),
        windows(k_BHLD * q_BHLD.shape[-1] ** -0.5),
        windows(v_BHLD),
        bias,
        dropout=dropout,
        generator=generator,
        head_scale_G=None if head_mask_H is None else head_mask_H.repeat(batch),
        need_lse=False,
    )
    return out_GCQD.reshape(q_BHLD.shape), probs_GCQW.view(batch, heads, *probs_GCQW.shape[1:])


class LocalSelfAttention(nn.Module):
    """Local self-attention with its three projections, without biases.

    Shapes: (B, L, E) -> (B, L, H*D). Sequences no longer than a chunk are attended in full.
    """

    def __init__(
        self, config: ReformerConfig, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.chunk_length = config.local_attn_chunk_length
        self.num_before = config.local_num_chunks_before
        self.num_after = config.local_num_chunks_after
        self.causal = config.is_decoder
        self.dropout = config.local_attention_probs_dropout_prob
        width = config.num_attention_heads * config.attention_head_size
        self.query = nn.Linear(config.hidden_size, width, bias=False, device=device, dtype=dtype)
        self.key = nn.Linear(config.hidden_size, width, bias=False, device=device, dtype=dtype)
        self.value = nn.Linear(config.hidden_size, width, bias=False, device=device, dtype=dtype)

    def forward(self, x_BLE: Tensor, call: ForwardCall, layer: LayerCall) -> tuple[Tensor, Tensor]:
        """Return the output and the probabilities."""
        whole = x_BLE.shape[1] <= self.chunk_length
        out_BHLD, probs = local_attention(
            split_heads(self.query(x_BLE), self.num_heads),
            split_heads(self.key(x_BLE), self.num_heads),
            split_heads(self.value(x_BLE), self.num_heads),
            chunk_length=x_BLE.shape[1] if whole else self.chunk_length,
            num_before=0 if whole else self.num_before,
            num_after=0 if whole else self.num_after,
            causal=self.causal,
            key_mask_BL=call.key_mask,
            head_mask_H=layer.head_mask,
            dropout=self.dropout,
            generator=layer.generator(call, "attention_probs", x_BLE.device),
        )
        return merge_heads(out_BHLD), probs.squeeze(2) if whole else probs
