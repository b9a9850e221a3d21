"""Parameters that are one parameter under several names.

A class declares them in `_tied_weights_keys`: a dictionary {name: the name that it is tied to}, or, as in 4.x, a list
of the names that are tied to something. Names may be regular expressions. Without a dictionary the output embeddings
are tied to the input embeddings. `config.tie_word_embeddings=False` switches both off; what a class ties in its own
constructor, or in `_tie_weights()` of a module, is always tied. What models inside tie is theirs to say: `_tied_parts`.
With `config.tie_encoder_decoder` an encoder has the weights of its decoder; see `modelwright.pretrained.tied_encoder`.
"""

import itertools
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.checkpoint.load import tied_groups as shared_groups
from modelwright.checkpoint.sharing import drop_tied
from modelwright.core.errors import InputError
from modelwright.nn.resizing import resize_rows, zeros
from modelwright.nn.walk import modules_with, named_modules
from modelwright.placement.offload import offloaded_values
from modelwright.pretrained.tied_encoder import encoder_pairs


def tie(model: Any) -> None:
    """Make every tied parameter of `model` the same object as what it is tied to (a copy if `config.torchscript`)."""
    config = model.config
    for target, source in tied_pairs(model).items():
        parameter = model.get_parameter(source)
        if getattr(config, "torchscript", False):
            # A traced module may not share parameters.
            parameter = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
        module_name, _, name = target.rpartition(".")
        setattr(model.get_submodule(module_name), name, parameter)
    output = output_embeddings(model)
    if output is not None and getattr(config, "tie_word_embeddings", True):
        _fit_output(output)
    for _, _, custom in modules_with(model, "_tie_weights"):
        if callable(custom):
            custom()


def tied_pairs(model: Any) -> dict[str, str]:
    """Return which parameter the class ties to which: {its name: the name that it is tied to}."""
    parts = getattr(model, "_tied_parts", ())
    pairs = {} if parts else _embedding_pairs(model)
    for part in parts:
        inner = tied_pairs(getattr(model, part))
        pairs |= {f"{part}.{target}": f"{part}.{source}" for target, source in inner.items()}
    return pairs | encoder_pairs(model)


def _embedding_pairs(model: Any) -> dict[str, str]:
    if not getattr(model.config, "tie_word_embeddings", True):
        return {}
    declared = getattr(model, "_tied_weights_keys", None)
    if isinstance(declared, Mapping):
        return _declared_pairs(model, declared)
    output, words = output_embeddings(model), input_embeddings(model)
    if output is None or words is None or output is words:
        return {}
    names = {id(module): name for name, module in named_modules(model)}
    if id(output) not in names or id(words) not in names:
        return {}
    return {f"{names[id(output)]}.weight": f"{names[id(words)]}.weight"}


def tied_groups(model: Any) -> list[list[str]]:
    """Return the groups of names that stand for one parameter, what others are tied to first."""
    groups = [set(group) for group in shared_groups(model)]
    pairs = tied_pairs(model)
    # With config.torchscript what is tied is equal, but not the same object.
    for pair in pairs.items():
        touching = [group for group in groups if group & set(pair)]
        groups = [group for group in groups if group not in touching] + [set(pair).union(*touching)]

    def is_tied(name: str) -> bool:
        # What a constructor shares is tied though the config ties no embeddings.
        return name in pairs or _is_declared(model, name)

    return [sorted(group, key=lambda name: (is_tied(name), name)) for group in groups]


def move(model: Any, device: torch.device | str) -> None:
    """Put `model` on `device`; what is one parameter stays one, which `Module.to` alone does not do for "meta"."""
    wanted = torch.device(device)
    tensors = itertools.chain(model.parameters(), model.buffers())
    if wanted.type in ("cpu", "meta") and all(tensor.device.type == wanted.type for tensor in tensors):
        return
    groups = shared_groups(model)
    model.to(device)
    for kept, *others in groups:
        owner, _, name = kept.rpartition(".")
        slots = model.get_submodule(owner)
        tensor = slots._parameters.get(name, slots._buffers.get(name))
        for other in others:
            owner, _, name = other.rpartition(".")
            slots = model.get_submodule(owner)
            (slots._parameters if name in slots._parameters else slots._buffers)[name] = tensor


def without_tied(model: Any, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state_dict` without the names that the class ties to another name which is there and is the same tensor.

    What shares memory without being declared tied all stays: each is written, and each will be loaded.
    """
    pairs = tied_pairs(model)
    groups = []
    for group in shared_groups(model, offloaded_values(model)):
        tied = [name for name in group if name in pairs or _is_declared(model, name)]
        kept = next((name for name in group if name not in tied), group[0])
        groups.append([kept, *(name for name in tied if name != kept)])
    return drop_tied(state_dict, groups)


def input_embeddings(model: Any) -> Any:
    """Return the module that embeds tokens, or None for a model without one."""
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        return None


def output_embeddings(model: Any) -> Any:
    """Return the module that scores the vocabulary, or None for a model without one."""
    try:
        return model.get_output_embeddings()
    except NotImplementedError:
        return None


def _is_declared(model: Any, name: str) -> bool:
    """Tell whether the class of `model`, or of the part that the name lies in, lists the name as tied."""
    for part in getattr(model, "_tied_parts", ()):
        if name.startswith(f"{part}."):
            return _is_declared(getattr(model, part), name.removeprefix(f"{part}."))
    return any(re.search(pattern, name) for pattern in getattr(model, "_tied_weights_keys", None) or ())


def _declared_pairs(model: Any, declared: Mapping[str, str]) -> dict[str, str]:
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    pairs = {}
    for target, source in declared.items():
        for name in names:
            match = re.fullmatch(target, name)
            if match is None:
                continue
            tied_to = match.expand(source) if "\\" in source else source
            if tied_to not in names:
                raise InputError(
                    f"{type(model).__name__}._tied_weights_keys ties {name!r} to {tied_to!r}, which is no parameter"
                )
            if tied_to != name:
                pairs[name] = tied_to
    return pairs


def _fit_output(output: nn.Module) -> None:
    """Give the bias and the sizes of the output embeddings the number of rows that their tied weight has."""
    layer: Any = output
    rows, bias = len(layer.weight), getattr(layer, "bias", None)
    if bias is not None:
        resize_rows(bias, rows, zeros)
    if hasattr(layer, "out_features"):
        layer.out_features = rows
