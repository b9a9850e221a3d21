"""Which token belongs to which word and character: what a fast tokenizer's encodings know."""

from collections.abc import Callable
from typing import Any, NamedTuple

from modelwright.core.errors import InputError


class CharSpan(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens `start` to `end` (exclusive) of a row."""

    start: int
    end: int


class AlignmentMixin:
    """Lookups in the encodings of a BatchEncoding.

    Each takes (row, index), or only an index for row 0. Each raises InputError when a slow tokenizer made the batch,
    and for a row that does not exist; the answer is None for a token or character that belongs to no word or token.
    """

    _encodings: list[Any] | None

    @property
    def encodings(self) -> list[Any] | None:
        """The `tokenizers.Encoding` of each row, None for a slow tokenizer."""
        return self._encodings

    @property
    def is_fast(self) -> bool:
        """Whether a fast tokenizer made this."""
        return self._encodings is not None

    @property
    def n_sequences(self) -> int | None:
        """How many texts a row holds: 1, or 2 for pairs; None for a slow tokenizer."""
        return self._encodings[0].n_sequences if self._encodings else None

    def _row(self, name: str, index: int) -> Any:
        if self._encodings is None:
            raise InputError(f"BatchEncoding.{name} needs a fast tokenizer: this batch comes from a slow one.")
        if not -len(self._encodings) <= index < len(self._encodings):
            raise InputError(f"BatchEncoding.{name}: expected a row below {len(self._encodings)}, got {index}.")
        return self._encodings[index]

    def _find(self, name: str, batch_or_index: int, index: int | None) -> tuple[Any, int]:
        row = self._row(name, 0 if index is None else batch_or_index)
        return row, batch_or_index if index is None else index

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return the word of each token of a row, None for special tokens."""
        words: list[int | None] = self._row("word_ids", batch_index).word_ids
        return words

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return the text (0 or 1) of each token of a row, None for special tokens."""
        texts: list[int | None] = self._row("sequence_ids", batch_index).sequence_ids
        return texts

    def _of_token(self, name: str, batch_or_token_index: int, token_index: int | None) -> Any:
        row, token = self._find(name, batch_or_token_index, token_index)
        size = len(row.ids)
        if not -size <= token < size:
            raise InputError(f"BatchEncoding.{name}: expected a token below {size}, got {token}.")
        lookup: Callable[[int], Any] = getattr(row, name)
        return lookup(token + size if token < 0 else token)

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Return the text (0 or 1) that a token belongs to."""
        text: int | None = self._of_token("token_to_sequence", batch_or_token_index, token_index)
        return text

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Return the word that a token belongs to."""
        word: int | None = self._of_token("token_to_word", batch_or_token_index, token_index)
        return word

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """Return the characters of a token in its text."""
        span = self._of_token("token_to_chars", batch_or_token_index, token_index)
        return None if span is None else CharSpan(*span)

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """Return the tokens of a word of text `sequence_index`."""
        row, word = self._find("word_to_tokens", batch_or_word_index, word_index)
        span = row.word_to_tokens(word, sequence_index)
        return None if span is None else TokenSpan(*span)

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """Return the characters of a word of text `sequence_index`."""
        row, word = self._find("word_to_chars", batch_or_word_index, word_index)
        span = row.word_to_chars(word, sequence_index)
        return None if span is None else CharSpan(*span)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the token that holds a character of text `sequence_index`."""
        row, char = self._find("char_to_token", batch_or_char_index, char_index)
        token: int | None = row.char_to_token(char, sequence_index)
        return token

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the word that holds a character of text `sequence_index`."""
        row, char = self._find("char_to_word", batch_or_char_index, char_index)
        word: int | None = row.char_to_word(char, sequence_index)
        return word
