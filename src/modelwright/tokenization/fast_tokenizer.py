"""Tokenizers of the `tokenizers` library: encoding, padding and truncation run in Rust."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Encoding, Tokenizer

from modelwright.core.errors import InputError, reject_unknown
from modelwright.hub.names import TOKENIZER_NAME
from modelwright.tokenization.added_tokens import as_added_token, same_token, token_to_json
from modelwright.tokenization.backend_file import backend_of_json, is_panic, read_backend
from modelwright.tokenization.base import PreTrainedTokenizerBase
from modelwright.tokenization.options import CallOptions, Encoded
from modelwright.tokenization.padding import Row
from modelwright.tokenization.retrain import retrained
from modelwright.tokenization.strategies import PaddingStrategy
from modelwright.tokenization.text import Texts
from modelwright.tokenization.wordpiece_supply import WordPieceSupply

DECODE_KEYWORDS = ("skip_special_tokens", "clean_up_tokenization_spaces")


class PreTrainedTokenizerFast(PreTrainedTokenizerBase):
    """A tokenizer that `tokenizer.json` describes whole.

    A subclass with a vocabulary file of its own gives `_build_backend`, which makes the same from that file.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {"tokenizer_file": TOKENIZER_NAME}
    is_fast = True

    def __init__(
        self,
        *,
        tokenizer_object: Tokenizer | None = None,
        tokenizer_file: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take a tokenizer of the `tokenizers` library (copied), or its file; `kwargs` are those of every tokenizer.

        Raises ConfigError for a file that cannot be read, InputError when there is neither.
        """
        self._supply: WordPieceSupply | None = None
        if tokenizer_object is not None:
            self._pipeline = backend_of_json(tokenizer_object.to_str())
        elif tokenizer_file is not None:
            self._pipeline, self._supply = read_backend(tokenizer_file)
        else:
            self._pipeline = self._build_backend()
        # Lengths are a matter of each call, not of the file.
        self._lengths: tuple[Any, ...] | None = None
        self._pipeline.no_padding()
        self._pipeline.no_truncation()
        super().__init__(**kwargs)

    def _build_backend(self) -> Tokenizer:
        raise InputError(f"{type(self).__name__}: expected tokenizer_file or tokenizer_object, got neither.")

    @property
    def _backend(self) -> Tokenizer:
        """The tokenizer with its whole vocabulary; `_pipeline` is the same one, maybe without.

        All but the vocabulary, ids of special tokens included, may be asked of `_pipeline`.
        """
        supply = self._supply
        if supply is not None:
            supply.complete()
            self._supply = None
        return self._pipeline

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizer of the `tokenizers` library behind this one."""
        return self._backend

    # Vocabulary

    @property
    def vocab_size(self) -> int:
        """The number of ids of the base vocabulary, without added tokens."""
        size: int = self._backend.get_vocab_size(with_added_tokens=False)
        return size

    def __len__(self) -> int:
        size: int = self._backend.get_vocab_size(with_added_tokens=True)
        return size

    def get_vocab(self) -> dict[str, int]:
        """Return every token with its id."""
        vocab: dict[str, int] = self._backend.get_vocab(with_added_tokens=True)
        return vocab

    @property
    def vocab(self) -> dict[str, int]:
        """What `get_vocab` returns."""
        return self.get_vocab()

    def _add_known_tokens(self, added: Mapping[int, AddedToken]) -> None:
        present = self.added_tokens_decoder
        by_text = {token.content: token for token in present.values()}
        wanted = [token for index, token in sorted(added.items()) if not _has(present, index, token)]
        texts = {token.content for token in wanted}
        for text in self.all_special_tokens:
            known = by_text.get(text)
            flagged = text in self._flagged and (known is None or not same_token(known, self._flagged[text]))
            if text not in texts and (known is None or not known.special or flagged):
                wanted.append(self._special_token(text))
        if wanted:
            self._add_tokens(wanted)

    def _add_tokens(self, tokens: Sequence[AddedToken]) -> int:
        new = 0
        for token in tokens:
            new += (self._backend.add_special_tokens if token.special else self._backend.add_tokens)([token])
        return new

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that were added to the vocabulary or are special, by id."""
        found: dict[int, AddedToken] = self._pipeline.get_added_tokens_decoder()
        return dict(sorted(found.items()))

    def _token_id(self, token: str) -> int | None:
        index: int | None = self._pipeline.token_to_id(token)
        if index is None:
            index = self._backend.token_to_id(token)
        unknown = self._special_tokens.get("unk_token")
        if index is None and unknown is not None:
            index = self._backend.token_to_id(unknown)
        return index

    def _id_token(self, index: int) -> str:
        token: str | None = self._backend.id_to_token(index) if index >= 0 else None
        if token is None:
            raise InputError(f"{type(self).__name__}: expected an id from 0 to {len(self) - 1}, got {index}.")
        return token

    # Text to ids

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return how many special tokens are added to one text, or to a pair."""
        count: int = self._pipeline.num_special_tokens_to_add(pair)
        return count

    def tokenize(self, text: str, text_pair: str | None = None, *, add_special_tokens: bool = False) -> list[str]:
        """Return the tokens of a text or a pair as strings."""
        return self(text, text_pair, add_special_tokens=add_special_tokens, verbose=False).tokens()

    def _set_lengths(self, options: CallOptions) -> None:
        """Tell the backend how long rows are, if that differs from the last call's."""
        rules = options.rules
        pads = rules.padding is not PaddingStrategy.DO_NOT_PAD
        pad = (rules.pad_to, rules.pad_to_multiple_of, rules.padding_side, self._pad_id()) if pads else None
        cut = None
        if rules.truncate_to is not None:
            cut = (rules.truncate_to, options.stride, rules.truncation.value, self.truncation_side)
        wanted = (pad, cut, options.split_special_tokens)
        if wanted == self._lengths:
            return
        self._lengths = None
        self._pipeline.encode_special_tokens = options.split_special_tokens
        self._pipeline.no_padding()
        self._pipeline.no_truncation()
        if pad is not None:
            length, multiple, side, pad_id = pad
            self._pipeline.enable_padding(
                direction=side, pad_id=pad_id, pad_token=self.pad_token, length=length, pad_to_multiple_of=multiple
            )
        if cut is not None:
            length, stride, strategy, cut_side = cut
            try:
                self._pipeline.enable_truncation(length, stride=stride, strategy=strategy, direction=cut_side)
            except ValueError as error:
                raise InputError(f"{type(self).__name__}: max_length={length}, stride={stride}: {error}.") from error
        self._lengths = wanted

    def _encode_texts(self, texts: list[Texts], options: CallOptions) -> Encoded:
        self._set_lengths(options)
        self._check_room(texts, options)
        try:
            encodings = self._encodings(texts, options)
        except Exception as error:  # the Rust library raises Exception itself
            raise self._explained(error, texts, options) from error
        except BaseException as error:
            # A panic in Rust, which is no Exception: a text leaves the other one less room than the stride.
            if not is_panic(error):
                raise
            raise InputError(f"{type(self).__name__}: {error}: lower stride or raise max_length.") from error
        fields, origins = options.fields, None
        if options.overflow:
            windows = [(index, each) for index, first in enumerate(encodings) for each in (first, *first.overflowing)]
            origins = [index for index, _ in windows]
            encodings = [each for _, each in windows]
        rows: list[Row] = []
        pads = options.rules.padding is not PaddingStrategy.DO_NOT_PAD
        for number, encoding in enumerate(encodings):
            ids = encoding.ids
            row: Row = {"input_ids": ids}
            if fields.token_type_ids:
                row["token_type_ids"] = encoding.type_ids
            if fields.attention_mask:
                row["attention_mask"] = encoding.attention_mask if pads else [1] * len(ids)
            if fields.special_tokens_mask:
                row["special_tokens_mask"] = encoding.special_tokens_mask
            if fields.offsets:
                row["offset_mapping"] = encoding.offsets
            if fields.length:
                row["length"] = len(ids)
            if origins is not None:
                row["overflow_to_sample_mapping"] = origins[number]
            rows.append(row)
        return Encoded(rows, encodings)

    def _encodings(self, texts: list[Texts], options: CallOptions) -> list[Encoding]:
        supply = self._supply
        if supply is not None and not options.split_words:
            found = supply.encode(texts, add_special_tokens=options.add_special_tokens)
            if found is not None:
                return found
        inputs = [first if second is None else (first, second) for first, second in texts]
        encodings: list[Encoding] = self._backend.encode_batch(
            inputs, is_pretokenized=options.split_words, add_special_tokens=options.add_special_tokens
        )
        return encodings

    def _check_room(self, texts: list[Texts], options: CallOptions) -> None:
        if options.rules.truncate_to is None or not options.add_special_tokens:
            return
        added = self.num_special_tokens_to_add(any(second is not None for _, second in texts))
        if options.rules.truncate_to < added:
            raise InputError(
                f"{type(self).__name__}: truncation to {options.rules.truncate_to} tokens leaves no room for the "
                f"{added} special tokens: raise max_length or pass add_special_tokens=False."
            )

    def _explained(self, error: Exception, texts: list[Texts], options: CallOptions) -> Exception:
        where = type(self).__name__
        for index, row in enumerate(texts):
            for text in row:
                for piece in (text,) if isinstance(text, str) else text or ():
                    if any(0xD800 <= ord(letter) < 0xE000 for letter in piece):
                        return InputError(
                            f"{where}: item {index} of the batch holds half of a surrogate pair and is no text in "
                            "UTF-8: clean it first."
                        )
        if "runcation" in str(error) or "equence" in str(error):
            return InputError(
                f"{where}: truncation={options.rules.truncation.value!r} cannot reach {options.rules.truncate_to} "
                f"tokens ({error}): raise max_length or choose truncation='longest_first'."
            )
        return InputError(f"{where}: {error}")

    def _text_to_ids(self, text: str) -> list[int]:
        ids: list[int] = self(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return the ids of one row, as the backend's post-processor adds special tokens."""
        return self._template(token_ids_0, token_ids_1)[0]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return the type of each token of a row, as the backend's post-processor numbers them."""
        return self._template(token_ids_0, token_ids_1)[1]

    def _template(self, first: list[int], second: list[int] | None) -> tuple[list[int], list[int]]:
        """Lay ids out as the post-processor lays out texts: one empty text is encoded, the ids are put in."""
        self._set_lengths(plain_options())
        processed = self._backend.encode("") if second is None else self._backend.encode("", "")
        ids, types = list(processed.ids), list(processed.type_ids)
        # Where a text stands is seen from one token of it.
        probe = self._backend.encode(["a"], ["a"] if second is not None else None, is_pretokenized=True)
        row_ids: list[int] = []
        row_types: list[int] = []
        seen: set[int] = set()
        special = iter(zip(ids, types, strict=True))
        for text, kind in zip(probe.sequence_ids, probe.type_ids, strict=True):
            if text is None:
                index, of_special = next(special)
                row_ids.append(index)
                row_types.append(of_special)
            elif text not in seen:
                seen.add(text)
                given = first if text == 0 else second or []
                row_ids += given
                row_types += [kind] * len(given)
        return row_ids, row_types

    # A new vocabulary

    def train_new_from_iterator(
        self,
        text_iterator: Iterable[str] | Iterable[Sequence[str]],
        vocab_size: int,
        length: int | None = None,
        new_special_tokens: Sequence[str | AddedToken] | None = None,
        special_tokens_map: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return a tokenizer of this class, with this pipeline, trained on texts or lists of texts.

        vocab_size: in tokens, special ones too. length: the number of texts, for the progress bar. new_special_tokens:
        enter beside those of this one. special_tokens_map: {old text: new text} of special tokens. kwargs: of the
        trainer in `tokenizers`, such as `min_frequency` or `show_progress`.
        Raises InputError for a size, a token or a model that cannot be.
        """
        where = f"{type(self).__name__}.train_new_from_iterator"
        renamed = dict(special_tokens_map or {})
        added = [token for token in self.added_tokens_decoder.values() if token.special]
        specials = [_renamed(token, renamed) for token in added]
        extra = [as_added_token(where, each, special=True) for each in new_special_tokens or ()]
        backend = retrained(
            where,
            self._backend,
            text_iterator,
            vocab_size,
            length=length,
            special_tokens=specials + [token for token in extra if token.content not in {s.content for s in specials}],
            renamed=renamed,
            **kwargs,
        )
        extras = self.extra_special_tokens
        tokens = {
            role: renamed.get(text, text) for role, text in self.special_tokens_map.items() if isinstance(text, str)
        }
        roles: dict[str, Any] = {role: text for role, text in tokens.items() if role not in extras}
        roles["extra_special_tokens"] = {role: text for role, text in tokens.items() if role in extras}
        more = [renamed.get(text, text) for text in self.additional_special_tokens]
        more += [token.content for token in extra if token.content not in more]
        sizes = {name: getattr(self, name) for name in ("model_max_length", "padding_side", "truncation_side")}
        known = self._constructor_keywords()
        own = {name: value for name, value in self.init_kwargs.items() if name in known}
        if more:
            roles["additional_special_tokens"] = more
        return type(self)(
            **(own | sizes | roles),
            tokenizer_object=backend,
            clean_up_tokenization_spaces=self.clean_up_tokenization_spaces,
        )

    # Ids to text

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of `tokens`."""
        decoder = self._backend.decoder
        text: str = decoder.decode(tokens) if decoder is not None else " ".join(tokens)
        return text

    def _ids_to_text(self, ids: NDArray[np.int64], skip_special_tokens: bool, **kwargs: Any) -> str:
        reject_unknown(f"{type(self).__name__}.decode", kwargs, DECODE_KEYWORDS)
        if ids.size:
            for edge in (int(ids.min()), int(ids.max())):
                self._id_token(edge)
        text: str = self._backend.decode(ids.tolist(), skip_special_tokens=skip_special_tokens)
        return text

    # Files

    def _save_backend(self, path: Path) -> None:
        copy = Tokenizer.from_str(self._backend.to_str())
        copy.no_padding()
        copy.no_truncation()
        copy.save(str(path))

    def save_vocabulary(
        self,
        save_directory: str,  # noqa: ARG002 (for a subclass that has files)
        filename_prefix: str | None = None,  # noqa: ARG002
    ) -> tuple[str, ...]:
        """Write the vocabulary files of the slow tokenizer into `save_directory`; here there are none."""
        return ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pipeline": self._backend.to_str(), "_supply": None, "_lengths": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pipeline = backend_of_json(state["_pipeline"])


def plain_options() -> CallOptions:
    """Return the options of a call without keywords."""
    from modelwright.tokenization.options import RowFields
    from modelwright.tokenization.strategies import length_rules

    rules = length_rules(
        "encode", padding=False, truncation=False, max_length=None, pad_to_multiple_of=None, padding_side="right",
        model_max_length=2**62,
    )  # fmt: skip
    return CallOptions(rules, RowFields(token_type_ids=False, attention_mask=False))


def _renamed(token: AddedToken, renamed: Mapping[str, str]) -> AddedToken:
    flags = token_to_json(token)
    return as_added_token("", flags | {"content": renamed.get(token.content, token.content)}, special=True)


def _has(present: Mapping[int, AddedToken], index: int, token: AddedToken) -> bool:
    return index in present and same_token(present[index], token)
