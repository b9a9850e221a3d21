"""The import path transformers.tokenization_utils_base of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.tokenization.added_token import AddedToken
    from modelwright.tokenization.alignment import CharSpan, TokenSpan
    from modelwright.tokenization.base import PreTrainedTokenizerBase
    from modelwright.tokenization.batch_encoding import BatchEncoding
    from modelwright.tokenization.special_tokens import SpecialTokensMixin
    from modelwright.tokenization.strategies import PaddingStrategy, TensorType, TruncationStrategy

__all__ = [
    "AddedToken",
    "BatchEncoding",
    "CharSpan",
    "PaddingStrategy",
    "PreTrainedTokenizerBase",
    "SpecialTokensMixin",
    "TensorType",
    "TokenSpan",
    "TruncationStrategy",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
