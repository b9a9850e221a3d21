"""Each public name of transformers 4.37.2 and 4.57.1 within scope is here at the same path, or listed with a reason."""

import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from not_here import METHODS, NAMES, PARAMETERS

from modelwright import _public
from modelwright.migration.destinations import destination, moved_module, names_of

TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "upstream_names.json").read_text(encoding="utf-8"))
VERSIONS = pytest.mark.parametrize("table", TABLE["versions"], ids=lambda table: table["version"])


def without_reason(paths: list[str], patterns: dict[str, str] = NAMES) -> list[str]:
    return [path for path in paths if not any(re.fullmatch(pattern, path) for pattern in patterns)]


def test_the_table_is_of_the_versions_that_we_promise() -> None:
    assert [table["version"] for table in TABLE["versions"]] == ["4.37.2", "4.57.1"]


@VERSIONS
def test_names_of_the_root(table: dict[str, Any]) -> None:
    missing = [f"{home}.{name}" for name, home in table["root"].items() if name not in names_of("modelwright")]
    assert without_reason(missing) == []
    assert len(table["root"]) - len(missing) > 100


@VERSIONS
def test_names_of_modules(table: dict[str, Any]) -> None:
    found, missing = 0, []
    for module, names in table["modules"].items():
        for name in names:
            if destination(f"transformers.{module}", name) is None:
                missing.append(f"{module}.{name}")
            else:
                found += 1
    assert without_reason(missing) == []
    assert found > 240


@VERSIONS
def test_model_classes_are_at_the_path_of_4x(table: dict[str, Any]) -> None:
    """A name that our root has and that upstream defines in a module of a model is in the module of the same name."""
    elsewhere = [
        f"{module}.{name}"
        for module, names in table["modules"].items()
        if module.startswith("models.")
        for name in names
        if name in names_of("modelwright") and name not in names_of(moved_module(f"transformers.{module}"))
    ]
    assert elsewhere == []


def ours() -> dict[str, Any]:
    """Return our public objects; the Keras ones have tests where Keras is installed."""
    homes = {
        name: home
        for table in (_public.PUBLIC, *_public.DOORS.values())
        for home, names in table.items()
        for name in names
        if not home.startswith("modelwright.keras_layers")
    }
    return {name: getattr(importlib.import_module(home), name) for name, home in homes.items()}


def callables(table: dict[str, Any]) -> Iterator[tuple[str, Any, list[str]]]:
    """Yield the path, our object (None if there is none) and upstream's parameters of each function and method."""
    for name, value in ours().items():
        signature = table["signatures"].get(name)
        if isinstance(signature, list):
            yield f"{name}.", value, signature
        for method, parameters in signature.items() if isinstance(signature, dict) else ():
            yield f"{name}.{method}", getattr(value, method, None), parameters


@VERSIONS
def test_methods_of_classes(table: dict[str, Any]) -> None:
    assert without_reason([path for path, found, _ in callables(table) if found is None], METHODS) == []


@VERSIONS
def test_parameters_are_taken_or_refused(table: dict[str, Any]) -> None:
    """What takes `**kwargs` refuses unknown ones itself; tests of each say so."""
    missing, compared = [], 0
    for path, found, parameters in callables(table):
        if found is None or not callable(found):
            continue
        known = inspect.signature(found).parameters
        compared += len(parameters)
        if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values()):
            missing += [f"{path}.{name}" for name in parameters if name not in known]
    assert without_reason(missing, PARAMETERS) == []
    assert compared > 800


def test_every_reason_is_needed() -> None:
    paths = {f"{home}.{name}" for table in TABLE["versions"] for name, home in table["root"].items()}
    paths |= {
        f"{module}.{name}"
        for table in TABLE["versions"]
        for module, names in table["modules"].items()
        for name in names
    }
    assert [pattern for pattern in NAMES if not any(re.fullmatch(pattern, path) for path in paths)] == []
