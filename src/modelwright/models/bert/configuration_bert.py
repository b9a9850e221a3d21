"""The configuration of BERT models."""

from collections.abc import Callable
from typing import Any

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError

POSITION_TYPES = ("absolute", "relative_key", "relative_key_query")


class BertConfig(PretrainedConfig):
    """Sizes and switches of a BERT; the defaults are those of bert-base-uncased.

    `position_embedding_type` is "absolute", "relative_key" (Shaw et al. 2018) or "relative_key_query" (Huang et al.
    2020, method 4). `is_decoder` makes attention causal; `add_cross_attention` then adds attention to an encoder's
    states. `classifier_dropout` is the dropout before a classifier, None for `hidden_dropout_prob`.
    `chunk_size_feed_forward` computes the feed-forward in slices of that many tokens, 0 for all at once.
    Raises ConfigError for heads that do not divide `hidden_size`, another position type, and cross-attention in a
    model that is no decoder. Source: Devlin et al. 2019.
    """

    model_type = "bert"

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str | Callable[..., Any] = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        pad_token_id: int | None = 0,
        position_embedding_type: str = "absolute",
        use_cache: bool = True,
        classifier_dropout: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.position_embedding_type = position_embedding_type
        self.use_cache = use_cache
        self.classifier_dropout = classifier_dropout
        super().__init__(pad_token_id=pad_token_id, **kwargs)
        where = type(self).__name__
        if num_attention_heads < 1 or hidden_size % num_attention_heads:
            raise ConfigError(
                f"{where}: expected hidden_size to be a multiple of num_attention_heads, got hidden_size={hidden_size},"
                f" num_attention_heads={num_attention_heads}"
            )
        if position_embedding_type not in POSITION_TYPES:
            raise ConfigError(
                f"{where}.position_embedding_type: expected one of {', '.join(POSITION_TYPES)}, "
                f"got {position_embedding_type!r}"
            )
        if self.add_cross_attention and not self.is_decoder:
            raise ConfigError(f"{where}: add_cross_attention=True is for decoders; set is_decoder=True too")
