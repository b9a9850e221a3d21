"""WordPiece in Python: clean a text, split it into words and marks, and words into the longest known pieces.

The rules are those of BERT's own tokenizer (Devlin et al. 2018, google-research/bert tokenization.py).
"""

import unicodedata
from collections.abc import Collection, Mapping

_CJK = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def is_cjk(letter: str) -> bool:
    """Tell whether `letter` is a CJK ideograph, which is a word of its own (not kana, not hangul)."""
    return any(low <= ord(letter) <= high for low, high in _CJK)


def is_punctuation(letter: str) -> bool:
    """Tell whether `letter` is a mark of its own: Unicode punctuation and every ASCII sign."""
    ascii_sign = letter.isascii() and letter.isprintable() and not letter.isalnum() and letter != " "
    return ascii_sign or unicodedata.category(letter).startswith("P")


def _cleaned(letter: str, split_cjk: bool) -> str:
    """Return what a character of the text becomes: itself, a space, or nothing."""
    if letter in " \t\n\r" or unicodedata.category(letter) == "Zs":
        return " "
    if letter == "\ufffd" or unicodedata.category(letter).startswith("C"):
        return ""
    return f" {letter} " if split_cjk and is_cjk(letter) else letter


def _split_marks(word: str) -> list[str]:
    pieces: list[str] = []
    inside = False
    for letter in word:
        mark = is_punctuation(letter)
        if mark or not inside:
            pieces.append(letter)
        else:
            pieces[-1] += letter
        inside = not mark
    return pieces


class BasicTokenizer:
    """Splits a text at spaces, marks and (if wanted) CJK ideographs, in lower case and without accents if wanted."""

    def __init__(
        self,
        *,
        lower_case: bool = True,
        split_cjk: bool = True,
        strip_accents: bool | None = None,
        never_split: Collection[str] = (),
    ) -> None:
        """strip_accents: None means as `lower_case`. never_split: words that stay as they are."""
        self.lower_case, self.split_cjk = lower_case, split_cjk
        self.strip_accents = lower_case if strip_accents is None else strip_accents
        self.never_split = frozenset(never_split)

    def tokenize(self, text: str, never_split: Collection[str] = ()) -> list[str]:
        """Return the words and marks of `text`."""
        keep = self.never_split.union(never_split)
        text = "".join([_cleaned(letter, self.split_cjk) for letter in text])
        words: list[str] = []
        for word in unicodedata.normalize("NFC", text).split():
            if word in keep:
                words.append(word)
                continue
            if self.lower_case:
                word = word.lower()
            if self.strip_accents:
                word = "".join(
                    each for each in unicodedata.normalize("NFD", word) if unicodedata.category(each) != "Mn"
                )
            words += " ".join(_split_marks(word)).split()
        return words


def split_word(word: str, vocabulary: Mapping[str, int], unknown: str, longest: int = 100) -> list[str]:
    """Return `word` as the longest pieces of the vocabulary, "##" before all but the first.

    A word of more than `longest` characters, or with a part that no piece covers, is `unknown` as a whole.
    """
    if len(word) > longest:
        return [unknown]
    pieces: list[str] = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        for stop in range(len(word), start, -1):
            if (piece := prefix + word[start:stop]) in vocabulary:
                break
        else:
            return [unknown]
        pieces.append(piece)
        start = stop
    return pieces
