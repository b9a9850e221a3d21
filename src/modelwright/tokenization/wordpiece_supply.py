"""A WordPiece vocabulary that reaches the Rust library when it is needed: handing it over is most of a load.

To split a word WordPiece looks up parts of that word and nothing else. So a text gets its own ids, offsets and tokens
from a model that holds no more than the tokens that are parts of its words.
"""

from array import array
from collections.abc import Sequence
from threading import Lock
from typing import Any

from tokenizers import Encoding, Tokenizer, models

from modelwright.tokenization.text import Texts

# About where looking up parts of words has cost as much as handing over a whole vocabulary.
FREE_CHARACTERS = 1000


class WordPieceSupply:
    """Gives `tokenizer`, whose model holds its added tokens only, the rest of `vocab`: the whole, or a text's part."""

    def __init__(self, tokenizer: Tokenizer, vocab: dict[str, int], options: dict[str, Any]) -> None:
        """Check the ids: what the library would refuse is refused here.

        options: the other arguments of the library's WordPiece. Raises TypeError, OverflowError.
        """
        array("I", vocab.values())
        self._tokenizer, self._vocab, self._options = tokenizer, vocab, options
        self._free = FREE_CHARACTERS
        self._lock = Lock()  # a model of one text must not meet the text of another thread
        self._complete = False

    @staticmethod
    def suits(vocab: dict[str, int], added: Sequence[dict[str, Any]], unk_token: str) -> bool:
        """Tell whether texts without added tokens can be split by a part of the vocabulary.

        The id of an added token that the vocabulary lacks follows from the size of the whole, and a token that is
        looked for in normalized text may hide anywhere.
        """
        return unk_token in vocab and all(
            token["content"] in vocab and token["special"] and not token["normalized"] for token in added
        )

    def complete(self) -> None:
        """Hand over the whole vocabulary, once."""
        with self._lock:
            if not self._complete:
                self._tokenizer.model = models.WordPiece(self._vocab, **self._options)
                self._complete = True

    def encode(self, texts: Sequence[Texts], **keywords: Any) -> list[Encoding] | None:
        """Encode a few short texts by their part of the vocabulary; None where the whole must be handed over first.

        keywords: of the library's `encode_batch`. Raises what it raises.
        """
        strings = [text for pair in texts for text in pair if text is not None]
        characters = sum(map(len, strings))
        with self._lock:
            if self._complete or characters > self._free:
                return None
            added = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
            if any(token in text for text in strings for token in added):
                return None
            self._free -= characters
            self._tokenizer.model = models.WordPiece(self._part(strings, added), **self._options)
            inputs = [first if second is None else (first, second) for first, second in texts]
            encodings: list[Encoding] = self._tokenizer.encode_batch(inputs, **keywords)
            return encodings

    def _part(self, texts: list[str], added: set[str]) -> dict[str, int]:
        """Return the tokens that are parts of the words of `texts`, with the added and the unknown one."""
        prefix, longest = self._options["continuing_subword_prefix"], self._options["max_input_chars_per_word"]
        wanted = {*added, self._options["unk_token"]}
        for word in {word for text in texts for word in self._words(text) if len(word) <= longest}:
            size = len(word)
            wanted.update(word[:end] for end in range(1, size + 1))
            wanted.update(prefix + word[start:end] for start in range(1, size) for end in range(start + 1, size + 1))
        return {token: self._vocab[token] for token in wanted if token in self._vocab}

    def _words(self, text: str) -> list[str]:
        normalizer, splitter = self._tokenizer.normalizer, self._tokenizer.pre_tokenizer
        text = text if normalizer is None else normalizer.normalize_str(text)
        return [text] if splitter is None else [word for word, _ in splitter.pre_tokenize_str(text)]
