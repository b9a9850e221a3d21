"""The import path transformers.modeling_utils of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.attention.interface import ALL_ATTENTION_FUNCTIONS, AttentionInterface
    from modelwright.nn.chunking import apply_chunking_to_forward
    from modelwright.pretrained.modeling import PreTrainedModel
    from modelwright.pretrained.module_utils import ModuleUtilsMixin

__all__ = [
    "ALL_ATTENTION_FUNCTIONS",
    "AttentionInterface",
    "ModuleUtilsMixin",
    "PreTrainedModel",
    "apply_chunking_to_forward",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
