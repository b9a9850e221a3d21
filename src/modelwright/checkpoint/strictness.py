"""What a load makes of keys that do not fit: an error, a warning, or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

from modelwright.core.errors import InputError, nearest

Reaction = Literal["error", "warn", "ignore"]
KINDS = ("missing", "unexpected", "mismatched")


@dataclass(frozen=True)
class Strictness:
    """The reaction to parameters that are not stored, stored tensors without a place, and stored ones that do not fit.

    "warn" and "ignore" differ in what is said, not in what is done: what has no value is initialised, what has no place
    is left. All of it is in the `LoadReport` in any case. The default is that of 4.x.
    """

    missing: Reaction = "warn"
    unexpected: Reaction = "warn"
    mismatched: Reaction = "error"

    @classmethod
    def of(cls, where: str, strict: Any, ignore_mismatched_sizes: bool = False) -> Self:
        """Return what `strict` (True: errors only, False: the default, or {kind: reaction} above the default) says.

        `ignore_mismatched_sizes` is 4.x's way to say {"mismatched": "warn"}. Raises InputError for anything else, and
        if the two contradict each other.
        """
        result = cls()
        if isinstance(strict, Mapping):
            _check(where, strict)
            result = replace(result, **strict)
        elif isinstance(strict, bool):
            result = cls("error", "error", "error") if strict else result
        else:
            raise InputError(f"{where}: expected strict to be True, False or {_EXPECTED}, got {strict!r}")
        if not ignore_mismatched_sizes:
            return result
        asked = strict is True or (isinstance(strict, Mapping) and strict.get("mismatched") == "error")
        if asked:
            raise InputError(
                f"{where}: strict={strict!r} makes other shapes an error and ignore_mismatched_sizes=True does not; "
                "drop one of them"
            )
        return replace(result, mismatched="ignore" if result.mismatched == "ignore" else "warn")


_EXPECTED = '{"missing" | "unexpected" | "mismatched": "error" | "warn" | "ignore"}'


def _check(where: str, strict: Mapping[Any, Any]) -> None:
    for kind, reaction in strict.items():
        if kind not in KINDS or reaction not in get_args(Reaction):
            wrong, choices = (kind, KINDS) if kind not in KINDS else (reaction, get_args(Reaction))
            raise InputError(
                f"{where}: expected strict to be True, False or {_EXPECTED}, got {dict(strict)!r}."
                f"{nearest(str(wrong), choices)}"
            )
