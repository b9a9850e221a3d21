"""The import path transformers.tokenization_utils_fast of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.tokenization.added_token import AddedToken
    from modelwright.tokenization.fast_tokenizer import PreTrainedTokenizerFast

__all__ = [
    "AddedToken",
    "PreTrainedTokenizerFast",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
