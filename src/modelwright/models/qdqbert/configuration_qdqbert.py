"""The configuration of QDQBERT models."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from modelwright.core.errors import ConfigError
from modelwright.models.bert.configuration_bert import BertConfig


class QDQBertConfig(BertConfig):
    """BERT's sizes and switches, other special ids, and what is quantized.

    `quantization_recipe` is a `Recipe` as a dictionary; None is QDQBERT's own places for quantizers ("full"), with the
    defaults that `QuantLinear.set_default_quant_desc_input` and `..._weight` have set when the first model is built,
    which are then noted here. Raises ConfigError as BertConfig does.
    """

    model_type = "qdqbert"
    compatible_model_types: ClassVar[tuple[str, ...]] = ("bert",)

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
        use_cache: bool = True,
        pad_token_id: int | None = 1,
        bos_token_id: int | None = 0,
        eos_token_id: int | None = 2,
        quantization_recipe: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if quantization_recipe is not None and not isinstance(quantization_recipe, Mapping):
            raise ConfigError(
                "QDQBertConfig.quantization_recipe: expected a dictionary (Recipe(...).to_dict()) or None, got "
                f"{type(quantization_recipe).__name__}"
            )
        self.quantization_recipe = quantization_recipe
        super().__init__(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=num_attention_heads,
            intermediate_size=intermediate_size,
            hidden_act=hidden_act,
            hidden_dropout_prob=hidden_dropout_prob,
            attention_probs_dropout_prob=attention_probs_dropout_prob,
            max_position_embeddings=max_position_embeddings,
            type_vocab_size=type_vocab_size,
            initializer_range=initializer_range,
            layer_norm_eps=layer_norm_eps,
            use_cache=use_cache,
            pad_token_id=pad_token_id,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            **kwargs,
        )
