"""The import path transformers.tf_utils of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.keras_layers.tensors import shape_list

__all__ = [
    "shape_list",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
