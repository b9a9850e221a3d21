"""Text going in and coming out: what a call was given, and tidying of decoded text."""

from typing import Any

from modelwright.core.errors import InputError

# A text, or its words when it is split already.
Text = str | list[str]
Texts = tuple[Any, Any]


def texts_of_call(where: str, text: Any, text_pair: Any, *, split_words: bool = False) -> tuple[list[Texts], bool]:
    """Return the (text, second text or None) rows of one call, and whether it was a batch.

    split_words: a text is a list of words. Raises InputError, naming the item, for something that is not text, and for
    batches of different sizes.
    """
    if isinstance(text, str) and not split_words:
        if text_pair is not None and not isinstance(text_pair, str):
            raise InputError(f"{where}: text is one str, so text_pair must be too; got {type(text_pair).__name__}.")
        return [(text, text_pair)], False
    if not isinstance(text, (list, tuple)):
        expected = "a list of words, or a list of such lists" if split_words else "a str, or a list of str or of pairs"
        raise InputError(f"{where}: expected {expected}, got {type(text).__name__}.")
    if split_words and (not text or isinstance(text[0], str)):
        pair = None if text_pair is None else _words(f"{where}: text_pair", text_pair, 0)
        return [(_words(where, text, 0), pair)], False
    if not text:
        raise InputError(f"{where}: expected at least one text, got an empty batch.")
    one = _words if split_words else _text
    if text_pair is None:
        return [_row(where, item, index, split_words) for index, item in enumerate(text)], True
    if not isinstance(text_pair, (list, tuple)) or len(text_pair) != len(text):
        size = len(text_pair) if isinstance(text_pair, (list, tuple)) else type(text_pair).__name__
        raise InputError(f"{where}: expected a text_pair for each of the {len(text)} texts, got {size}.")
    return [
        (one(where, first, index), one(f"{where}: text_pair", second, index))
        for index, (first, second) in enumerate(zip(text, text_pair, strict=True))
    ], True


def _row(where: str, item: Any, index: int, split_words: bool) -> Texts:
    if split_words:
        if isinstance(item, (list, tuple)) and len(item) == 2 and not isinstance(item[0], str):
            return _words(where, item[0], index), _words(where, item[1], index)
        return _words(where, item, index), None
    if isinstance(item, str):
        return item, None
    if isinstance(item, (list, tuple)) and len(item) == 2:
        return _text(where, item[0], index), _text(where, item[1], index)
    return _text(where, item, index), None


def _text(where: str, item: Any, index: int) -> str:
    if not isinstance(item, str):
        hint = " For words that are split already, pass is_split_into_words=True." if isinstance(item, list) else ""
        raise InputError(
            f"{where}: item {index} of the batch: expected a str or a pair, got {type(item).__name__}.{hint}"
        )
    return item


def _words(where: str, item: Any, index: int) -> list[str]:
    if not isinstance(item, (list, tuple)) or not all(isinstance(word, str) for word in item):
        wrong = next((word for word in item if not isinstance(word, str)), item) if isinstance(item, list) else item
        raise InputError(f"{where}: item {index}: expected a list of words, got {type(wrong).__name__}.")
    return list(item)


def clean_up_spaces(text: str) -> str:
    """Return `text` without the space that word tokenizers leave before punctuation and English contractions."""
    for ending in (".", "?", "!", ","):
        text = text.replace(f" {ending}", ending)
    text = text.replace(" ' ", "'")
    for ending in ("n't", "'m", "'s", "'ve", "'re"):
        text = text.replace(f" {ending}", ending)
    return text
