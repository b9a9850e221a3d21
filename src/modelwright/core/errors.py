"""The exceptions that modelwright raises for its users.

Each one also is the built-in exception that 4.x code already catches, so `except OSError` or `except ValueError`
keeps working. A message says where, what was expected, what was found and what to do next.
"""

import difflib
from collections.abc import Iterable


class ModelwrightError(Exception):
    """Base of every error that modelwright raises on purpose."""


class ConfigError(ModelwrightError, ValueError):
    """A configuration value that cannot work, or a config file that cannot be read."""


class InputError(ModelwrightError, ValueError):
    """An argument of a call (a shape, a range, a combination) that cannot work."""


class UnknownArgumentError(ModelwrightError, TypeError):
    """A keyword that the called function does not have."""


class RepoError(ModelwrightError, OSError):
    """A folder or file that is missing, or that lies outside the folder it should be in."""


class HubError(RepoError):
    """A repository of the hub that cannot be read or written."""


class RepoNotFoundError(HubError):
    """A repository, or a revision of it, that the hub does not have or does not show to this user."""


class GatedRepoError(HubError):
    """A repository whose owner has not given this user access."""


class HubOfflineError(HubError):
    """A file that is not in the cache while the hub cannot be, or must not be, asked."""


class CheckpointError(ModelwrightError, OSError):
    """A weights file or its index that is damaged, incomplete or not what it claims to be."""


class CheckpointMismatchError(ModelwrightError, RuntimeError):
    """A sound checkpoint whose keys or shapes do not fit the model."""


class PlacementError(ModelwrightError, RuntimeError):
    """Something that a model which is spread over devices, or offloaded, cannot do."""


class MissingPackageError(ModelwrightError, ImportError):
    """An optional package that is needed now and is not installed."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest of `choices`, or "" if none is close."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def reject_unknown(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise UnknownArgumentError, with the nearest known name, if `given` holds a keyword that `known` lacks."""
    known = sorted(known)
    for name in given:
        if name not in known:
            raise UnknownArgumentError(f"{where} got an unknown keyword {name!r}.{nearest(name, known)}")


def check_choice(where: str, value: object, choices: Iterable[str]) -> None:
    """Raise InputError that lists the sorted `choices` if `value` is not one of them."""
    choices = sorted(choices)
    if value not in choices:
        hint = nearest(value, choices) if isinstance(value, str) else ""
        raise InputError(f"{where}: expected one of {', '.join(choices)}, got {value!r}.{hint}")
