"""The base of tokenizers written in Python: text to tokens, tokens to ids, and back."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.core.errors import InputError, reject_unknown
from modelwright.tokenization.base import PreTrainedTokenizerBase

DECODE_KEYWORDS = ("skip_special_tokens", "clean_up_tokenization_spaces")


class PreTrainedTokenizer(PreTrainedTokenizerBase):
    """A tokenizer in Python, by 4.x's hooks.

    A subclass gives `vocab_size`, `get_vocab`, `_tokenize(text)`, `_convert_token_to_id(token)`,
    `_convert_id_to_token(index)` and `convert_tokens_to_string(tokens)`. A special token inside a text becomes its one
    id; the text around it goes through `_tokenize`.
    """

    def _tokenize(self, text: str) -> list[str]:
        raise NotImplementedError(f"{type(self).__name__} must define _tokenize.")

    def _convert_token_to_id(self, token: str) -> int | None:
        raise NotImplementedError(f"{type(self).__name__} must define _convert_token_to_id.")

    def _convert_id_to_token(self, index: int) -> str:
        raise NotImplementedError(f"{type(self).__name__} must define _convert_id_to_token.")

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of `tokens`: by default they are joined by spaces."""
        return " ".join(tokens)

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of `text` as strings, no special tokens added."""
        special = sorted(self.all_special_tokens, key=len, reverse=True)
        if not special:
            return self._tokenize(text)
        # The group keeps the separators: every second piece is a special token.
        pieces = re.split("(" + "|".join(map(re.escape, special)) + ")", text)
        return [
            token
            for index, piece in enumerate(pieces)
            if piece
            for token in ([piece] if index % 2 else self._tokenize(piece))
        ]

    def _token_id(self, token: str) -> int | None:
        return self._convert_token_to_id(token)

    def _id_token(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise InputError(f"{type(self).__name__}: expected an id from 0 to {len(self) - 1}, got {index}.")
        return self._convert_id_to_token(index)

    def _text_to_ids(self, text: str) -> list[int]:
        ids = []
        for token in self.tokenize(text):
            index = self._token_id(token)
            if index is None:
                raise InputError(
                    f"{type(self).__name__}: the token {token!r} is not in the vocabulary, and there is no unk_token."
                )
            ids.append(index)
        return ids

    def _ids_to_text(self, ids: NDArray[np.int64], skip_special_tokens: bool, **kwargs: Any) -> str:
        reject_unknown(f"{type(self).__name__}.decode", kwargs, DECODE_KEYWORDS)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return self.convert_tokens_to_string([self._id_token(index) for index in ids.tolist() if index not in skipped])
