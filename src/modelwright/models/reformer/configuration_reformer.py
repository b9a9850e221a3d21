"""The configuration of Reformer models."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError

ATTENTION_TYPES = ("local", "lsh")
ATTENTION_MODES = ("lsh", "exact", "auto")
_SIZES = (
    "attention_head_size",
    "feed_forward_size",
    "hidden_size",
    "local_attn_chunk_length",
    "lsh_attn_chunk_length",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hashes",
    "vocab_size",
)

_COUNTS = (
    "chunk_size_lm_head",
    "local_num_chunks_after",
    "local_num_chunks_before",
    "lsh_num_chunks_after",
    "lsh_num_chunks_before",
)


class ReformerConfig(PretrainedConfig):
    """Sizes and switches of a Reformer; the defaults are those of google/reformer-crime-and-punishment's shape.

    Lengths and chunk lengths count tokens, probabilities lie in [0, 1]. `num_hidden_layers` is the length of
    `attn_layers`, whose entries are "local" or "lsh". `num_buckets` is an even number, a list of even factors, or None:
    then the first training forward chooses it from its sequence length and writes it here (see
    `modelwright.models.reformer.hashing.choose_num_buckets`), so that it is saved and reused.
    `hash_seed` fixes the random rotations of LSH; the value draws the same rotations as upstream.
    `attention_mode` says what LSH layers compute: "lsh", "exact" (the same attention of shared queries and keys, over
    all tokens), or "auto": exact up to the length at which it costs more (see `lsh_attention.needs_hashing`).
    `recompute_attention` makes training keep nothing of the attentions: less memory, more time.
    `local_chunk_length`, `lsh_chunk_length`, `max_embedding_size` and `n_layers` are other names of
    `local_attn_chunk_length`, `lsh_attn_chunk_length`, `max_position_embeddings` and `num_hidden_layers`.
    Raises ConfigError for attention types that do not exist, for sizes that are none, and for another number of layers
    than `attn_layers` has. Source: Kitaev et al. 2020.
    """

    model_type = "reformer"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_buckets_states"]
    attribute_map: ClassVar[dict[str, str]] = {
        "local_chunk_length": "local_attn_chunk_length",
        "lsh_chunk_length": "lsh_attn_chunk_length",
        "max_embedding_size": "max_position_embeddings",
        "n_layers": "num_hidden_layers",
    }

    def __init__(
        self,
        attention_head_size: int = 64,
        attn_layers: Sequence[str] = ("local", "lsh", "local", "lsh", "local", "lsh"),
        axial_norm_std: float = 1.0,
        axial_pos_embds: bool = True,
        axial_pos_shape: Sequence[int] = (64, 64),
        axial_pos_embds_dim: Sequence[int] = (64, 192),
        chunk_size_lm_head: int = 0,
        eos_token_id: int | None = 2,
        feed_forward_size: int = 512,
        hash_seed: int | None = None,
        hidden_act: str | Callable[..., Any] = "relu",
        hidden_dropout_prob: float = 0.05,
        hidden_size: int = 256,
        initializer_range: float = 0.02,
        is_decoder: bool = False,
        layer_norm_eps: float = 1e-12,
        local_num_chunks_before: int = 1,
        local_num_chunks_after: int = 0,
        local_attention_probs_dropout_prob: float = 0.05,
        local_attn_chunk_length: int = 64,
        lsh_attn_chunk_length: int = 64,
        lsh_attention_probs_dropout_prob: float = 0.0,
        lsh_num_chunks_before: int = 1,
        lsh_num_chunks_after: int = 0,
        max_position_embeddings: int = 4096,
        num_attention_heads: int = 12,
        num_buckets: int | Sequence[int] | None = None,
        num_hashes: int = 1,
        pad_token_id: int | None = 0,
        vocab_size: int = 320,
        tie_word_embeddings: bool = False,
        use_cache: bool = True,
        classifier_dropout: float | None = None,
        attention_mode: str = "lsh",
        recompute_attention: bool = False,
        **kwargs: Any,
    ) -> None:
        self.attention_head_size = attention_head_size
        self.attn_layers = _checked_layers(attn_layers)
        self.axial_norm_std = axial_norm_std
        self.axial_pos_embds = axial_pos_embds
        # Tuples here, lists elsewhere: upstream's types.
        self.axial_pos_shape = _as_tuple("axial_pos_shape", axial_pos_shape)
        self.axial_pos_embds_dim = _as_tuple("axial_pos_embds_dim", axial_pos_embds_dim)
        self.chunk_size_lm_head = chunk_size_lm_head
        self.feed_forward_size = feed_forward_size
        self.hash_seed = hash_seed
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.hidden_size = hidden_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.local_num_chunks_before = local_num_chunks_before
        self.local_num_chunks_after = local_num_chunks_after
        self.local_attention_probs_dropout_prob = local_attention_probs_dropout_prob
        self.local_attn_chunk_length = local_attn_chunk_length
        self.lsh_attn_chunk_length = lsh_attn_chunk_length
        self.lsh_attention_probs_dropout_prob = lsh_attention_probs_dropout_prob
        self.lsh_num_chunks_before = lsh_num_chunks_before
        self.lsh_num_chunks_after = lsh_num_chunks_after
        self.max_position_embeddings = max_position_embeddings
        self.num_attention_heads = num_attention_heads
        self.num_buckets = list(num_buckets) if isinstance(num_buckets, Sequence) else num_buckets
        self.num_hashes = num_hashes
        self.vocab_size = vocab_size
        self.use_cache = use_cache
        self.attention_mode = attention_mode
        self.recompute_attention = recompute_attention
        self.classifier_dropout = classifier_dropout
        # A saved config repeats what attn_layers said then.
        kwargs.pop("num_hidden_layers", None)
        ids = {"pad_token_id": pad_token_id, "eos_token_id": eos_token_id}
        super().__init__(is_decoder=is_decoder, tie_word_embeddings=tie_word_embeddings, **ids, **kwargs)
        self._check_sizes()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("num_hidden_layers", "n_layers") and value != len(self.attn_layers):
            raise ConfigError(
                f"ReformerConfig.{name}: expected {len(self.attn_layers)}, the number of entries of attn_layers, got "
                f"{value!r}; set attn_layers, which says what each layer is"
            )
        super().__setattr__(name, value)
        if name == "attn_layers":
            self.num_hidden_layers = len(value)

    def _check_sizes(self) -> None:
        for name in _SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"ReformerConfig.{name}: expected a whole number of at least 1, got {value!r}")
        for name in ("axial_pos_shape", "axial_pos_embds_dim") if self.axial_pos_embds else ():
            sizes = getattr(self, name)
            if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
                raise ConfigError(
                    f"ReformerConfig.{name}: expected whole numbers of at least 1, one for each axis, got {list(sizes)}"
                )
        if self.num_buckets is not None:
            bucket_factors(self.num_buckets)
        for name in _COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ConfigError(f"ReformerConfig.{name}: expected a whole number of at least 0, got {value!r}")
        if self.attention_mode not in ATTENTION_MODES:
            raise ConfigError(
                f"ReformerConfig.attention_mode: expected {' or '.join(map(repr, ATTENTION_MODES))}, "
                f"got {self.attention_mode!r}"
            )

    def chunk_lengths(self) -> list[int]:
        """Return the chunk lengths, in tokens, of the attention types that `attn_layers` uses."""
        lengths = {"local": self.local_attn_chunk_length, "lsh": self.lsh_attn_chunk_length}
        return [lengths[kind] for kind in ATTENTION_TYPES if kind in self.attn_layers]

    def least_common_chunk_length(self) -> int:
        """Return the number of tokens of which a sequence must be a multiple to be cut into whole chunks."""
        return math.lcm(*self.chunk_lengths())


def bucket_factors(num_buckets: int | Sequence[int]) -> list[int]:
    """Return `num_buckets` as a list of factors; raises ConfigError unless each one is a positive even number."""
    factors = list(num_buckets) if isinstance(num_buckets, Sequence) else [num_buckets]
    if not factors or any(not isinstance(each, int) or each <= 0 or each % 2 for each in factors):
        raise ConfigError(
            f"num_buckets: expected an even number or a list of even factors (a rotation and its opposite make two "
            f"buckets), got {num_buckets!r}; None chooses it by the length of the text"
        )
    return factors


def _as_tuple(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(sizes, Sequence):
        raise ConfigError(f"ReformerConfig.{name}: expected a number for each axis, such as [64, 64], got {sizes!r}")
    return tuple(sizes)


def _checked_layers(attn_layers: Sequence[str]) -> list[str]:
    if not attn_layers or set(attn_layers) - set(ATTENTION_TYPES):
        raise ConfigError(
            f"ReformerConfig.attn_layers: expected a non-empty list of {' or '.join(map(repr, ATTENTION_TYPES))}, "
            f"got {list(attn_layers)!r}"
        )
    return list(attn_layers)
