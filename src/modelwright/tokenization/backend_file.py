"""tokenizer.json becomes a tokenizer of the `tokenizers` library."""

import json
import os
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models

from modelwright.core.errors import ConfigError
from modelwright.tokenization.added_tokens import as_added_token

WORDPIECE_OPTIONS = frozenset({"unk_token", "continuing_subword_prefix", "max_input_chars_per_word"})


def read_backend(path: str | os.PathLike[str]) -> Tokenizer:
    """Read a tokenizer.json; raises ConfigError that names the file."""
    try:
        return backend_of_json(Path(path).read_bytes().decode("utf-8"))
    except BaseException as error:  # the Rust library raises Exception itself
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise ConfigError(f"{path}: expected a tokenizer.json of the tokenizers library: {error}") from error


def is_panic(error: BaseException) -> bool:
    """Tell whether the Rust library gave up in the middle: its error is no Exception."""
    return type(error).__name__ == "PanicException"


def backend_of_json(text: str) -> Tokenizer:
    """Return the tokenizer that `text`, the content of a tokenizer.json, describes."""
    if '"WordPiece"' in text:
        # What is not as the library writes it is left to the library's own parse: it takes it, or says what is wrong.
        with suppress(Exception):
            return _wordpiece_backend(json.loads(text))
    return Tokenizer.from_str(text)


def _wordpiece_backend(content: dict[str, Any]) -> Tokenizer:
    """Build a WordPiece tokenizer from its parts, in the order in which the library does.

    The library reads a vocabulary through a tree of generic JSON values, which costs more than Python's parser and a
    dictionary. The other models gain nothing, because their vocabulary or merges are lists.
    Raises an error of any class for content that is not as the library writes it.
    """
    model, added = content["model"], content["added_tokens"]
    options = {name: value for name, value in model.items() if name not in ("type", "vocab")}
    if model["type"] != "WordPiece" or options.keys() != WORDPIECE_OPTIONS:
        raise ValueError("another model")
    shell = content | {"model": model | {"vocab": {}}, "added_tokens": []}
    backend = Tokenizer.from_str(json.dumps(shell))
    backend.model = models.WordPiece(model["vocab"], **options)
    tokens = (as_added_token("", token, special=False) for token in added)
    for special, group in groupby(tokens, key=lambda token: token.special):
        (backend.add_special_tokens if special else backend.add_tokens)(list(group))
    return backend
