"""The import path transformers.modeling_rope_utils of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.attention.rope import ROPE_INIT_FUNCTIONS
    from modelwright.attention.rope_validation import rope_config_validation
    from modelwright.attention.rotary import dynamic_rope_update

__all__ = [
    "ROPE_INIT_FUNCTIONS",
    "dynamic_rope_update",
    "rope_config_validation",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
