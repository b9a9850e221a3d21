"""Llama (Touvron et al. 2023, arXiv 2302.13971): rotary positions, grouped heads, gated feed-forward.

`layers` holds attention, feed-forward and layer; `modeling_llama` assembles them and puts the heads on.
"""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.models.llama.configuration_llama import LlamaConfig
    from modelwright.models.llama.modeling_llama import (
        LlamaForCausalLM,
        LlamaForQuestionAnswering,
        LlamaForSequenceClassification,
        LlamaForTokenClassification,
        LlamaModel,
        LlamaPreTrainedModel,
    )

__all__ = [
    "LlamaConfig",
    "LlamaForCausalLM",
    "LlamaForQuestionAnswering",
    "LlamaForSequenceClassification",
    "LlamaForTokenClassification",
    "LlamaModel",
    "LlamaPreTrainedModel",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
