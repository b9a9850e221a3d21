"""ProphetNet's self-attention of the main stream and of the streams that predict.

Legend: B batch, T tokens, K streams in the hidden states (the main one first), G streams that ask, H heads, D head
size, N buckets, S main keys, E hidden size.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.attention.common import own_heads
from modelwright.attention.interface import implementation_of
from modelwright.core.errors import InputError
from modelwright.models.prophetnet.configuration_prophetnet import PAPER, TRANSFORMERS, ProphetNetConfig
from modelwright.models.prophetnet.ngram_kernel import Whole, attend_by_places, attend_one, attend_whole, suits_one
from modelwright.models.prophetnet.streams import Streams
from modelwright.nn.decode_layout import apply_each, apply_linear, are_packed
from modelwright.nn.pruning import find_pruneable_heads_and_indices, prune_linear_layer


class ProphetNetNgramSelfAttention(nn.Module):
    """Attention of all streams to the main stream, with a bias by distance that each query's state makes.

    All streams share the weights. Its heads can be pruned. Source: Qi et al. 2020, section 3.2.
    """

    _siblings: tuple[str, ...] = ("query_proj", "relative_pos_embeddings", "key_proj", "value_proj")

    def __init__(self, config: ProphetNetConfig, layer_idx: int | None = None, **factory: Any) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = 0 if layer_idx is None else layer_idx
        self.num_attn_heads = config.num_decoder_attention_heads
        self.head_dim = config.hidden_size // self.num_attn_heads
        self.num_buckets = config.num_buckets
        self.relative_max_distance = config.relative_max_distance
        self.attention_dropout = config.attention_dropout
        E = config.hidden_size
        self.key_proj = nn.Linear(E, E, **factory)
        self.value_proj = nn.Linear(E, E, **factory)
        self.query_proj = nn.Linear(E, E, **factory)
        self.out_proj = nn.Linear(E, E, **factory)
        # One number for each bucket and head, the heads innermost.
        self.relative_pos_embeddings = nn.Linear(E, self.num_buckets * self.num_attn_heads, **factory)
        self.dropout = nn.Dropout(config.dropout)
        self.pruned_heads: set[int] = set()

    @property
    def scrambles(self) -> bool:
        """Whether numbers of the predict streams are read from other places, as transformers does."""
        return bool(self.config.relative_bias_layout == TRANSFORMERS)

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Take heads away, numbered as in the unpruned layer; those that are gone already are left out."""
        H = self.num_attn_heads
        new, index = find_pruneable_heads_and_indices(heads, H, self.head_dim, self.pruned_heads)
        if not new:
            return
        for name in ("query_proj", "key_proj", "value_proj"):
            setattr(self, name, prune_linear_layer(getattr(self, name), index))
        self.out_proj = prune_linear_layer(self.out_proj, index, dim=1)
        numbers = self.relative_pos_embeddings.weight.shape[0] // self.num_buckets
        if (not self.scrambles and numbers == H) or numbers < H + len(self.pruned_heads):
            # Scrambled, the numbers of a head that is gone are read by others.
            kept_H = index[:: self.head_dim] // self.head_dim
            kept_NH = torch.arange(self.num_buckets)[:, None] * H + kept_H
            self.relative_pos_embeddings = prune_linear_layer(self.relative_pos_embeddings, kept_NH.flatten())
        self.num_attn_heads -= len(new)
        self.pruned_heads |= new

    def forward(
        self,
        hidden_states: Tensor,
        streams: Streams,
        past_key_values: Any = None,
        layer_head_mask: Tensor | None = None,
        output_attentions: bool = False,
        cache_position: Tensor | None = None,
        main_asks: bool = True,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return (B, G * T, E), stream after stream, and both kinds of probabilities if asked for.

        `hidden_states` are (B, K * T, E). With `main_asks` False the main stream has keys but no queries, so G = K - 1.
        Probabilities are those of the main stream, (B, H, T, S), and of the others, (B, K - 1, H, T, S + T), where each
        query's own key is one of the last T.
        """
        T, asking = streams.tokens, hidden_states
        asks, keeps = (self.query_proj, self.relative_pos_embeddings), (self.key_proj, self.value_proj)
        if not main_asks:
            asking = hidden_states[:, T:]
        if main_asks or (T == 1 and are_packed(*asks, *keeps)):
            # Of few rows one product costs less than two, even if some of its results are not used.
            q, r, k, v = apply_each(hidden_states, *asks, *keeps)
            if not main_asks:
                q, r = q[:, T:], r[:, T:]
        else:
            q, r = apply_each(asking, *asks)
            k, v = apply_each(hidden_states, *keeps)
        q, k, v = (self._heads(x, T) for x in (q, k, v))
        r = self._bucket_numbers(r, T, main_asks)
        main_k, main_v = k[:, 0], v[:, 0]
        if past_key_values is not None:
            cache = getattr(past_key_values, "self_attention_cache", past_key_values)
            main_k, main_v = cache.update(main_k, main_v, self.layer_idx, {"cache_position": cache_position})
        scale, dropout = self.head_dim**-0.5, self.attention_dropout if self.training else 0.0
        weights = None
        if self._is_whole(streams, output_attentions):
            seed = int(torch.randint(2**62, ())) if dropout else None
            call = Whole(streams.diagonals, streams.hidden, scale, dropout, seed)
            attended = attend_whole(q, r, k, v, call)
        else:
            places = streams.places(main_k.shape[2])
            states = (q, r, main_k, main_v, k[:, 1:], v[:, 1:])
            if dropout or output_attentions or not suits_one(q, places):
                attended, weights = attend_by_places(*states, places, scale, dropout)
            else:
                attended = attend_one(*states, places, scale)
        if layer_head_mask is not None:
            scale_1H11 = own_heads(f"layer {self.layer_idx}", layer_head_mask, q.shape[2], self.pruned_heads)
            attended = attended * scale_1H11.view(-1, 1)
            weights = None if weights is None else weights * scale_1H11[..., None]
        output = self.dropout(apply_linear(self.out_proj, attended.reshape(*asking.shape[:2], -1)))
        return (output, *_split(weights)) if output_attentions and weights is not None else (output, None, None)

    def _heads(self, states: Tensor, tokens: int) -> Tensor:
        """(B, K * T, H * D) -> (B, K, H, T, D)."""
        return states.view(states.shape[0], -1, tokens, self.num_attn_heads, self.head_dim).transpose(2, 3)

    def _bucket_numbers(self, numbers: Tensor, tokens: int, main_asks: bool) -> Tensor:
        """(B, G * T, N * H) -> (B, G, H, T, N)."""
        split = numbers.view(numbers.shape[0], -1, tokens, self.num_buckets, numbers.shape[-1] // self.num_buckets)
        r_BGHTN = split.permute(0, 1, 4, 2, 3)
        has_all = r_BGHTN.shape[2] == self.num_attn_heads + len(self.pruned_heads)
        # As transformers >= 4.27: the predict streams' numbers in the order of tokens, streams, heads, read as if it
        # were streams, heads, tokens, which of one token is the same.
        first = 1 if main_asks else 0
        if self.scrambles and tokens > 1:
            if not has_all:
                raise InputError(
                    f"layer {self.layer_idx}: heads were pruned with relative_bias_layout={PAPER!r}, and with them "
                    f"numbers that {TRANSFORMERS!r} reads; set config.relative_bias_layout before they are pruned"
                )
            predict = r_BGHTN[:, first:].permute(0, 3, 1, 2, 4).reshape(r_BGHTN[:, first:].shape)
            r_BGHTN = torch.cat([r_BGHTN[:, :first], predict], dim=1)
        if self.pruned_heads and has_all:
            kept = [head for head in range(r_BGHTN.shape[2]) if head not in self.pruned_heads]
            r_BGHTN = r_BGHTN[:, :, kept]
        return r_BGHTN

    def _is_whole(self, streams: Streams, output_attentions: bool) -> bool:
        wanted = not output_attentions and implementation_of(self.config) != "eager"
        return wanted and streams.tokens > 1 and streams.is_plain


def _split(weights_BHGTU: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probabilities of the main stream (B, H, T, S) and, own keys on a diagonal, (B, G, H, T, S + T)."""
    main, predict = weights_BHGTU[:, :, 0], weights_BHGTU[:, :, 1:].transpose(1, 2)
    return main[..., 1:], torch.cat([predict[..., 1:], torch.diag_embed(predict[..., 0])], dim=-1)
