"""The configuration of T5 models."""

from typing import Any, ClassVar

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError


class T5Config(PretrainedConfig):
    """Sizes and switches of a T5; the defaults are those of t5-small.

    `d_kv` is the size of a head, which need not be `d_model / num_heads`. `num_decoder_layers` None means as many as
    `num_layers`, which counts the encoder's. `relative_attention_num_buckets` distances are told apart, the far ones
    in groups, up to `relative_attention_max_distance` tokens. `feed_forward_proj` is "relu", or another activation, or
    "gated-gelu" (T5 v1.1), "gated-silu" and so on; from it follow `dense_act_fn`, the activation's name, and
    `is_gated_act`. `initializer_factor` scales all initial weights. `hidden_size`, `num_attention_heads`,
    `num_hidden_layers` and `head_dim` are other names of `d_model`, `num_heads`, `num_layers` and `d_kv`.
    Raises ConfigError for another form of `feed_forward_proj`.
    Source: Raffel et al. 2019 (arXiv 1910.10683); gated variants: Shazeer 2020 (arXiv 2002.05202).
    """

    model_type = "t5"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    }

    def __init__(
        self,
        vocab_size: int = 32128,
        d_model: int = 512,
        d_kv: int = 64,
        d_ff: int = 2048,
        num_layers: int = 6,
        num_decoder_layers: int | None = None,
        num_heads: int = 8,
        relative_attention_num_buckets: int = 32,
        relative_attention_max_distance: int = 128,
        dropout_rate: float = 0.1,
        layer_norm_epsilon: float = 1e-6,
        initializer_factor: float = 1.0,
        feed_forward_proj: str = "relu",
        is_encoder_decoder: bool = True,
        use_cache: bool = True,
        pad_token_id: int | None = 0,
        eos_token_id: int | list[int] | None = 1,
        classifier_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.d_kv = d_kv
        self.d_ff = d_ff
        self.num_layers = num_layers
        self.num_decoder_layers = num_layers if num_decoder_layers is None else num_decoder_layers
        self.num_heads = num_heads
        self.relative_attention_num_buckets = relative_attention_num_buckets
        self.relative_attention_max_distance = relative_attention_max_distance
        self.dropout_rate = dropout_rate
        self.classifier_dropout = classifier_dropout
        self.layer_norm_epsilon = layer_norm_epsilon
        self.initializer_factor = initializer_factor
        self.feed_forward_proj = feed_forward_proj
        self.use_cache = use_cache
        gate, _, activation = feed_forward_proj.rpartition("-")
        if gate not in ("", "gated") or not activation:
            raise ConfigError(
                "T5Config.feed_forward_proj: expected the name of an activation such as 'relu', or 'gated-' and one, "
                f"such as 'gated-gelu', got {feed_forward_proj!r}"
            )
        self.is_gated_act = gate == "gated"
        # T5 v1.1 was trained with the tanh approximation under this name.
        self.dense_act_fn = "gelu_new" if feed_forward_proj == "gated-gelu" else activation
        ids = {"pad_token_id": pad_token_id, "eos_token_id": eos_token_id}
        super().__init__(is_encoder_decoder=is_encoder_decoder, **ids, **kwargs)
