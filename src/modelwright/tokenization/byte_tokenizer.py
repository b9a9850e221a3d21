"""A tokenizer without a vocabulary file: a token is a byte of UTF-8 text.

The ids are those of the checkpoint google/reformer-enwik8: byte + 2, with 0 for padding and 1 for the end of a text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken

from modelwright.core.errors import InputError, check_choice, reject_unknown
from modelwright.tokenization.python_tokenizer import DECODE_KEYWORDS, PreTrainedTokenizer

PAD, EOS = "<pad>", "</s>"
_ERRORS = ("replace", "strict", "ignore", "surrogateescape")


class ByteTokenizer(PreTrainedTokenizer):
    """UTF-8 bytes as tokens: 258 ids, nothing to train and no text that it cannot take.

    The token of a byte, as a string, is the character with that number (`chr(byte)`). Text that spells `<pad>` or
    `</s>` is encoded as its bytes: only `add_eos` and padding put the two special ids into a row.
    """

    byte_offset = 2
    model_input_names = ("input_ids", "attention_mask")

    def __init__(
        self,
        *,
        add_eos: bool = False,
        errors: str = "replace",
        pad_token: Any = PAD,
        eos_token: Any = EOS,
        **kwargs: Any,
    ) -> None:
        """Make a tokenizer; `kwargs` are those of every tokenizer.

        add_eos: end each text with the eos token (where special tokens are added at all). errors: what `decode` does
        with bytes that are not UTF-8: "replace" (by U+FFFD), "strict" (UnicodeDecodeError), "ignore", or
        "surrogateescape", with which text made of any bytes encodes to the same bytes again.
        Raises InputError for a special token that is neither `<pad>`, `</s>` nor the token of a byte.
        """
        check_choice("ByteTokenizer: errors", errors, _ERRORS)
        self.add_eos, self.errors = bool(add_eos), errors
        super().__init__(add_eos=self.add_eos, errors=errors, pad_token=pad_token, eos_token=eos_token, **kwargs)
        if self.add_eos and self.eos_token is None:
            raise InputError("ByteTokenizer: add_eos=True needs an eos_token, got None.")
        for token in self.all_special_tokens:
            if self._token_id(token) is None:
                raise InputError(
                    f"ByteTokenizer: the special token {token!r} is not in its vocabulary, which is {PAD!r}, {EOS!r} "
                    "and the 256 bytes."
                )

    @classmethod
    def _constructor_keywords(cls) -> tuple[str, ...]:
        # No token is ever added, so what a file says about added tokens is only kept.
        return tuple(name for name in super()._constructor_keywords() if name != "added_tokens_decoder")

    def _add_known_tokens(self, added: Mapping[int, AddedToken]) -> None:
        assert not added

    def _add_tokens(self, tokens: Sequence[AddedToken]) -> int:
        for token in tokens:
            if self._token_id(token.content) is None:
                raise InputError(
                    f"ByteTokenizer: its vocabulary is fixed, so {token.content!r} cannot be added: a special token "
                    f"is {PAD!r}, {EOS!r} or the token of a byte."
                )
        return 0

    @property
    def vocab_size(self) -> int:
        """258: 256 bytes and two special tokens."""
        return 256 + self.byte_offset

    def encode_bytes(self, data: bytes | bytearray | memoryview) -> NDArray[np.int64]:
        """Return the ids of raw bytes, [bytes]; nothing is added."""
        return np.frombuffer(data, dtype=np.uint8).astype(np.int64) + self.byte_offset

    def decode_bytes(self, token_ids: Any) -> bytes:
        """Return the raw bytes of `token_ids` [tokens]; special tokens are left out.

        Raises InputError for an id outside the vocabulary.
        """
        ids = self._checked(np.asarray(token_ids, dtype=np.int64))
        return (ids[ids >= self.byte_offset] - self.byte_offset).astype(np.uint8).tobytes()

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return the text's ids, or both texts' in a row, each ended by the eos token if `add_eos`."""
        eos = self._eos()
        return token_ids_0 + eos + (token_ids_1 + eos if token_ids_1 is not None else [])

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """Return 1 for each special token of a row and 0 for each byte."""
        if already_has_special_tokens:
            return super().get_special_tokens_mask(token_ids_0, token_ids_1, True)
        eos = [1] * len(self._eos())
        return [0] * len(token_ids_0) + eos + ([0] * len(token_ids_1) + eos if token_ids_1 is not None else [])

    def _eos(self) -> list[int]:
        return [self.eos_token_id] if self.add_eos and self.eos_token_id is not None else []

    def _text_to_ids(self, text: str) -> list[int]:
        handler = "surrogateescape" if self.errors == "surrogateescape" else "strict"
        try:
            data = text.encode("utf-8", handler)
        except UnicodeEncodeError as error:
            raise InputError(
                f"ByteTokenizer: character {error.start} of the text, {text[error.start]!r}, is half of a surrogate "
                "pair and no text in UTF-8. Text decoded with errors='surrogateescape' needs a ByteTokenizer with "
                "the same errors to encode it."
            ) from error
        ids: list[int] = self.encode_bytes(data).tolist()
        return ids

    def _tokenize(self, text: str) -> list[str]:
        return [chr(index - self.byte_offset) for index in self._text_to_ids(text)]

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:  # noqa: ARG002
        """Return one token for each UTF-8 byte of `text`, `chr(byte)`."""
        return self._tokenize(text)

    def _convert_token_to_id(self, token: str) -> int | None:
        if token in (PAD, EOS):
            return (PAD, EOS).index(token)
        return ord(token) + self.byte_offset if len(token) == 1 and ord(token) < 256 else None

    def _convert_id_to_token(self, index: int) -> str:
        return (PAD, EOS)[index] if index < self.byte_offset else chr(index - self.byte_offset)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of `tokens`; special tokens appear by name. Raises InputError for another token."""
        ids = [self._token_id(token) for token in tokens]
        if None in ids:
            raise InputError(f"ByteTokenizer: {tokens[ids.index(None)]!r} is not a token.")
        return self._ids_to_text(np.array(ids, dtype=np.int64), False)

    def _ids_to_text(
        self, ids: NDArray[np.int64], skip_special_tokens: bool, *, errors: str | None = None, **kwargs: Any
    ) -> str:
        reject_unknown("ByteTokenizer.decode", kwargs, (*DECODE_KEYWORDS, "errors"))
        if errors is not None:
            check_choice("ByteTokenizer.decode: errors", errors, _ERRORS)
        array = self._checked(ids)
        if skip_special_tokens:
            special = [index for index in self.all_special_ids if index >= self.byte_offset]
            data = self.decode_bytes(array[~np.isin(array, special)] if special else array)
        else:
            data = self._with_special_names(array)
        return data.decode("utf-8", errors or self.errors)

    def _with_special_names(self, array: NDArray[np.int64]) -> bytes:
        """Return the bytes of ids, with the name of each special token in its place."""
        pieces, start = [], 0
        for stop in np.flatnonzero(array < self.byte_offset).tolist():
            pieces += [self.decode_bytes(array[start:stop]), (PAD, EOS)[array[stop]].encode()]
            start = stop + 1
        return b"".join([*pieces, self.decode_bytes(array[start:])])

    def _checked(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        wrong = np.flatnonzero((ids < 0) | (ids >= self.vocab_size))
        if wrong.size:
            raise InputError(
                f"ByteTokenizer: expected ids from 0 to {self.vocab_size - 1}, got {ids[wrong[0]]} at position "
                f"{wrong[0]}."
            )
        return ids
