"""From the names in a file to the names in a model: small reversible rules, which are data on the model class."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from modelwright.checkpoint.reverse_pattern import reverse_pattern
from modelwright.core.errors import CheckpointMismatchError, InputError


@dataclass(frozen=True)
class Rename:
    r"""Where the regular expression `pattern` is found in a name, `replacement` stands instead (groups as in `re.sub`).

    `inverse` is the (pattern, replacement) of the way back; None derives it, which works for literal text, `^`, `$` and
    capturing groups. Raises InputError for an invalid expression.

    >>> Rename(r"^encoder\.layer\.(\d+)\.", r"layers.\1.").apply("encoder.layer.3.weight")
    'layers.3.weight'
    >>> Rename.literal("attn", "attention").apply("h.0.attn.weight")
    'h.0.attention.weight'
    """

    pattern: str
    replacement: str
    inverse: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        for pattern in (self.pattern, *(self.inverse or ())[:1]):
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(f"Rename({self.pattern!r}): not a regular expression: {error}") from None

    @classmethod
    def literal(cls, old: str, new: str) -> Self:
        """Return the rule that puts the name part `new` for `old`, on whole components only ("a.b", not "xa.b")."""
        return cls(
            rf"(^|\.){re.escape(old)}(\.|$)",
            rf"\1{_no_groups(new)}\2",
            inverse=(rf"(^|\.){re.escape(new)}(\.|$)", rf"\1{_no_groups(old)}\2"),
        )

    def apply(self, name: str) -> str:
        """Return the renamed `name`, or `name` itself if the rule does not concern it."""
        return re.sub(self.pattern, self.replacement, name)

    def reverse(self) -> "Rename":
        """Return the rule that undoes this one; raises InputError if there is no `inverse` and none can be derived."""
        inverse = self.inverse or reverse_pattern(self.pattern, self.replacement)
        if inverse is None:
            raise InputError(
                f"Rename({self.pattern!r}, {self.replacement!r}): the way back cannot be derived; give it as "
                "inverse=(pattern, replacement)."
            )
        return Rename(*inverse, inverse=(self.pattern, self.replacement))


LAYER_NORM_RENAMES = (
    Rename(r"(^|\.)LayerNorm\.gamma$", r"\1LayerNorm.weight"),
    Rename(r"(^|\.)LayerNorm\.beta$", r"\1LayerNorm.bias"),
)
"""The names of TensorFlow's layer norm, found in old BERT files. Nothing else called gamma or beta is touched."""


def map_names(
    stored: Iterable[str], targets: Iterable[str], *, rules: Sequence[Rename] = (), base_model_prefix: str = ""
) -> dict[str, str]:
    """Return {stored name: target name} for every stored name that means a target; the rest is unexpected.

    Tried in this order: the `rules` (all, in their order), the name itself, LayerNorm's gamma and beta, and each of
    these with `base_model_prefix` added or taken off; then the same without the wrapper prefixes `module.` and
    `_orig_mod.`. A changed name counts only if it is not itself the name of a stored tensor, so a parameter that really
    is called so stays what it is. Raises CheckpointMismatchError if two stored names mean one target.
    """
    names, wanted = list(stored), set(targets)
    there = set(names)
    found: dict[str, str] = {}
    source_of: dict[str, str] = {}
    for name in names:
        for candidate in _candidates(name, rules, base_model_prefix):
            if candidate in wanted and (candidate == name or candidate not in there):
                break
        else:
            continue
        if candidate in source_of:
            raise CheckpointMismatchError(
                f"the stored tensors {source_of[candidate]!r} and {name!r} both mean the parameter {candidate!r}. Name "
                "one of them differently, or take it out of the checkpoint."
            )
        found[name] = candidate
        source_of[candidate] = name
    return found


def restore_names(state_dict: Mapping[str, object], rules: Sequence[Rename]) -> dict[str, str]:
    """Return {name: name in a file} for saving: the `rules` undone, the last one first.

    Raises InputError if two names would become one.
    """
    reversed_rules = [rule.reverse() for rule in reversed(rules)]
    result: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name in state_dict:
        stored = name
        for rule in reversed_rules:
            stored = rule.apply(stored)
        if stored in owner:
            raise InputError(
                f"The rename rules give {owner[stored]!r} and {name!r} the same name in a file: {stored!r}."
            )
        owner[stored] = name
        result[name] = stored
    return result


def _candidates(name: str, rules: Sequence[Rename], prefix: str) -> Iterable[str]:
    # One after another: the first one nearly always is the one.
    for unwrap in (str, _unwrapped):
        form = unwrap(name)
        ruled = _apply(rules, form)
        yield from _prefixed(ruled, prefix)
        if form != ruled:
            yield from _prefixed(form, prefix)
        yield from _prefixed(_apply(LAYER_NORM_RENAMES, ruled), prefix)


def _prefixed(name: str, prefix: str) -> Iterable[str]:
    yield name
    if prefix:
        yield f"{prefix}.{name}"
        if name.startswith(prefix + "."):
            yield name.removeprefix(prefix + ".")


def _apply(rules: Sequence[Rename], name: str) -> str:
    for rule in rules:
        name = rule.apply(name)
    return name


def _unwrapped(name: str) -> str:
    # DistributedDataParallel wraps the whole model, torch.compile any part of it.
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    while len(parts) > 1 and parts[0] == "module":
        parts = parts[1:]
    return ".".join(parts)


def _no_groups(text: str) -> str:
    return text.replace("\\", r"\\")
