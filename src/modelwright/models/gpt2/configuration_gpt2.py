"""The configuration of GPT-2 models."""

from collections.abc import Callable
from typing import Any, ClassVar

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError


class GPT2Config(PretrainedConfig):
    """Sizes and switches of a GPT-2; the defaults are those of the smallest published model.

    `n_inner` is the feed-forward width, None for four times `n_embd`. `scale_attn_weights` divides scores by the root
    of the head size, `scale_attn_by_inverse_layer_idx` also by the layer's number (from 1), `reorder_and_upcast_attn`
    computes them in fp32 (both from Mistral's training runs). `summary_*` describe the head of `GPT2DoubleHeadsModel`,
    see `modelwright.nn.sequence_summary`. `hidden_size`, `max_position_embeddings`, `num_attention_heads` and
    `num_hidden_layers` are other names of `n_embd`, `n_positions`, `n_head` and `n_layer`.
    Raises ConfigError if `n_embd` is no multiple of `n_head`. Source: Radford et al. 2019.
    """

    model_type = "gpt2"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    def __init__(
        self,
        vocab_size: int = 50257,
        n_positions: int = 1024,
        n_embd: int = 768,
        n_layer: int = 12,
        n_head: int = 12,
        n_inner: int | None = None,
        activation_function: str | Callable[..., Any] = "gelu_new",
        resid_pdrop: float = 0.1,
        embd_pdrop: float = 0.1,
        attn_pdrop: float = 0.1,
        layer_norm_epsilon: float = 1e-5,
        initializer_range: float = 0.02,
        summary_type: str = "cls_index",
        summary_use_proj: bool = True,
        summary_activation: str | None = None,
        summary_proj_to_labels: bool = True,
        summary_first_dropout: float = 0.1,
        scale_attn_weights: bool = True,
        use_cache: bool = True,
        bos_token_id: int | None = 50256,
        eos_token_id: int | list[int] | None = 50256,
        scale_attn_by_inverse_layer_idx: bool = False,
        reorder_and_upcast_attn: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.n_positions = n_positions
        self.n_embd = n_embd
        self.n_layer = n_layer
        self.n_head = n_head
        self.n_inner = n_inner
        self.activation_function = activation_function
        self.resid_pdrop = resid_pdrop
        self.embd_pdrop = embd_pdrop
        self.attn_pdrop = attn_pdrop
        self.layer_norm_epsilon = layer_norm_epsilon
        self.initializer_range = initializer_range
        self.summary_type = summary_type
        self.summary_use_proj = summary_use_proj
        self.summary_activation = summary_activation
        self.summary_proj_to_labels = summary_proj_to_labels
        self.summary_first_dropout = summary_first_dropout
        self.scale_attn_weights = scale_attn_weights
        self.use_cache = use_cache
        self.scale_attn_by_inverse_layer_idx = scale_attn_by_inverse_layer_idx
        self.reorder_and_upcast_attn = reorder_and_upcast_attn
        super().__init__(bos_token_id=bos_token_id, eos_token_id=eos_token_id, **kwargs)
        # Under the names that attribute_map translates, the caller's sizes arrive with the other keywords.
        if self.n_head < 1 or self.n_embd % self.n_head:
            raise ConfigError(
                f"GPT2Config: expected n_embd to be a multiple of n_head, got n_embd={self.n_embd}, "
                f"n_head={self.n_head}"
            )
