"""What 4.x code calls beside a tokenizer's `__call__`: single steps of it, and older names."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

from modelwright.core.errors import reject_unknown
from modelwright.tokenization.batch_encoding import BatchEncoding
from modelwright.tokenization.options import CallOptions, Encoded
from modelwright.tokenization.padding import Row
from modelwright.tokenization.strategies import TensorType, TruncationStrategy
from modelwright.tokenization.strategies import truncation_strategy as parse_strategy
from modelwright.tokenization.truncation import overflowing_tokens, truncate_pair

# Options of a call that are about text, of which `prepare_for_model` has none.
_ABOUT_TEXT = frozenset({"is_split_into_words", "split_special_tokens", "return_offsets_mapping"})


class OlderCallsMixin:
    """Steps of a call for ids that are there already, and the names that a call had before."""

    model_max_length: int
    truncation_side: str
    _call_options: Callable[..., CallOptions]
    _row_of: Callable[[list[int], list[int] | None, CallOptions], Row]
    _pad_rows: Callable[..., None]
    _to_batch: Callable[..., BatchEncoding]
    _warn_about_length: Callable[[int], None]
    num_special_tokens_to_add: Callable[..., int]
    __call__: Callable[..., BatchEncoding]

    def prepare_for_model(
        self,
        ids: Sequence[int],
        pair_ids: Sequence[int] | None = None,
        *,
        return_tensors: str | TensorType | None = None,
        prepend_batch_axis: bool = False,
        verbose: bool = True,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Truncate, frame by special tokens and pad the ids of one text or of a pair.

        prepend_batch_axis: return a batch of one row, as with `return_tensors`. Other keywords and errors are those of
        a call that are not about text.
        """
        where = f"{type(self).__name__}.prepare_for_model"
        reject_unknown(where, kwargs, signature(self._call_options).parameters.keys() - _ABOUT_TEXT)
        options = self._call_options(**kwargs)
        row = self._row_of(list(ids), None if pair_ids is None else list(pair_ids), options)
        if verbose and options.rules.truncate_to is None:
            self._warn_about_length(len(row["input_ids"]))
        self._pad_rows([row], options.rules)
        if options.fields.length:
            row["length"] = len(row["input_ids"])
        batched = prepend_batch_axis and return_tensors is None
        return self._to_batch(Encoded([row]), batched=batched, return_tensors=return_tensors)

    def truncate_sequences(
        self,
        ids: list[int],
        pair_ids: list[int] | None = None,
        num_tokens_to_remove: int = 0,
        truncation_strategy: str | TruncationStrategy = "longest_first",
        stride: int = 0,
    ) -> tuple[list[int], list[int] | None, list[int]]:
        """Return both texts without `num_tokens_to_remove` tokens, and what was removed with `stride` tokens more.

        What is removed is of one text; of a pair by "longest_first", where it is of both, it is []. Raises InputError
        for a strategy that cannot remove as many.
        """
        where = f"{type(self).__name__}.truncate_sequences"
        strategy = parse_strategy(where, truncation_strategy)
        total = len(ids) + len(pair_ids or ()) - max(num_tokens_to_remove, 0)
        first, second = truncate_pair(where, ids, pair_ids, total=total, strategy=strategy, side=self.truncation_side)
        if pair_ids is not None and strategy is TruncationStrategy.LONGEST_FIRST:
            return first, second, []
        lost = overflowing_tokens(where, ids, pair_ids, total, strategy, self.truncation_side, stride)
        return first, second, lost["overflowing_tokens"]

    @property
    def max_len_single_sentence(self) -> int:
        """The most tokens of a text alone, so that with special tokens it fits the model."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=False)

    @property
    def max_len_sentences_pair(self) -> int:
        """The most tokens of two texts together, so that with special tokens they fit the model."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    def encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:
        """Encode one text or pair: an older name for a call."""
        return self(text, text_pair, **kwargs)

    def batch_encode_plus(self, batch_text_or_text_pairs: Any, **kwargs: Any) -> BatchEncoding:
        """Encode a batch: an older name for a call."""
        return self(batch_text_or_text_pairs, **kwargs)

    @contextmanager
    def as_target_tokenizer(self) -> Iterator[None]:
        """Encode labels inside this context: these tokenizers encode them like any text. Use `text_target` instead."""
        warnings.warn(
            "as_target_tokenizer is deprecated: pass the labels to a call as text_target.", FutureWarning, stacklevel=3
        )
        yield
