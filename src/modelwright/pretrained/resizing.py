"""Another size of vocabulary for a whole model: its token embeddings, its head, their bias, and what notes the size.

Modules and parameters stay the same objects, with other contents: ties, hooks and references hold.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.nn.resizing import Fill, near_mean, resize_rows
from modelwright.pretrained import tying
from modelwright.pretrained.initialization import owner_of


def resize_token_embeddings(
    model: Any, new_num_tokens: int | None, pad_to_multiple_of: int | None, mean_resizing: bool
) -> nn.Embedding:
    """Resize; documented at `PreTrainedModel.resize_token_embeddings`."""
    where = f"{type(model).__name__}.resize_token_embeddings"
    words: Any = model.get_input_embeddings()
    if new_num_tokens is None and pad_to_multiple_of is None:
        return words  # type: ignore[no-any-return]
    if not isinstance(words, nn.Embedding):
        raise _EmbeddingClassError(
            f"{where}: expected the input embeddings to be an nn.Embedding, got {type(words).__name__}; replace them "
            "by set_input_embeddings()"
        )
    size = _size(where, words.num_embeddings, new_num_tokens, pad_to_multiple_of)
    output: Any = tying.output_embeddings(model)
    if output is not None and not isinstance(output, nn.Linear | nn.Embedding):
        raise _EmbeddingClassError(
            f"{where}: expected the output embeddings to be an nn.Linear, got {type(output).__name__}; replace them "
            "by set_output_embeddings()"
        )
    fresh = near_mean if mean_resizing and words.num_embeddings else None
    bias = None if output is None else model._output_bias()
    resize_rows(words.weight, size, fresh or _as_new(model, words))
    if output is not None:
        resize_rows(output.weight, size, fresh or _as_new(model, output))
        if bias is not None:
            resize_rows(bias, size, fresh or _as_new(model, output, "bias"))
    for module in (words,) if output is None else (words, output):
        _note_in_modules(model, module.weight)
    for inner in _models_on(model, words.weight):
        _note_in_config(inner, size)
    model.tie_weights()
    return words


class _EmbeddingClassError(InputError, TypeError):
    """The embeddings are of a class whose rows mean nothing here; 4.x raises a TypeError."""


def _size(where: str, old: int, new: int | None, multiple: int | None) -> int:
    """Return the number of rows, rounded up to the multiple."""
    for name, value in (("new_num_tokens", new), ("pad_to_multiple_of", multiple)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{where}: expected {name} to be a whole number (an integer) of 1 or more, got {value!r}")
    size = old if new is None else new
    return size if multiple is None else -(-size // multiple) * multiple


def _as_new(model: Any, module: Any, name: str = "weight") -> Fill:
    """Return what fills rows as `_init_weights` fills those of a new model."""

    def fill(old: Tensor, count: int) -> Tensor:
        columns = module.weight.shape[1]
        factory: dict[str, Any] = {"device": old.device, "dtype": old.dtype}
        if isinstance(module, nn.Embedding):
            new: nn.Module = nn.Embedding(count, columns, **factory)
        else:
            new = nn.Linear(columns, count, bias=name == "bias", **factory)
        owner_of(model, module)._init_weights(new)
        return getattr(new, name).detach()  # type: ignore[no-any-return]

    return fill


def _note_in_modules(model: nn.Module, weight: Tensor) -> None:
    """Correct the sizes that every module with this weight has noted."""
    rows = len(weight)
    for module in model.modules():
        if getattr(module, "weight", None) is not weight:
            continue
        if isinstance(module, nn.Embedding):
            module.num_embeddings = rows
            if module.padding_idx is not None and module.padding_idx >= rows:
                module.padding_idx = None
        elif isinstance(module, nn.Linear):
            module.out_features = rows


def _models_on(model: nn.Module, weight: Tensor) -> Iterator[Any]:
    """Yield the models, `model` first, whose token embeddings have this weight."""
    for module in model.modules():
        if callable(getattr(module, "get_input_embeddings", None)) and hasattr(module, "config"):
            words = tying.input_embeddings(module)
            if words is not None and getattr(words, "weight", None) is weight:
                yield module


def _note_in_config(model: Any, size: int) -> None:
    find = getattr(model.config, "get_text_config", None)
    (model.config if find is None else find()).vocab_size = size
    if isinstance(vars(model).get("vocab_size"), int):
        model.vocab_size = size
