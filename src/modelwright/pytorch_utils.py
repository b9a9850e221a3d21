"""The import path transformers.pytorch_utils of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.nn.chunking import apply_chunking_to_forward
    from modelwright.nn.conv1d import Conv1D
    from modelwright.nn.pruning import (
        find_pruneable_heads_and_indices,
        prune_conv1d_layer,
        prune_layer,
        prune_linear_layer,
    )

__all__ = [
    "Conv1D",
    "apply_chunking_to_forward",
    "find_pruneable_heads_and_indices",
    "prune_conv1d_layer",
    "prune_layer",
    "prune_linear_layer",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
