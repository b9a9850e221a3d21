"""The name table is complete: every name exists at home and is served by the root, the stub and its doors."""

import ast
import importlib
import importlib.util
from collections import Counter

import pytest
import tree

import modelwright
from modelwright import _public
from modelwright.core.optional import is_available


def can_be_imported(home: str) -> bool:
    """Tell whether the packages of a module are there; those without Keras have tests in tests/keras_layers."""
    return not home.startswith("modelwright.keras_layers.") or is_available("keras")


ALL_NAMES = [(home, name) for home, names in _public.PUBLIC.items() for name in names]
NAMES = [(home, name) for home, name in ALL_NAMES if can_be_imported(home)]
DOOR_NAMES = [
    (door, home, name)
    for door, homes in _public.DOORS.items()
    for home, names in homes.items()
    for name in names
    if can_be_imported(home)
]


@pytest.mark.parametrize(("home", "name"), NAMES)
def test_the_root_serves_the_object_of_the_home_module(home: str, name: str) -> None:
    served = getattr(modelwright, name)
    assert served is getattr(importlib.import_module(home), name)
    assert _public.find(name) == home
    assert name in dir(modelwright)
    assert name in modelwright.__all__


@pytest.mark.parametrize(("door", "home", "name"), DOOR_NAMES)
def test_a_door_serves_the_object_of_the_home_module(door: str, home: str, name: str) -> None:
    module = importlib.import_module(door)
    assert getattr(module, name) is getattr(importlib.import_module(home), name)
    assert name in module.__all__
    assert name in dir(module)


@pytest.mark.parametrize(("door", "home", "name"), DOOR_NAMES)
def test_a_door_serves_nothing_that_its_own_module_of_that_name_would_hide(door: str, home: str, name: str) -> None:
    try:
        hiding = importlib.util.find_spec(f"{door}.{name}")
    except ModuleNotFoundError:  # The door is a module itself.
        hiding = None
    assert hiding is None or getattr(importlib.import_module(home), name) is importlib.import_module(f"{door}.{name}")


def test_no_name_has_two_homes() -> None:
    assert [name for name, count in Counter(name for _, name in ALL_NAMES).items() if count > 1] == []


def test_the_stub_names_what_the_root_serves() -> None:
    stub = tree.parse(tree.PACKAGE / "__init__.pyi")
    imported = {
        (node.module, alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module != "modelwright"
        for alias in node.names
    }
    assert imported == set(ALL_NAMES)


def test_homes_and_doors_are_attributes_of_the_root() -> None:
    assert modelwright.utils.logging.get_verbosity is modelwright.logging.get_verbosity
    assert modelwright.models.__name__ == "modelwright.models"


def test_an_unknown_name_is_an_attribute_error_that_python_can_complete() -> None:
    with pytest.raises(AttributeError, match="module 'modelwright' has no attribute 'PretrainedConfg'") as caught:
        modelwright.PretrainedConfg  # type: ignore[attr-defined]
    assert (caught.value.name, caught.value.obj) == ("PretrainedConfg", modelwright)
    assert _public.find("PretrainedConfg") is None
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from modelwright.utils import Nothing  # noqa: F401


def test_every_public_object_has_a_docstring() -> None:
    without = []
    for _, name in NAMES:
        value = getattr(modelwright, name)
        if (isinstance(value, type) or callable(value)) and not (value.__doc__ or "").strip():
            without.append(name)
    assert without == []
