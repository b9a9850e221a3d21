"""Added tokens of a tokenizer in Python: their ids, and where they stand in a text."""

import re
from collections.abc import Callable, Iterable

from tokenizers import AddedToken


class AddedVocabulary:
    """Added tokens by id, and the expression that finds them in a text."""

    def __init__(self) -> None:
        self.by_id: dict[int, AddedToken] = {}
        self.ids: dict[str, int] = {}
        self._pattern: re.Pattern[str] | None = None

    def put(self, index: int, token: AddedToken) -> None:
        """Enter or replace a token."""
        self.by_id[index] = token
        self.ids[token.content] = index
        self._pattern = None

    def _find(self) -> re.Pattern[str]:
        if self._pattern is None:
            # The longest of the tokens that begin at one place wins.
            texts = sorted(self.ids, key=len, reverse=True)
            self._pattern = re.compile("(" + "|".join(map(re.escape, texts)) + ")")
        return self._pattern

    def split(self, text: str) -> list[tuple[str, bool]]:
        """Return the pieces of `text` in order, each with whether it is an added token.

        A token's flags decide about the spaces beside it, and whether it may stand inside a word.
        """
        if not self.ids:
            return [(text, False)] if text else []
        pieces = [piece for piece in self._find().split(text) if piece]
        for index, piece in enumerate(pieces):
            if piece not in self.ids:
                continue
            token = self.by_id[self.ids[piece]]
            left = pieces[index - 1] if index else ""
            right = pieces[index + 1] if index + 1 < len(pieces) else ""
            if token.rstrip and right:
                pieces[index + 1] = right.lstrip()
            if token.lstrip and left:
                pieces[index - 1] = left.rstrip()
            # Inside a word it is text, and so is a token that it touches.
            if token.single_word and left and left[-1] != " ":
                pieces[index - 1 : index + 1] = [left + piece, ""]
            elif token.single_word and right and right[0] != " ":
                pieces[index : index + 2] = ["", piece + right]
        return [(piece, piece in self.ids) for piece in pieces if piece]

    def lowercase_outside(self, text: str, keep: Iterable[str]) -> str:
        """Return `text` in lower case, but for the tokens `keep` and those that are matched as they are written."""
        literal = {token.content for token in self.by_id.values() if token.special or not token.normalized}
        texts = sorted(literal | set(keep), key=len, reverse=True)
        if not texts:
            return _lower(text)
        pieces = re.split("(" + "|".join(map(re.escape, texts)) + ")", text)
        return "".join(piece if index % 2 else _lower(piece) for index, piece in enumerate(pieces))


def _lower(text: str) -> str:
    # Letter by letter, as the models were trained: str.lower knows a sigma at the end of a word.
    return "".join([letter.lower() for letter in text])


def place_tokens(
    vocabulary: AddedVocabulary, tokens: Iterable[AddedToken], find: Callable[[str], int | None], first_free: int
) -> int:
    """Enter `tokens`: one that `find` knows keeps its id, another takes the next one; return how many were new."""
    new = 0
    for token in tokens:
        if token.content in vocabulary.ids:
            continue
        index = find(token.content)
        if index is None:
            index, new = first_free + new, new + 1
        vocabulary.put(index, token)
    return new
