"""The import path transformers.modeling_utils of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.attention.interface import ALL_ATTENTION_FUNCTIONS, AttentionInterface
    from modelwright.nn.chunking import apply_chunking_to_forward
    from modelwright.nn.conv1d import Conv1D
    from modelwright.nn.pooling import PoolerAnswerClass, PoolerEndLogits, PoolerStartLogits
    from modelwright.nn.pruning import (
        find_pruneable_heads_and_indices,
        prune_conv1d_layer,
        prune_layer,
        prune_linear_layer,
    )
    from modelwright.nn.sequence_summary import SequenceSummary
    from modelwright.pretrained.modeling import PreTrainedModel
    from modelwright.pretrained.module_utils import ModuleUtilsMixin
    from modelwright.pretrained.squad_head import SQuADHead, SquadHeadOutput

__all__ = [
    "ALL_ATTENTION_FUNCTIONS",
    "AttentionInterface",
    "Conv1D",
    "ModuleUtilsMixin",
    "PoolerAnswerClass",
    "PoolerEndLogits",
    "PoolerStartLogits",
    "PreTrainedModel",
    "SQuADHead",
    "SequenceSummary",
    "SquadHeadOutput",
    "apply_chunking_to_forward",
    "find_pruneable_heads_and_indices",
    "prune_conv1d_layer",
    "prune_layer",
    "prune_linear_layer",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
