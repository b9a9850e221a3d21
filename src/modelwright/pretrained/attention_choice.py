"""Which attention kernel a model uses: chosen at load, in the constructor, or later, by a name or per sub-config."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from modelwright.attention.interface import ALL_ATTENTION_FUNCTIONS, DEFAULT_IMPLEMENTATION
from modelwright.core.errors import InputError, nearest
from modelwright.pretrained.dtypes import parts_of

# Which flags of a 4.x class say that it can run a kernel; `_supports_attention_backend` says it of all.
_FLAGS = {
    "sdpa": ("_supports_sdpa",),
    "flash_attention_2": ("_supports_flash_attn", "_supports_flash_attn_2"),
    "flex_attention": ("_supports_flex_attn",),
}


def supports(model_class: type, name: str) -> bool:
    """Tell whether models of the class can run the kernel `name`."""
    flags = ("_supports_attention_backend", *_FLAGS.get(name, ()))
    return name == "eager" or any(getattr(model_class, flag, False) for flag in flags)


def settle_own(model_class: type, config: Any) -> None:
    """Check the kernel that `config` names for a model of this class; without one, choose sdpa if it can run it.

    Raises InputError (which also is a KeyError for an unknown name) that lists what there is.
    """
    name = getattr(config, "_attn_implementation", None)
    if name is None:
        able = supports(model_class, DEFAULT_IMPLEMENTATION)
        config._attn_implementation = DEFAULT_IMPLEMENTATION if able else "eager"
    else:
        check(model_class, name)


def check(model_class: type, name: Any) -> None:
    """Raise InputError if `name` is no registered kernel, or if the class does not run it."""
    if not isinstance(name, str) or name not in ALL_ATTENTION_FUNCTIONS:
        raise ALL_ATTENTION_FUNCTIONS.unknown(name)
    if not supports(model_class, name):
        able = [each for each in sorted(ALL_ATTENTION_FUNCTIONS) if supports(model_class, each)]
        raise InputError(
            f"{model_class.__name__} cannot run attn_implementation={name!r}; expected one of {', '.join(able)}"
        )


def apply_to_config(where: str, config: Any, wanted: str | Mapping[str, str] | None) -> None:
    """Write the choice into `config` and its sub-configs, before a model is made of it.

    wanted: a name for all of them, or {"": name, sub-config: name} for some.
    """
    if wanted is not None:
        _apply(where, config, wanted)


def _apply(where: str, config: Any, wanted: str | Mapping[str, str]) -> None:
    parts = parts_of(config)
    if isinstance(wanted, Mapping):
        for part, name in wanted.items():
            if part not in parts:
                known = ["", *sorted(part for part in parts if part)]
                raise InputError(
                    f"{where}: expected the keys of attn_implementation to be sub-configs of {type(config).__name__} "
                    f"({', '.join(map(repr, known))}, the first being the config itself), got {part!r}."
                    f"{nearest(part, known)}"
                )
            parts[part]._attn_implementation = name
    elif isinstance(wanted, str):
        for each in parts.values():
            each._attn_implementation = wanted
    else:
        raise InputError(
            f"{where}: expected attn_implementation to be a name or a dictionary {{sub-config: name}}, got {wanted!r}"
        )


def set_attn_implementation(model: Any, wanted: str | Mapping[str, str]) -> None:
    """Change the kernel; documented at `PreTrainedModel.set_attn_implementation`."""
    where = f"{type(model).__name__}.set_attn_implementation"
    before = [(each.config, getattr(each.config, "_attn_implementation", None)) for each in _models(model)]
    before += [(part, getattr(part, "_attn_implementation", None)) for part in parts_of(model.config).values()]
    try:
        _apply(where, model.config, wanted)
        _apply_to_copies(model, wanted)
        for each in _models(model):
            check(type(each), each.config._attn_implementation)
    except InputError:
        for config, name in before:
            config._attn_implementation = name
        raise


def _apply_to_copies(model: Any, wanted: str | Mapping[str, str]) -> None:
    """Let the models inside whose config is none of the model's own parts, such as T5's stacks, follow the whole."""
    whole = wanted if isinstance(wanted, str) else wanted.get("")
    own = {id(part) for part in parts_of(model.config).values()}
    for each in _models(model):
        if whole is not None and id(each.config) not in own:
            each.config._attn_implementation = whole


def _models(model: nn.Module) -> Iterator[Any]:
    """Yield the model and the models inside it."""
    for module in model.modules():
        if hasattr(module, "base_model_prefix") and hasattr(module, "config"):
            yield module
