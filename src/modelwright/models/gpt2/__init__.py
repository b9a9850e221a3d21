"""GPT-2 (Radford et al. 2019): the home of Conv1D and of head pruning.

`layers` holds attention, feed-forward and block, `backbone` assembles them, `modeling_gpt2` puts the heads on.
"""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.models.gpt2.backbone import GPT2Model, GPT2PreTrainedModel
    from modelwright.models.gpt2.configuration_gpt2 import GPT2Config
    from modelwright.models.gpt2.modeling_gpt2 import (
        GPT2DoubleHeadsModel,
        GPT2ForQuestionAnswering,
        GPT2ForSequenceClassification,
        GPT2ForTokenClassification,
        GPT2LMHeadModel,
    )

__all__ = [
    "GPT2Config",
    "GPT2DoubleHeadsModel",
    "GPT2ForQuestionAnswering",
    "GPT2ForSequenceClassification",
    "GPT2ForTokenClassification",
    "GPT2LMHeadModel",
    "GPT2Model",
    "GPT2PreTrainedModel",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
