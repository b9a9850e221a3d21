"""Errors for the inputs of a failed call that explain it: ids, masks and labels of a wrong type, shape or range.

Somewhere inside a model, torch refuses such an input by a sentence on indices or sizes. To look at values before would
make an accelerator wait, and to look at shapes would cost each call, so both are looked at afterwards, when the error
is there.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError, ModelwrightError, reject_unknown
from modelwright.nn.losses import IGNORED
from modelwright.pretrained import tying


class _InputIndexError(InputError, IndexError):
    """A number outside what it indexes; torch raises an IndexError."""


class _InputTypeError(InputError, TypeError):
    """Not a tensor, or not one of whole numbers."""


# What torch and Python raise inside a call whose inputs do not fit.
FAILURES = (IndexError, RuntimeError, ValueError, TypeError, AttributeError, ZeroDivisionError)
_TABLES = {
    "token_type_embeddings": "token_type_ids",
    "position_embeddings": "position_ids",
    "wpe": "position_ids",
}
_TENSORS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds", "labels")


def explain(model: Any, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise InputError if an input of the failed call `model(*args, **kwargs)` explains the failure; else return."""
    of_part = isinstance(error, _InputIndexError)
    if isinstance(error, ModelwrightError | torch.OutOfMemoryError) and not of_part:
        return
    where, known = type(model).__name__, inspect.signature(model.forward).parameters
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in known.values()):
        reject_unknown(f"{where}.forward", kwargs, known)
    given = {**dict(zip(known, args, strict=False)), **kwargs}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name.endswith(_TENSORS) and not isinstance(value, Tensor):
            raise _InputTypeError(
                f"{where}: expected {name} to be a tensor, got {type(value).__name__}; pass torch.tensor(...), or ask "
                'the tokenizer for return_tensors="pt"'
            )
    given = {name: value for name, value in given.items() if isinstance(value, Tensor) and not value.is_meta}
    _check_target(model, given)
    if of_part:
        return
    for name, value in given.items():
        if name.endswith("_ids"):
            _check_ids(where, name, value)
    _check_embeddings(model, given)
    for prefix in ("", "decoder_"):
        _check_shapes(where, prefix, given)


def _check_ids(where: str, name: str, ids: Tensor) -> None:
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise _InputTypeError(f"{where}: expected {name} to be whole numbers (torch.int64), got {ids.dtype}")
    if name.endswith("input_ids") and not ids.numel():
        raise InputError(f"{where}: expected at least one row and one token in {name}, got shape {tuple(ids.shape)}")
    if name.endswith("input_ids") and ids.dim() < 2:
        raise InputError(
            f"{where}: expected {name} of shape (rows, tokens), got {tuple(ids.shape)}; for one text, pass ids[None]"
        )


def _check_target(model: Any, given: Mapping[str, Tensor]) -> None:
    """Check labels that the decoder's inputs are made of: a part can only say that its ids are wrong."""
    labels = given.get("labels")
    if labels is None or not hasattr(model, "prepare_decoder_input_ids_from_labels"):
        return
    size = model.config.vocab_size
    if (wrong := _outside(labels[labels != IGNORED], size)) is not None:
        raise _InputIndexError(
            f"{type(model).__name__}: expected labels from 0 to {size - 1}, the tokens of the vocabulary, or {IGNORED} "
            f"for what does not count, got {wrong}"
        )


def _check_embeddings(model: Any, given: Mapping[str, Tensor]) -> None:
    """Check ids and vectors against the tables of embeddings that they are for."""
    where = type(model).__name__
    words = tying.input_embeddings(model)
    if not isinstance(words, nn.Embedding):
        return
    for name, value in given.items():
        if name.endswith("input_ids") and (wrong := _outside(value, words.num_embeddings)) is not None:
            raise _InputIndexError(
                f"{where}: expected ids from 0 to {words.num_embeddings - 1} in {name}, the number of "
                f"token embeddings, got {wrong}. If the tokenizer has more tokens than the model, call "
                "model.resize_token_embeddings(len(tokenizer)) once"
            )
        if name.endswith("inputs_embeds") and (value.dim() != 3 or value.shape[-1] != words.embedding_dim):
            raise InputError(
                f"{where}: expected {name} of shape (rows, tokens, {words.embedding_dim}), got {tuple(value.shape)}"
            )
    for module_name, table in model.named_modules():
        leaf = module_name.rpartition(".")[2]
        name = _TABLES.get(leaf, "")
        if name in given and isinstance(table, nn.Embedding):
            wrong = _outside(given[name], table.num_embeddings)
            if wrong is not None:
                raise _InputIndexError(
                    f"{where}: expected {name} from 0 to {table.num_embeddings - 1}, the rows of {leaf}, got {wrong}"
                )


def _check_shapes(where: str, prefix: str, given: Mapping[str, Tensor]) -> None:
    """Compare what has an entry for each token with the ids or vectors."""
    tokens = given.get(f"{prefix}input_ids")
    if tokens is None:
        vectors = given.get(f"{prefix}inputs_embeds")
        if vectors is None:
            return
        tokens = vectors[..., 0]
    for name in ("token_type_ids", "position_ids"):
        value = None if prefix else given.get(name)
        if value is not None and (value.shape[-1] != tokens.shape[-1] or value.shape[0] not in (1, len(tokens))):
            raise InputError(
                f"{where}: expected {name} of the shape of the tokens, {tuple(tokens.shape)}, got {tuple(value.shape)}"
            )


def _outside(ids: Tensor, size: int) -> int | None:
    wrong = ids[(ids < 0) | (ids >= size)]
    return int(wrong[0]) if wrong.numel() else None
