"""What BERT adds up before its first layer: embeddings of words, positions and token types.

Shapes: B batch, T tokens, E hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.models.bert.configuration_bert import BertConfig
from modelwright.nn.tracing import is_jit_traced


class BertEmbeddings(nn.Module):
    """Words, absolute positions (unless positions are relative) and token types, summed and normalised."""

    position_ids: Tensor
    token_type_ids: Tensor

    def __init__(self, config: BertConfig, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id, **factory)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width, **factory)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width, **factory)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps, **factory)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.position_embedding_type = getattr(config, "position_embedding_type", "absolute")
        # Model files that derive from this class read both.
        for name in ("position_ids", "token_type_ids"):
            empty = torch.empty(1, config.max_position_embeddings, dtype=torch.long, device=device)
            self.register_buffer(name, empty, persistent=False)
        if not self.position_ids.is_meta:  # there torch would import its compiler to count
            self.init_buffers()

    def init_buffers(self) -> None:
        """Number the positions again, and zero the token types."""
        torch.arange(self.position_ids.shape[1], out=self.position_ids.view(-1))
        self.token_type_ids.zero_()

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values_length: int = 0,
    ) -> Tensor:
        """Return (B, T, E) for ids (B, T) or embeddings (B, T, E) that follow `past_key_values_length` tokens.

        Token types are zeros if not given. Raises InputError for more tokens than there are positions.
        """
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        length = words.shape[1]
        if position_ids is None:
            last = past_key_values_length + length
            if not is_jit_traced() and last > self.position_ids.shape[1]:
                raise InputError(
                    f"BERT: expected at most {self.position_ids.shape[1]} tokens (max_position_embeddings), got "
                    f"{length} after {past_key_values_length} in the cache"
                )
            position_ids = self.position_ids[:, past_key_values_length:last]
        if token_type_ids is None:
            token_type_ids = self.token_type_ids[:, :length]
        hidden = words + self.token_type_embeddings(token_type_ids)
        if self.position_embedding_type == "absolute":
            hidden = hidden + self.position_embeddings(position_ids)
        embedded: Tensor = self.dropout(self.LayerNorm(hidden))
        return embedded
