"""The import path transformers.cache_utils of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.attention.cache_layers import (
        DynamicLayer,
        DynamicSlidingWindowLayer,
        StaticLayer,
        StaticSlidingWindowLayer,
    )
    from modelwright.attention.caches import Cache, DynamicCache, EncoderDecoderCache, StaticCache

__all__ = [
    "Cache",
    "DynamicCache",
    "DynamicLayer",
    "DynamicSlidingWindowLayer",
    "EncoderDecoderCache",
    "StaticCache",
    "StaticLayer",
    "StaticSlidingWindowLayer",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
