"""What one call of a tokenizer asks for, resolved."""

from dataclasses import dataclass
from typing import Any

from modelwright.tokenization.padding import Row
from modelwright.tokenization.strategies import LengthRules


@dataclass(frozen=True)
class RowFields:
    """Which fields each row of a call gets beside `input_ids`."""

    token_type_ids: bool
    attention_mask: bool
    special_tokens_mask: bool = False
    length: bool = False
    offsets: bool = False


@dataclass(frozen=True)
class CallOptions:
    """One call: lengths, fields, and how texts are read; `stride` in tokens."""

    rules: LengthRules
    fields: RowFields
    add_special_tokens: bool = True
    split_special_tokens: bool = False
    stride: int = 0
    overflow: bool = False
    split_words: bool = False


@dataclass
class Encoded:
    """Padded rows, and for a fast tokenizer the `tokenizers.Encoding` behind each."""

    rows: list[Row]
    encodings: list[Any] | None = None
