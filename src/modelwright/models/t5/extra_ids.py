"""The sentinel tokens `<extra_id_0>`, `<extra_id_1>`, ... that T5 masks spans with."""

import re
from typing import Any

from modelwright.core.errors import InputError
from modelwright.tokenization.special_tokens import token_text

_SENTINEL = re.compile(r"<extra_id_\d+>")


def with_sentinels(where: str, additional: Any, count: int) -> list[Any]:
    """Return the additional special tokens with `count` sentinels, unless they hold sentinels already.

    Raises InputError when they hold another number of sentinels.
    """
    tokens = list(additional or ())
    found = [each for each in tokens if "<extra_id_" in (token_text(where, each) or "")]
    if not found:
        return tokens + [f"<extra_id_{index}>" for index in range(count)]
    if count > 0 and len(found) != count:
        raise InputError(
            f"{where}: extra_ids={count}, but additional_special_tokens holds {len(found)} sentinels: pass extra_ids="
            f"{len(found)}, or no sentinels."
        )
    return tokens


def sentinels(tokens: list[str]) -> list[str]:
    """Return the tokens that are sentinels, once each."""
    return [token for token in dict.fromkeys(tokens) if _SENTINEL.search(token)]
