"""The call of every tokenizer: text in, padded and truncated token ids out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken

from modelwright.core.errors import InputError, reject_unknown
from modelwright.core.logging import get_logger
from modelwright.tokenization.added_tokens import as_added_token, decoder_of, list_of_tokens
from modelwright.tokenization.batch_encoding import BatchEncoding
from modelwright.tokenization.chat_template import ChatTemplateMixin
from modelwright.tokenization.files import BERT_KEYWORDS, TokenizerFilesMixin
from modelwright.tokenization.older_calls import OlderCallsMixin
from modelwright.tokenization.options import CallOptions, Encoded, RowFields
from modelwright.tokenization.padding import Row, pad_rows, rows_of
from modelwright.tokenization.special_tokens import SPECIAL_TOKEN_NAMES, token_text
from modelwright.tokenization.strategies import (
    SIDES,
    UNLIMITED_LENGTH,
    LengthRules,
    PaddingStrategy,
    TensorType,
    TruncationStrategy,
    check_stride,
    length_rules,
)
from modelwright.tokenization.tensors import ids_of_row, parse_tensor_type, to_list
from modelwright.tokenization.text import Texts, clean_up_spaces, texts_of_call
from modelwright.tokenization.truncation import overflowing_tokens, truncate_pair

logger = get_logger(__name__)


class PreTrainedTokenizerBase(ChatTemplateMixin, OlderCallsMixin, TokenizerFilesMixin):
    """What every tokenizer can do, given how one text becomes ids and back.

    A subclass gives `_text_to_ids`, `_ids_to_text`, `_token_id`, `_id_token`, `vocab_size` and, when its rows hold
    special tokens, `build_inputs_with_special_tokens` with its two companions.
    """

    model_input_names: Sequence[str] = ("input_ids", "token_type_ids", "attention_mask")
    padding_side: str = "right"
    truncation_side: str = "right"
    is_fast: ClassVar[bool] = False

    def __init__(self, **kwargs: Any) -> None:
        """Take the keywords that all tokenizers share; a subclass passes its own on, so that they are saved.

        model_max_length: the most tokens that the model takes. padding_side, truncation_side: "left" or "right".
        Special tokens: `bos_token`, `eos_token`, `unk_token`, `sep_token`, `pad_token`, `cls_token`, `mask_token`,
        `additional_special_tokens`; `extra_special_tokens`: {name: token} of further ones, which become attributes.
        BERT's options (`do_lower_case`, ...) are saved by every class, with a warning where they have no effect.
        Raises UnknownArgumentError for a keyword that neither this class nor the subclass names.
        """
        where, known = type(self).__name__, self._constructor_keywords()
        reject_unknown(where, kwargs, (*known, *BERT_KEYWORDS))
        if idle := [option for option in BERT_KEYWORDS if option in kwargs and option not in known]:
            logger.warning_once(f"{where}: {', '.join(idle)} has no effect on this tokenizer: only saved.")
        self._special_tokens, self._flagged = {}, {}
        self.additional_special_tokens = kwargs.pop("additional_special_tokens", None)
        for name in SPECIAL_TOKEN_NAMES:
            setattr(self, name, kwargs.pop(name, None))
        limit = kwargs.pop("model_max_length", None)
        self.model_max_length: int = UNLIMITED_LENGTH if limit is None else int(limit)
        self.name_or_path: str = kwargs.pop("name_or_path", "")
        self.clean_up_tokenization_spaces: bool = bool(kwargs.pop("clean_up_tokenization_spaces", False))
        self.model_input_names = list(kwargs.pop("model_input_names", None) or self.model_input_names)
        for side in ("padding_side", "truncation_side"):
            value = kwargs.pop(side, getattr(self, side))
            if value not in SIDES:
                raise InputError(f"{type(self).__name__}: expected {side} to be 'left' or 'right', got {value!r}.")
            setattr(self, side, value)
        self.split_special_tokens: bool = bool(kwargs.pop("split_special_tokens", False))
        self.chat_template: str | dict[str, str] | None = kwargs.pop("chat_template", None)
        added = kwargs.pop("added_tokens_decoder", None) or {}
        self._set_extra_special_tokens(kwargs.pop("extra_special_tokens", None) or {})
        # A subclass's own options, written to tokenizer_config.json.
        self.init_kwargs: dict[str, Any] = kwargs
        self._add_known_tokens(decoder_of(type(self).__name__, added))

    # What a subclass gives

    def _text_to_ids(self, text: str) -> list[int]:
        raise NotImplementedError

    def _ids_to_text(self, ids: NDArray[np.int64], skip_special_tokens: bool, **kwargs: Any) -> str:
        raise NotImplementedError

    def get_vocab(self) -> dict[str, int]:
        """Return every token with its id."""
        return {self._id_token(index): index for index in range(len(self))}

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return the ids of one row: by default both texts, one after the other, and nothing added."""
        return token_ids_0 if token_ids_1 is None else token_ids_0 + token_ids_1

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return 0 for every token of a row's first text and 1 for the second, special tokens with their text."""
        first = len(self.build_inputs_with_special_tokens(token_ids_0))
        total = len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))
        return [0] * first + [1] * (total - first)

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """Return 1 for each special token of a row and 0 for each token of text."""
        row = token_ids_0
        if not already_has_special_tokens:
            row = self.build_inputs_with_special_tokens(token_ids_0, token_ids_1)
        special = set(self.all_special_ids)
        return [int(index in special) for index in row]

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return how many tokens `build_inputs_with_special_tokens` adds to one text, or to a pair."""
        return len(self.build_inputs_with_special_tokens([], [] if pair else None))

    # Sizes and single tokens

    def __len__(self) -> int:
        return self.vocab_size

    def __bool__(self) -> bool:
        # A tokenizer is not an empty container, whatever its vocabulary.
        return True

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(vocab_size={self.vocab_size}, model_max_length={self.model_max_length}, "
            f"padding_side={self.padding_side!r}, special_tokens={self.special_tokens_map})"
        )

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> int | list[int | None] | None:
        """Return the id of a token, or of each of several: the unknown token's, or None, for one outside."""
        if isinstance(tokens, str):
            return self._token_id(tokens)
        return [self._token_id(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> str | list[str]:
        """Return the token of an id, or of each of several; raises InputError for an id outside the vocabulary."""
        ids = to_list(ids)
        if isinstance(ids, int):
            return self._id_token(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._id_token(index) for index in ids if index not in skipped]

    # Encoding

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        text_target: Any = None,
        text_pair_target: Any = None,
        add_special_tokens: bool = True,
        padding: bool | str | PaddingStrategy = False,
        truncation: bool | str | TruncationStrategy | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | TensorType | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        split_special_tokens: bool | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Encode a text, a pair, or a batch: a list of texts or of (text, text) pairs.

        text_target, text_pair_target: texts that become `labels`. padding: False, True or "longest", "max_length".
        truncation: False, True or "longest_first", "only_first", "only_second"; max_length: in tokens,
        `model_max_length` when None. return_overflowing_tokens: what truncation takes away comes back, with `stride`
        tokens of overlap: as further rows (fast), or in `overflowing_tokens` (slow). is_split_into_words: a text is a
        list of words. return_offsets_mapping: (start, end) characters of each token, fast only. return_tensors: "pt",
        "tf", "jax", "np", or None for lists; a tensor always is a batch. return_attention_mask, return_token_type_ids:
        None means as the model takes. return_length: the tokens of each row, padding included.
        Raises InputError (wrong type: names the item; lengths that cannot be reached; no pad token) and
        UnknownArgumentError.
        """
        where = type(self).__name__
        reject_unknown(where, kwargs, CALL_KEYWORDS)
        if text is None and text_target is None:
            raise InputError(f"{where}: expected text or text_target, got neither.")
        shared = {name: value for name, value in locals().items() if name in _SHARED}
        batch = None if text is None else self._encode_call(text, text_pair, **shared)
        if text_target is None:
            assert batch is not None
            return batch
        target = self._encode_call(text_target, text_pair_target, **shared)
        if batch is None:
            return target
        batch["labels"] = target["input_ids"]
        return batch

    def _encode_call(
        self, text: Any, text_pair: Any, *, return_tensors: str | TensorType | None, verbose: bool, **kwargs: Any
    ) -> BatchEncoding:
        where = type(self).__name__
        options = self._call_options(**kwargs)
        if return_tensors is not None:
            return_tensors = parse_tensor_type(where, return_tensors)
        texts, batched = texts_of_call(where, text, text_pair, split_words=options.split_words)
        encoded = self._encode_texts(texts, options)
        if verbose and options.rules.truncate_to is None:
            self._warn_about_length(max(len(row["input_ids"]) for row in encoded.rows))
        batched = batched or len(encoded.rows) > 1 or (self.is_fast and options.overflow)
        return self._to_batch(encoded, batched=batched, return_tensors=return_tensors)

    def _call_options(
        self,
        *,
        add_special_tokens: bool = True,
        padding: bool | str | PaddingStrategy = False,
        truncation: bool | str | TruncationStrategy | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        split_special_tokens: bool | None = None,
    ) -> CallOptions:
        rules = length_rules(
            type(self).__name__,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=self.padding_side if padding_side is None else padding_side,
            model_max_length=self.model_max_length,
        )
        fields = self._row_fields(
            return_token_type_ids, return_attention_mask, return_special_tokens_mask, return_length
        )
        return CallOptions(
            rules,
            replace(fields, offsets=return_offsets_mapping),
            add_special_tokens=add_special_tokens,
            split_special_tokens=self.split_special_tokens if split_special_tokens is None else split_special_tokens,
            stride=check_stride(type(self).__name__, stride),
            overflow=return_overflowing_tokens,
            split_words=is_split_into_words,
        )

    def encode(self, text: Any, text_pair: Any = None, **kwargs: Any) -> Any:
        """Return only the ids of one text or pair, a list or with `return_tensors` a tensor [1, tokens].

        Keywords and errors are those of a call.
        """
        if not isinstance(text, str) and not kwargs.get("is_split_into_words"):
            raise InputError(f"{type(self).__name__}.encode: expected one str, got {type(text).__name__}: call it.")
        kwargs.update(return_attention_mask=False, return_token_type_ids=False)
        return self(text, text_pair, **kwargs)["input_ids"]

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of `text` as strings, no special tokens added."""
        return self._row_tokens(self._text_to_ids(text))

    # Added tokens

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Add one token or several (strings or AddedToken) that the vocabulary lacks; return how many were new.

        special_tokens: they are skipped by `decode(skip_special_tokens=True)` and matched as they are written.
        Resize the model's embeddings afterwards: model.resize_token_embeddings(len(tokenizer)).
        Raises InputError for something that is not a token.
        """
        where = f"{type(self).__name__}.add_tokens"
        tokens = [as_added_token(where, each, special=special_tokens) for each in list_of_tokens(new_tokens)]
        return self._add_tokens([token for token in tokens if token.content])

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_additional_special_tokens: bool = True
    ) -> int:
        """Set special tokens by role ({"mask_token": "[MASK]"}), adding those that the vocabulary lacks.

        Returns how many were new. replace_additional_special_tokens: False appends to those that there are.
        Raises UnknownArgumentError for a key that is no role, InputError for something that is not a token.
        """
        where = f"{type(self).__name__}.add_special_tokens"
        reject_unknown(where, special_tokens_dict, self.SPECIAL_TOKENS_ATTRIBUTES)
        for role, value in special_tokens_dict.items():
            if role == "additional_special_tokens" and not replace_additional_special_tokens:
                known = self.additional_special_tokens
                value = known + [each for each in value if token_text(where, each) not in known]
            setattr(self, role, value)
        roles = {role: self.special_tokens_map.get(role, []) for role in special_tokens_dict}
        texts = [text for value in roles.values() for text in list_of_tokens(value)]
        return self._add_tokens([self._special_token(text) for text in texts])

    def _add_tokens(self, tokens: Sequence[AddedToken]) -> int:  # noqa: ARG002
        raise InputError(f"{type(self).__name__}: its vocabulary is fixed, no token can be added.")

    def _add_known_tokens(self, added: Mapping[int, AddedToken]) -> None:
        """Take in the added tokens of a saved tokenizer, and the special tokens that the vocabulary lacks."""
        if added:
            raise InputError(f"{type(self).__name__}: its vocabulary is fixed, no token can be added.")

    def get_added_vocab(self) -> dict[str, int]:
        """Return the ids of the added tokens by text."""
        return self.added_tokens_encoder

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        padding: bool | str | PaddingStrategy = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | TensorType | None = None,
        verbose: bool = True,  # noqa: ARG002 (there is nothing to say)
    ) -> BatchEncoding:
        """Pad what calls of this tokenizer returned: one row, a batch, or a list of rows (as a data loader gives).

        Fields other than the tokenizer's own are kept as they are. Keywords and errors are those of a call.
        """
        where = f"{type(self).__name__}.pad"
        rows, batched = rows_of(where, encoded_inputs, self.model_input_names[0])
        rules = length_rules(
            where,
            padding=padding,
            truncation=False,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=self.padding_side if padding_side is None else padding_side,
            model_max_length=self.model_max_length,
        )
        fields = self._row_fields(False, return_attention_mask, False, False)
        for row in rows:
            if fields.attention_mask and "attention_mask" not in row:
                row["attention_mask"] = [1] * len(row[self.model_input_names[0]])
        self._pad_rows(rows, rules)
        return self._to_batch(Encoded(rows), batched=batched, return_tensors=return_tensors)

    def _row_fields(
        self, token_type_ids: bool | None, attention_mask: bool | None, special_tokens_mask: bool, length: bool
    ) -> RowFields:
        names = self.model_input_names
        return RowFields(
            token_type_ids="token_type_ids" in names if token_type_ids is None else token_type_ids,
            attention_mask="attention_mask" in names if attention_mask is None else attention_mask,
            special_tokens_mask=special_tokens_mask,
            length=length,
        )

    def _encode_texts(self, texts: list[Texts], options: CallOptions) -> Encoded:
        """Encode, truncate and pad `texts`."""
        if options.fields.offsets:
            raise InputError(
                f"{type(self).__name__}: return_offsets_mapping needs a fast tokenizer (a class that ends in 'Fast')."
            )
        rows = [self._encode_row(each, options) for each in texts]
        self._pad_rows(rows, options.rules)
        if options.fields.length:
            for row in rows:
                row["length"] = len(row["input_ids"])
        return Encoded(rows)

    def _ids_of(self, text: Any, options: CallOptions) -> list[int]:
        """Return the ids of one text, or of words that are split already."""
        if options.split_words:
            return [index for word in text for index in self._text_to_ids(word)]
        return self._text_to_ids(text)

    def _encode_row(self, texts: Texts, options: CallOptions) -> Row:
        ids = self._ids_of(texts[0], options)
        return self._row_of(ids, None if texts[1] is None else self._ids_of(texts[1], options), options)

    def _row_of(self, ids: list[int], pair_ids: list[int] | None, options: CallOptions) -> Row:
        """Truncate the ids of one text or two, and lay them out with special tokens."""
        rules, fields = options.rules, options.fields
        overflow: Row = {}
        if rules.truncate_to is not None:
            added = self.num_special_tokens_to_add(pair=pair_ids is not None) if options.add_special_tokens else 0
            total, where = rules.truncate_to - added, type(self).__name__
            if options.overflow:
                overflow = overflowing_tokens(
                    where, ids, pair_ids, total, rules.truncation, self.truncation_side, options.stride
                )
            ids, pair_ids = truncate_pair(
                where, ids, pair_ids, total=total, strategy=rules.truncation, side=self.truncation_side
            )
        if options.add_special_tokens:
            row: Row = {"input_ids": self.build_inputs_with_special_tokens(ids, pair_ids)}
            if fields.token_type_ids:
                row["token_type_ids"] = self.create_token_type_ids_from_sequences(ids, pair_ids)
            if fields.special_tokens_mask:
                row["special_tokens_mask"] = self.get_special_tokens_mask(ids, pair_ids)
        else:
            row = {"input_ids": ids + (pair_ids or [])}
            if fields.token_type_ids:
                row["token_type_ids"] = [0] * len(ids) + [1] * len(pair_ids or ())
            if fields.special_tokens_mask:
                row["special_tokens_mask"] = [0] * len(row["input_ids"])
        if fields.attention_mask:
            row["attention_mask"] = [1] * len(row["input_ids"])
        return row | overflow

    def _pad_id(self) -> int:
        pad_id = self.pad_token_id
        if pad_id is None:
            raise InputError(
                f"{type(self).__name__} has no pad token, or one that is not in its vocabulary: set one before "
                "padding, for example tokenizer.pad_token = tokenizer.eos_token."
            )
        return pad_id

    def _pad_rows(self, rows: list[Row], rules: LengthRules) -> None:
        if rules.padding is not PaddingStrategy.DO_NOT_PAD:
            pad_id = self._pad_id()
            values = {"input_ids": pad_id, "attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}
            main_input = self.model_input_names[0]
            pad_rows(rows, rules, main_input=main_input, pad_values={main_input: pad_id} | values)

    def _to_batch(self, encoded: Encoded, *, batched: bool, return_tensors: str | TensorType | None) -> BatchEncoding:
        """Join rows into one BatchEncoding."""
        rows = encoded.rows
        data = {name: [row[name] for row in rows] for name in rows[0]} if batched else rows[0]
        return BatchEncoding(
            data,
            tensor_type=return_tensors,
            prepend_batch_axis=not batched,
            ids_to_tokens=self._row_tokens,
            encoding=encoded.encodings,
        )

    def _row_tokens(self, ids: list[int]) -> list[str]:
        return [self._id_token(index) for index in ids]

    def _warn_about_length(self, length: int) -> None:
        if length > self.model_max_length:
            logger.warning_once(
                f"{type(self).__name__}: {length} tokens are more than the model's {self.model_max_length} "
                "(model_max_length): pass truncation=True, or shorten the text."
            )

    # Decoding

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> str:
        """Return the text of one row of ids: a number, a list, an array or a tensor [tokens].

        clean_up_tokenization_spaces: take out the space before punctuation and English contractions; None means the
        tokenizer's attribute of that name. Other keywords belong to the subclass.
        Raises InputError for a batch (`batch_decode` takes it) and for an id outside the vocabulary.
        """
        ids = ids_of_row(f"{type(self).__name__}.decode", token_ids)
        text = self._ids_to_text(ids, skip_special_tokens, **kwargs)
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        return clean_up_spaces(text) if clean_up_tokenization_spaces else text

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **kwargs: Any) -> list[str]:
        """Return the text of each row of a batch; keywords and errors are those of `decode`."""
        return [self.decode(row, skip_special_tokens=skip_special_tokens, **kwargs) for row in sequences]


CALL_KEYWORDS = tuple(sorted(set(signature(PreTrainedTokenizerBase.__call__).parameters) - {"self", "kwargs"}))
_SHARED = frozenset(CALL_KEYWORDS) - {"text", "text_pair", "text_target", "text_pair_target"}
