"""tokenizer.json becomes a tokenizer of the `tokenizers` library."""

import json
import os
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from tokenizers import Tokenizer, models

from modelwright.core.errors import ConfigError
from modelwright.tokenization.added_tokens import as_added_token
from modelwright.tokenization.wordpiece_supply import WordPieceSupply

WORDPIECE_OPTIONS = frozenset({"unk_token", "continuing_subword_prefix", "max_input_chars_per_word"})


def read_backend(path: str | os.PathLike[str]) -> tuple[Tokenizer, WordPieceSupply | None]:
    """Read a tokenizer.json; with a supply, the tokenizer has no more of its vocabulary than its added tokens yet.

    Raises ConfigError that names the file.
    """
    try:
        return _backend_with_supply(Path(path).read_bytes().decode("utf-8"))
    except BaseException as error:  # the Rust library raises Exception itself
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise ConfigError(f"{path}: expected a tokenizer.json of the tokenizers library: {error}") from error


def is_panic(error: BaseException) -> bool:
    """Tell whether the Rust library gave up in the middle: its error is no Exception."""
    return type(error).__name__ == "PanicException"


def backend_of_json(text: str) -> Tokenizer:
    """Return the tokenizer that `text`, the content of a tokenizer.json, describes."""
    backend, supply = _backend_with_supply(text)
    if supply is not None:
        supply.complete()
    return backend


def _backend_with_supply(text: str) -> tuple[Tokenizer, WordPieceSupply | None]:
    if '"WordPiece"' in text:
        # What is not as the library writes it is left to the library's own parse: it takes it, or says what is wrong.
        with suppress(Exception):
            return _wordpiece_backend(text)
    return Tokenizer.from_str(text), None


def _wordpiece_backend(text: str) -> tuple[Tokenizer, WordPieceSupply | None]:
    """Build a WordPiece tokenizer from its parts, in the order in which the library does.

    The library reads a vocabulary through a tree of generic JSON values, which costs more than Python's parser and a
    dictionary. The other models gain nothing, because their vocabulary or merges are lists.
    Raises an error of any class for content that is not as the library writes it.
    """
    content = json.loads(text)
    model, added = content["model"], content["added_tokens"]
    vocab: dict[str, int] = model["vocab"]
    options = {name: value for name, value in model.items() if name not in ("type", "vocab")}
    if model["type"] != "WordPiece" or options.keys() != WORDPIECE_OPTIONS:
        raise ValueError("another model")
    shell = content | {"model": model | {"vocab": {}}, "added_tokens": []}
    backend = Tokenizer.from_str(json.dumps(shell))
    supply, first = None, vocab
    if "\\ud" not in text.lower() and WordPieceSupply.suits(vocab, added, model["unk_token"]):  # no half letter
        supply = WordPieceSupply(backend, vocab, options)
        first = {token["content"]: vocab[token["content"]] for token in added}
    backend.model = models.WordPiece(first, **options)
    tokens = (as_added_token("", token, special=False) for token in added)
    for special, group in groupby(tokens, key=lambda token: token.special):
        (backend.add_special_tokens if special else backend.add_tokens)(list(group))
    return backend, supply
