"""The error for a token id that has no embedding.

The CPU refuses such an id by a bare IndexError somewhere inside. To look at ids before would make an accelerator wait,
so they are looked at afterwards, when the error is there.
"""

import inspect
from typing import Any

from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.pretrained import tying


class _TokenIdError(InputError, IndexError):
    """A token id outside the embeddings; torch raises an IndexError."""


def explain(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise InputError if ids of the failed call `model(*args, **kwargs)` have no token embedding; else do nothing."""
    words = tying.input_embeddings(model)
    if not isinstance(words, nn.Embedding):
        return
    names = list(inspect.signature(model.forward).parameters)
    for name, ids in {**dict(zip(names, args, strict=False)), **kwargs}.items():
        if not name.endswith("input_ids") or not isinstance(ids, Tensor) or ids.is_floating_point() or ids.is_meta:
            continue
        wrong = ids[(ids < 0) | (ids >= words.num_embeddings)]
        if wrong.numel():
            raise _TokenIdError(
                f"{type(model).__name__}: expected ids from 0 to {words.num_embeddings - 1} in {name}, the number of "
                f"token embeddings, got {int(wrong[0])}. If the tokenizer has more tokens than the model, call "
                "model.resize_token_embeddings(len(tokenizer)) once"
            )
