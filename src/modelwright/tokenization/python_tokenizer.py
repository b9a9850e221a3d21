"""The base of tokenizers written in Python: text to tokens, tokens to ids, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken

from modelwright.core.errors import InputError, reject_unknown
from modelwright.tokenization.added_vocabulary import AddedVocabulary, place_tokens
from modelwright.tokenization.base import PreTrainedTokenizerBase
from modelwright.tokenization.options import CallOptions

DECODE_KEYWORDS = ("skip_special_tokens", "clean_up_tokenization_spaces", "spaces_between_special_tokens")


class PreTrainedTokenizer(PreTrainedTokenizerBase):
    """A tokenizer in Python, by 4.x's hooks.

    A subclass gives `vocab_size`, `get_vocab`, `_tokenize(text)`, `_convert_token_to_id(token)`,
    `_convert_id_to_token(index)` and `convert_tokens_to_string(tokens)`, and sets up what they need before it calls
    this constructor. A special or added token inside a text becomes its one id; the text around it goes through
    `_tokenize`.
    """

    # Whether a decoded text has a space on both sides of an added token.
    spaces_between_special_tokens = True

    def __init__(self, **kwargs: Any) -> None:
        """Take the keywords of every tokenizer."""
        self._added = AddedVocabulary()
        super().__init__(**kwargs)

    def _tokenize(self, text: str) -> list[str]:
        raise NotImplementedError(f"{type(self).__name__} must define _tokenize.")

    def _convert_token_to_id(self, token: str) -> int | None:
        raise NotImplementedError(f"{type(self).__name__} must define _convert_token_to_id.")

    def _convert_id_to_token(self, index: int) -> str:
        raise NotImplementedError(f"{type(self).__name__} must define _convert_id_to_token.")

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of `tokens`: by default they are joined by spaces."""
        return " ".join(tokens)

    def prepare_for_tokenization(self, text: str, is_split_into_words: bool = False) -> str:  # noqa: ARG002
        """Return `text` as it goes into `tokenize`; a subclass may put a space before it."""
        return text

    # Added tokens

    def _base_vocab(self) -> dict[str, int]:
        """Return the vocabulary without the added tokens, or with them."""
        return self.get_vocab()

    def _add_known_tokens(self, added: Mapping[int, AddedToken]) -> None:
        for index, token in added.items():
            self._added.put(index, token)
        self._add_tokens([self._special_token(text) for text in self.all_special_tokens])

    def _add_tokens(self, tokens: Sequence[AddedToken]) -> int:
        vocab = dict(self._base_vocab())
        if getattr(self, "do_lower_case", False):
            tokens = [_lowered(each) if not each.special and each.normalized else each for each in tokens]
        first_free = max([self.vocab_size - 1, *self._added.by_id]) + 1
        return place_tokens(self._added, tokens, vocab.get, first_free)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that were added to the vocabulary or are special, by id."""
        return dict(sorted(self._added.by_id.items()))

    def __len__(self) -> int:
        return self.vocab_size + sum(index >= self.vocab_size for index in self._added.by_id)

    # Text to ids

    def tokenize(self, text: str, *, split_special_tokens: bool | None = None, **kwargs: Any) -> list[str]:
        """Return the tokens of `text` as strings, no special tokens added.

        split_special_tokens: True reads special tokens in the text as text. Other keywords go to
        `prepare_for_tokenization`.
        """
        text = self.prepare_for_tokenization(text, **kwargs)
        if getattr(self, "do_lower_case", False):
            text = self._added.lowercase_outside(text, self.all_special_tokens)
        if self.split_special_tokens if split_special_tokens is None else split_special_tokens:
            return self._tokenize(text)
        return [
            token
            for piece, is_token in self._added.split(text)
            for token in ([piece] if is_token else self._tokenize(piece))
        ]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """Return the id of a token, or of each of several: the unknown token's, or None, for one outside."""
        return self._token_id(tokens) if isinstance(tokens, str) else [self._token_id(token) for token in tokens]

    def _token_id(self, token: str) -> int | None:
        return self._added.ids[token] if token in self._added.ids else self._convert_token_to_id(token)

    def _id_token(self, index: int) -> str:
        if index in self._added.by_id:
            return str(self._added.by_id[index].content)
        if not 0 <= index < len(self):
            raise InputError(f"{type(self).__name__}: expected an id from 0 to {len(self) - 1}, got {index}.")
        return self._convert_id_to_token(index)

    def _ids_of(self, text: Any, options: CallOptions) -> list[int]:
        keep = options.split_special_tokens
        if not options.split_words:
            return self._text_to_ids(text) if keep == self.split_special_tokens else self._split_ids(text, keep)
        return [index for word in text for index in self._split_ids(word, keep, is_split_into_words=True)]

    def _split_ids(self, text: str, split_special_tokens: bool, **kwargs: Any) -> list[int]:
        return self._ids_of_tokens(self.tokenize(text, split_special_tokens=split_special_tokens, **kwargs))

    def _text_to_ids(self, text: str) -> list[int]:
        return self._ids_of_tokens(self.tokenize(text))

    def _ids_of_tokens(self, tokens: list[str]) -> list[int]:
        ids = []
        for token in tokens:
            index = self._token_id(token)
            if index is None:
                raise InputError(
                    f"{type(self).__name__}: the token {token!r} is not in the vocabulary, and there is no unk_token."
                )
            ids.append(index)
        return ids

    # Ids to text

    def _ids_to_text(
        self,
        ids: NDArray[np.int64],
        skip_special_tokens: bool,
        *,
        spaces_between_special_tokens: bool | None = None,
        **kwargs: Any,
    ) -> str:
        reject_unknown(f"{type(self).__name__}.decode", kwargs, DECODE_KEYWORDS)
        if spaces_between_special_tokens is None:
            spaces_between_special_tokens = self.spaces_between_special_tokens
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        tokens = [self._id_token(index) for index in ids.tolist() if index not in skipped]
        # Special tokens of the vocabulary are part of the text that a subclass joins; added ones stand for themselves.
        extra = {text for text in self.additional_special_tokens if (self._token_id(text) or 0) >= self.vocab_size}
        alone = set(self._added.ids) - set(self.all_special_tokens) | extra
        texts: list[str] = []
        run: list[str] = []
        for token in tokens:
            if token not in alone:
                run.append(token)
                continue
            if run:
                texts.append(self._run_text(run))
                run = []
            texts.append(token)
        if run:
            texts.append(self._run_text(run))
        return (" " if spaces_between_special_tokens else "").join(texts)

    def _run_text(self, tokens: list[str]) -> str:
        return self.convert_tokens_to_string(tokens)


def _lowered(token: AddedToken) -> AddedToken:
    return AddedToken(
        token.content.lower(), lstrip=token.lstrip, rstrip=token.rstrip, single_word=token.single_word, normalized=True
    )
