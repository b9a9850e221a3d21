"""The configuration of Llama models."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from modelwright.attention.rope_settings import is_nested
from modelwright.attention.rope_validation import rope_config_validation
from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError


class LlamaConfig(PretrainedConfig):
    """Sizes and switches of a Llama; the defaults are those of Llama-7B.

    `num_key_value_heads` (None: as many as query heads) must divide `num_attention_heads`; `head_dim` None is
    `hidden_size / num_attention_heads`. Rotary positions are described by `rope_theta` and `rope_scaling`
    ({"rope_type": ..., ...}) or, in the spelling of 5.x, by `rope_parameters` alone, from which the other two then
    follow; all types of `modelwright.attention.rope` work. `sliding_window` (tokens) limits how far layers see, all of
    them or those that `layer_types` calls "sliding_attention". `pretraining_tp` is kept for files and does nothing.
    Raises ConfigError for head counts that do not fit and what `rope_config_validation` raises.
    Source: Touvron et al. 2023 (arXiv 2302.13971); grouped heads: Ainslie et al. 2023.
    """

    model_type = "llama"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    def __init__(
        self,
        vocab_size: int = 32000,
        hidden_size: int = 4096,
        intermediate_size: int = 11008,
        num_hidden_layers: int = 32,
        num_attention_heads: int = 32,
        num_key_value_heads: int | None = None,
        hidden_act: str | Callable[..., Any] = "silu",
        max_position_embeddings: int = 2048,
        initializer_range: float = 0.02,
        rms_norm_eps: float = 1e-6,
        use_cache: bool = True,
        pad_token_id: int | None = None,
        bos_token_id: int | None = 1,
        eos_token_id: int | list[int] | None = 2,
        pretraining_tp: int = 1,
        tie_word_embeddings: bool = False,
        rope_theta: float = 10000.0,
        rope_scaling: Mapping[str, Any] | None = None,
        attention_bias: bool = False,
        attention_dropout: float = 0.0,
        mlp_bias: bool = False,
        head_dim: int | None = None,
        rope_parameters: Mapping[str, Any] | None = None,
        sliding_window: int | None = None,
        layer_types: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_attention_heads if num_key_value_heads is None else num_key_value_heads
        self.hidden_act = hidden_act
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.rms_norm_eps = rms_norm_eps
        self.use_cache = use_cache
        self.pretraining_tp = pretraining_tp
        self.rope_theta = rope_theta
        self.rope_scaling = None if rope_scaling is None else dict(rope_scaling)
        self.attention_bias = attention_bias
        self.attention_dropout = attention_dropout
        self.mlp_bias = mlp_bias
        self._check_heads(head_dim)
        self.head_dim = hidden_size // num_attention_heads if head_dim is None else head_dim
        if sliding_window is not None:
            self.sliding_window = sliding_window
        if layer_types is not None:
            self.layer_types = list(layer_types)
        if rope_parameters:
            self._read_rope_parameters(rope_parameters)
        if self.rope_scaling is not None and "rope_type" not in self.rope_scaling and "type" in self.rope_scaling:
            self.rope_scaling["rope_type"] = self.rope_scaling["type"]
        rope_config_validation(self)
        ids = {"pad_token_id": pad_token_id, "bos_token_id": bos_token_id, "eos_token_id": eos_token_id}
        super().__init__(tie_word_embeddings=tie_word_embeddings, **ids, **kwargs)

    def _check_heads(self, head_dim: int | None) -> None:
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        if heads < 1 or groups < 1 or heads % groups:
            raise ConfigError(
                "LlamaConfig: expected num_attention_heads to be a multiple of num_key_value_heads, got "
                f"num_attention_heads={heads}, num_key_value_heads={groups}"
            )
        if head_dim is None and self.hidden_size % heads:
            raise ConfigError(
                "LlamaConfig: expected hidden_size to be a multiple of num_attention_heads where head_dim is None, got "
                f"hidden_size={self.hidden_size}, num_attention_heads={heads}"
            )

    def _read_rope_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Keep 5.x's spelling, and say the same in 4.x's, which older readers know."""
        self.rope_parameters = dict(parameters)
        if is_nested(parameters):
            raise ConfigError(
                "LlamaConfig.rope_parameters: expected one set of values for all layers, got one for each of "
                f"{', '.join(sorted(parameters))}"
            )
        self.rope_theta = parameters.get("rope_theta", self.rope_theta)
        scaling = {name: value for name, value in parameters.items() if name != "rope_theta"}
        self.rope_scaling = None if scaling.get("rope_type", "default") == "default" else scaling
