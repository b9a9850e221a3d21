"""Checkpoints that bring their own code: refused, in one place."""

from collections.abc import Mapping
from typing import Any

from modelwright.core.errors import InputError


def refuse_remote_code(owner: str, place: str, files_say: Mapping[str, Any], trust: bool | None, known: bool) -> None:
    """Raise if the classes of a checkpoint are in Python files beside it, and no class here is `known` for it.

    `files_say` is the content of its config, which names such files in "auto_map"; `trust` is the caller's
    trust_remote_code: NotImplementedError if it is True, InputError otherwise.
    """
    if not isinstance(trust, bool | None):
        raise InputError(f"{owner}: expected trust_remote_code to be True, False or None, got {trust!r}")
    names = files_say.get("auto_map")
    if trust and names:
        raise NotImplementedError(
            f"{owner}: {place} brings its own code ({names!r}); running it is not built yet, with or without "
            f"trust_remote_code=True. Import the class yourself and call {owner}.register()"
        )
    if names and not known:
        raise InputError(
            f"{owner}: {place} brings its own code ({names!r}), which is not run. Read it, import the class yourself "
            f"and call {owner}.register()"
        )
