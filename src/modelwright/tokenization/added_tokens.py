"""Tokens that are added to a vocabulary: what was given becomes an AddedToken with flags, and its form in a file."""

from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import AddedToken

from modelwright.core.errors import InputError

FLAGS = ("lstrip", "normalized", "rstrip", "single_word", "special")


def as_added_token(where: str, value: Any, *, special: bool) -> AddedToken:
    """Return `value`, a string, an AddedToken or its form in a file, as a token of its own.

    A string that becomes a special token is matched as it is written; another one is normalized with the text.
    Raises InputError for anything else.
    """
    if isinstance(value, str):
        return AddedToken(value, normalized=not special, special=special)
    if isinstance(value, Mapping) and isinstance(value.get("content"), str):
        flags = {name: bool(value[name]) for name in FLAGS if name in value}
        flags["special"] = special or flags.get("special", False)
        return AddedToken(value["content"], **flags)
    if isinstance(value, AddedToken):
        return AddedToken(value.content, **({name: getattr(value, name) for name in FLAGS} | _special(value, special)))
    raise InputError(f"{where}: expected a string or an AddedToken, got {value!r}.")


def _special(token: AddedToken, special: bool) -> dict[str, bool]:
    return {"special": special or token.special}


def list_of_tokens(value: Any) -> list[Any]:
    """Return `value`, one token or several, as a list."""
    single = isinstance(value, (str, AddedToken, Mapping)) or not isinstance(value, Iterable)
    return [value] if single else list(value)


def token_to_json(token: AddedToken) -> dict[str, Any]:
    """Return the form of `token` in tokenizer_config.json."""
    return {"content": token.content, **{name: getattr(token, name) for name in FLAGS}}


def same_token(first: AddedToken, second: AddedToken) -> bool:
    """Tell whether text and flags are equal."""
    return token_to_json(first) == token_to_json(second)


def decoder_of(where: str, stored: Any) -> dict[int, AddedToken]:
    """Return the `added_tokens_decoder` of a tokenizer_config.json as {id: token}; raises InputError."""
    if not isinstance(stored, Mapping):
        raise InputError(f"{where}: expected added_tokens_decoder to map ids to tokens, got {stored!r}.")
    try:
        return {int(index): as_added_token(where, token, special=False) for index, token in stored.items()}
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: added_tokens_decoder: {error}") from error
