"""Pruning attention heads of a whole model: check everything, note it in the config, then cut.

The config's `pruned_heads` {layer: heads, numbered as in the unpruned model} is what makes a saved pruned model load: a
model is built whole, on meta, and pruned before its weights are read.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from modelwright.core.errors import InputError


def prune_heads(model: Any, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
    """Prune; documented at `PreTrainedModel.prune_heads`."""
    wanted = _cut(f"{type(model).__name__}.prune_heads", model, heads_to_prune)
    config = model.config
    config.pruned_heads = {
        **config.pruned_heads,
        **{layer: sorted({*config.pruned_heads.get(layer, ()), *heads}) for layer, heads in wanted.items()},
    }


def prune_as_configured(model: Any) -> None:
    """Prune what `config.pruned_heads` names, of a model that is being built.

    Every model around the base model does so again; layers leave out what they have pruned. Raises as `prune_heads`.
    """
    if model.config.pruned_heads:
        _cut(f"{type(model).__name__}: config.pruned_heads", model, model.config.pruned_heads)


def _cut(where: str, model: Any, heads_to_prune: Mapping[int, Iterable[int]]) -> dict[int, list[int]]:
    """Check the heads and let the base model cut them; return them sorted."""
    base = model.base_model
    cut = getattr(base, "_prune_heads", None)
    if cut is None:
        reason = type(base)._pruning_refusal or "its attention has no heads that can be taken out one by one"
        raise NotImplementedError(f"{where}: heads of {type(base).__name__} cannot be pruned: {reason}.")
    wanted = check_heads(where, model, heads_to_prune)
    if any(hasattr(module, "base_layer") for module in base.modules()):
        raise InputError(
            f"{where}: the layers of adapters cannot be pruned: prune first and add the adapter then, or merge it "
            "into the weights, or delete_adapter() it"
        )
    cut(wanted)
    return wanted


def layer_count(model: Any) -> Any:
    """Return the number of layers with heads; a family with several stacks counts the layers of all of them."""
    return getattr(model, "_num_prunable_layers", None) or getattr(model.config, "num_hidden_layers", None)


def check_heads(where: str, model: Any, heads_to_prune: Mapping[int, Iterable[int]]) -> dict[int, list[int]]:
    """Return the heads by layer, sorted; raise InputError before anything is changed if one does not exist."""
    if not isinstance(heads_to_prune, Mapping):
        raise InputError(
            f"{where}: expected a dictionary {{layer: heads}} such as {{0: [1, 2]}}, got {heads_to_prune!r}"
        )
    layers = layer_count(model)
    heads = getattr(model.config, "num_attention_heads", None)
    checked = {}
    for layer, given in heads_to_prune.items():
        if isinstance(layer, bool) or not isinstance(layer, int) or (layers is not None and not 0 <= layer < layers):
            most = "" if layers is None else f" from 0 to {layers - 1}"
            raise InputError(f"{where}: expected layers{most}, got {layer!r}")
        chosen = sorted(set(_whole_numbers(where, layer, given)))
        if heads is not None:
            _check_layer(where, layer, chosen, heads, model.config.pruned_heads.get(layer, ()))
        checked[layer] = chosen
    return checked


def _whole_numbers(where: str, layer: int, heads: Any) -> list[int]:
    if not isinstance(heads, Iterable) or isinstance(heads, str):
        raise InputError(f"{where}: expected a list of heads for layer {layer}, got {heads!r}")
    listed = list(heads)
    for head in listed:
        if isinstance(head, bool) or not isinstance(head, int):
            raise InputError(f"{where}: expected whole numbers as heads of layer {layer}, got {head!r}")
    return listed


def _check_layer(where: str, layer: int, chosen: list[int], heads: int, before: Iterable[int]) -> None:
    for head in chosen:
        if not 0 <= head < heads:
            raise InputError(
                f"{where}: expected heads from 0 to {heads - 1} (numbered as before any pruning) for layer {layer}, "
                f"got {head}"
            )
    if len({*chosen, *before}) >= heads:
        raise InputError(
            f"{where}: expected at least one of {heads} heads to stay in layer {layer}, but "
            f"{sorted({*chosen, *before})} would go (pruned before and now); leave one out"
        )
