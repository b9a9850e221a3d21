"""QDQBERT: BERT whose layers quantize their tensors, for training with quantization and for calibration.

Everything is BERT's; the config's recipe says where the quantizers are. Source: Wu et al. 2020 (arXiv 2004.09602).
"""

from typing import Any, ClassVar

import torch

from modelwright.models.bert import lm_heads, task_heads
from modelwright.models.bert.backbone import BertModel, BertPreTrainedModel
from modelwright.models.bert.layers import BertLayer
from modelwright.models.qdqbert.configuration_qdqbert import QDQBertConfig
from modelwright.quantization.layers import QuantLinear
from modelwright.quantization.recipe import Recipe
from modelwright.quantization.swapping import swap

Device = torch.device | str | None


def _note_recipe(config: QDQBertConfig) -> Recipe:
    """Write the recipe in force into a config that has none, and return the config's."""
    if config.quantization_recipe is None:
        recipe = Recipe(
            "full", input=QuantLinear.default_quant_desc_input, weight=QuantLinear.default_quant_desc_weight
        )
        config.quantization_recipe = recipe.to_dict()
    return Recipe.from_dict(config.quantization_recipe)


class QDQBertLayer(BertLayer):
    """A layer of QDQBERT by itself: BERT's, with the quantizers that the config names."""

    def __init__(self, config: QDQBertConfig, layer_idx: int | None = None, **factory: Any) -> None:
        super().__init__(config, layer_idx, **factory)
        swap(self, _note_recipe(config))


class QDQBertPreTrainedModel(BertPreTrainedModel):
    """What all QDQBERT models share."""

    config_class: ClassVar[Any] = QDQBertConfig

    def __init__(self, config: QDQBertConfig, *args: Any, **kwargs: Any) -> None:
        if isinstance(config, QDQBertConfig):
            _note_recipe(config)
        super().__init__(config, *args, **kwargs)


class QDQBertModel(QDQBertPreTrainedModel, BertModel):
    """QDQBERT without a head; see `BertModel`."""


class _WithHead(QDQBertPreTrainedModel):
    backbone_class: ClassVar[type[BertModel]] = QDQBertModel


class QDQBertLMHeadModel(_WithHead, lm_heads.BertLMHeadModel):
    """QDQBERT as a language model; see `BertLMHeadModel`."""


class QDQBertForMaskedLM(_WithHead, lm_heads.BertForMaskedLM):
    """QDQBERT that scores the vocabulary at each place; see `BertForMaskedLM`."""


class QDQBertForNextSentencePrediction(_WithHead, lm_heads.BertForNextSentencePrediction):
    """QDQBERT that tells whether a sentence follows; see `BertForNextSentencePrediction`."""


class QDQBertForSequenceClassification(_WithHead, task_heads.BertForSequenceClassification):
    """QDQBERT that scores the labels of a sequence; see `BertForSequenceClassification`."""


class QDQBertForMultipleChoice(_WithHead, task_heads.BertForMultipleChoice):
    """QDQBERT that chooses among continuations; see `BertForMultipleChoice`."""


class QDQBertForTokenClassification(_WithHead, task_heads.BertForTokenClassification):
    """QDQBERT that scores the labels of each token; see `BertForTokenClassification`."""


class QDQBertForQuestionAnswering(_WithHead, task_heads.BertForQuestionAnswering):
    """QDQBERT that finds answers; see `BertForQuestionAnswering`."""
