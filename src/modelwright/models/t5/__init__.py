"""T5 (Raffel et al. 2019, arXiv 1910.10683): every task as text to text, with relative positions as a bias.

`relative_bias` is the mechanism, `attention` and `feed_forward` are the layers, `stack` puts them in a row, `backbone`
makes encoder and decoder of two rows, `heads` and `modeling_t5` put the heads on.
"""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.models.t5.backbone import T5EncoderModel, T5Model
    from modelwright.models.t5.configuration_t5 import T5Config
    from modelwright.models.t5.heads import (
        T5ForQuestionAnswering,
        T5ForSequenceClassification,
        T5ForTokenClassification,
    )
    from modelwright.models.t5.modeling_t5 import T5ForConditionalGeneration
    from modelwright.models.t5.stack import T5PreTrainedModel

__all__ = [
    "T5Config",
    "T5EncoderModel",
    "T5ForConditionalGeneration",
    "T5ForQuestionAnswering",
    "T5ForSequenceClassification",
    "T5ForTokenClassification",
    "T5Model",
    "T5PreTrainedModel",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
