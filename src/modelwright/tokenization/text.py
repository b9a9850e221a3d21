"""Text going in and coming out: what a call was given, and tidying of decoded text."""

from typing import Any

from modelwright.core.errors import InputError

Texts = tuple[str, str | None]


def texts_of_call(where: str, text: Any, text_pair: Any) -> tuple[list[Texts], bool]:
    """Return the (text, second text or None) rows of one call, and whether it was a batch.

    Raises InputError, naming the item, for something that is not text, and for batches of different sizes.
    """
    if isinstance(text, str):
        if text_pair is not None and not isinstance(text_pair, str):
            raise InputError(f"{where}: text is one str, so text_pair must be too; got {type(text_pair).__name__}.")
        return [(text, text_pair)], False
    if not isinstance(text, (list, tuple)):
        raise InputError(f"{where}: expected a str, or a list of str or of pairs, got {type(text).__name__}.")
    if not text:
        raise InputError(f"{where}: expected at least one text, got an empty batch.")
    if text_pair is None:
        return [_row(where, item, index) for index, item in enumerate(text)], True
    if not isinstance(text_pair, (list, tuple)) or len(text_pair) != len(text):
        size = len(text_pair) if isinstance(text_pair, (list, tuple)) else type(text_pair).__name__
        raise InputError(f"{where}: expected a text_pair for each of the {len(text)} texts, got {size}.")
    return [
        (_text(where, first, index), _text(f"{where}: text_pair", second, index))
        for index, (first, second) in enumerate(zip(text, text_pair, strict=True))
    ], True


def _row(where: str, item: Any, index: int) -> Texts:
    if isinstance(item, (list, tuple)) and len(item) == 2:
        return _text(where, item[0], index), _text(where, item[1], index)
    return _text(where, item, index), None


def _text(where: str, item: Any, index: int) -> str:
    if not isinstance(item, str):
        raise InputError(f"{where}: item {index} of the batch: expected a str or a pair, got {type(item).__name__}.")
    return item


def clean_up_spaces(text: str) -> str:
    """Return `text` without the space that word tokenizers leave before punctuation and English contractions."""
    for ending in (".", "?", "!", ","):
        text = text.replace(f" {ending}", ending)
    text = text.replace(" ' ", "'")
    for ending in ("n't", "'m", "'s", "'ve", "'re"):
        text = text.replace(f" {ending}", ending)
    return text
