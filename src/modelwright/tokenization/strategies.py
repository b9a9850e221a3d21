"""The words for padding and truncation, and what one call's keywords come to."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from modelwright.core.errors import InputError, check_choice
from modelwright.core.logging import get_logger

logger = get_logger(__name__)

# A `model_max_length` from here on means "no limit": files written by 4.x say int(1e30).
NO_LIMIT = 10**18
UNLIMITED_LENGTH = int(1e30)

Side = Literal["left", "right"]
SIDES = ("left", "right")


class PaddingStrategy(StrEnum):
    """How far rows are padded."""

    LONGEST = "longest"
    MAX_LENGTH = "max_length"
    DO_NOT_PAD = "do_not_pad"


class TruncationStrategy(StrEnum):
    """Which text of a row loses tokens when the row is too long."""

    ONLY_FIRST = "only_first"
    ONLY_SECOND = "only_second"
    LONGEST_FIRST = "longest_first"
    DO_NOT_TRUNCATE = "do_not_truncate"


class TensorType(StrEnum):
    """The array types that a tokenizer returns."""

    PYTORCH = "pt"
    TENSORFLOW = "tf"
    JAX = "jax"
    NUMPY = "np"


@dataclass(frozen=True)
class LengthRules:
    """How rows get their length: cut to `truncate_to` tokens, then padded to the longest row or to `pad_to` tokens."""

    padding: PaddingStrategy
    truncation: TruncationStrategy
    pad_to: int | None
    truncate_to: int | None
    pad_to_multiple_of: int | None
    padding_side: Side


def padding_strategy(where: str, padding: bool | str | PaddingStrategy) -> PaddingStrategy:
    """Return the strategy that `padding` names; True is "longest". Raises InputError for another word."""
    if isinstance(padding, bool) or padding is None:
        return PaddingStrategy.LONGEST if padding else PaddingStrategy.DO_NOT_PAD
    check_choice(f"{where}: padding", getattr(padding, "value", padding), [each.value for each in PaddingStrategy])
    return PaddingStrategy(padding)


def truncation_strategy(where: str, truncation: bool | str | TruncationStrategy | None) -> TruncationStrategy:
    """Return the strategy that `truncation` names; True is "longest_first". Raises InputError for another word."""
    if isinstance(truncation, bool) or truncation is None:
        return TruncationStrategy.LONGEST_FIRST if truncation else TruncationStrategy.DO_NOT_TRUNCATE
    value = getattr(truncation, "value", truncation)
    check_choice(f"{where}: truncation", value, [each.value for each in TruncationStrategy])
    return TruncationStrategy(truncation)


def length_rules(
    where: str,
    *,
    padding: bool | str | PaddingStrategy,
    truncation: bool | str | TruncationStrategy | None,
    max_length: int | None,
    pad_to_multiple_of: int | None,
    padding_side: str,
    model_max_length: int,
) -> LengthRules:
    """Resolve one call's keywords, lengths in tokens.

    As in 4.x, a `max_length` without `padding` and with `truncation` left at None truncates, which is said once; a
    strategy that needs a length when neither the call nor the tokenizer has one does nothing, which is said once.
    Raises InputError for words and numbers that cannot work.
    """
    _check_positive(where, "max_length", max_length)
    _check_positive(where, "pad_to_multiple_of", pad_to_multiple_of)
    check_choice(f"{where}: padding_side", padding_side, SIDES)
    pad = padding_strategy(where, padding)
    cut = truncation_strategy(where, truncation)
    if max_length is not None and truncation is None and pad is PaddingStrategy.DO_NOT_PAD:
        logger.warning_once(
            f"{where}: max_length was given without truncation: longest_first is used. Say truncation=True or False."
        )
        cut = TruncationStrategy.LONGEST_FIRST

    limit = max_length
    if limit is None and model_max_length < NO_LIMIT:
        limit = model_max_length
    if limit is None and pad is PaddingStrategy.MAX_LENGTH:
        logger.warning_once(f"{where}: padding='max_length' pads nothing without max_length or model_max_length.")
        pad = PaddingStrategy.DO_NOT_PAD
    if limit is None and cut is not TruncationStrategy.DO_NOT_TRUNCATE:
        logger.warning_once(f"{where}: truncation cuts nothing without max_length or model_max_length.")
        cut = TruncationStrategy.DO_NOT_TRUNCATE

    pads, cuts = pad is not PaddingStrategy.DO_NOT_PAD, cut is not TruncationStrategy.DO_NOT_TRUNCATE
    if max_length is not None and not cuts and pad is not PaddingStrategy.MAX_LENGTH:
        logger.warning_once(f"{where}: max_length does nothing without truncation=True or padding='max_length'.")
    if pad_to_multiple_of is not None and not pads:
        logger.warning_once(f"{where}: pad_to_multiple_of does nothing without padding.")
    if pads and cuts and pad_to_multiple_of and limit and limit % pad_to_multiple_of:
        raise InputError(
            f"{where}: truncation to {limit} tokens and padding to a multiple of {pad_to_multiple_of} contradict each "
            f"other: choose a max_length that is a multiple of {pad_to_multiple_of}."
        )
    return LengthRules(
        padding=pad,
        truncation=cut,
        pad_to=limit if pad is PaddingStrategy.MAX_LENGTH else None,
        truncate_to=limit if cuts else None,
        pad_to_multiple_of=pad_to_multiple_of,
        padding_side="left" if padding_side == "left" else "right",
    )


def check_stride(where: str, stride: int) -> int:
    """Return `stride`, the tokens that windows share; raises InputError for something that is no such number."""
    if isinstance(stride, bool) or not isinstance(stride, int) or stride < 0:
        raise InputError(f"{where}: expected stride to be a whole number of tokens, 0 or more; got {stride!r}.")
    return stride


def _check_positive(where: str, name: str, value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"{where}: expected {name} to be a whole number of tokens, 1 or more, or None; got {value!r}.")
