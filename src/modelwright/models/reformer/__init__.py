"""Reformer (Kitaev, Kaiser and Levskaya 2020, arXiv 2001.04451): one file per mechanism of the paper.

`hashing` is section 2's angular LSH, `lsh_attention` and `local_attention` the two kinds of attention, `axial` the
factorised positions, `reversible` section 3's residual stack; `modeling_reformer` assembles them.
"""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.models.reformer.attention_maps import dense_attentions
    from modelwright.models.reformer.backbone import ReformerModel, ReformerPreTrainedModel
    from modelwright.models.reformer.configuration_reformer import ReformerConfig
    from modelwright.models.reformer.modeling_reformer import (
        ReformerForMaskedLM,
        ReformerForQuestionAnswering,
        ReformerForSequenceClassification,
        ReformerModelWithLMHead,
    )

__all__ = [
    "ReformerConfig",
    "ReformerForMaskedLM",
    "ReformerForQuestionAnswering",
    "ReformerForSequenceClassification",
    "ReformerModel",
    "ReformerModelWithLMHead",
    "ReformerPreTrainedModel",
    "dense_attentions",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
