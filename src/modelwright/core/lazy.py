"""Modules that serve names of other modules and import those only when a name is asked for (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def serve(
    module: str, table: Mapping[str, tuple[str, ...]], submodules: frozenset[str] = frozenset()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for `module`, which serves the names that `table` gives for each home module.

    `submodules` are packages or modules directly below `module` that can be reached without an import of their own.
    An unknown name raises AttributeError, which Python completes with "Did you mean ...?".
    """
    homes = {name: home for home, names in table.items() for name in names}

    def get(name: str) -> Any:
        if name in homes and homes[name] != module:
            value = _resolve(homes[name], name)
        elif name in homes or name in submodules:
            value = importlib.import_module(f"{module}.{name}")
        else:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=sys.modules[module])
        # From now on the name is found without this function.
        setattr(sys.modules[module], name, value)
        return value

    def listing() -> list[str]:
        return sorted({*vars(sys.modules[module]), *homes, *submodules})

    return get, listing


def _resolve(home: str, name: str) -> Any:
    """Return the attribute `name` of the module `home`, or its submodule of that name."""
    module = importlib.import_module(home)
    return getattr(module, name) if hasattr(module, name) else importlib.import_module(f"{home}.{name}")
