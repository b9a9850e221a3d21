"""With Keras, the root and the doors serve the names that need it."""

import importlib

import pytest

import modelwright
from modelwright import _public

ROOM = "modelwright.keras_layers."
NAMES = [(home, name) for home, names in _public.PUBLIC.items() for name in names if home.startswith(ROOM)]
DOOR_NAMES = [
    (door, home, name)
    for door, homes in _public.DOORS.items()
    for home, names in homes.items()
    for name in names
    if home.startswith(ROOM)
]


@pytest.mark.parametrize(("home", "name"), NAMES)
def test_the_root_and_upstreams_module_serve_it(home: str, name: str) -> None:
    value = getattr(importlib.import_module(home), name)
    assert getattr(modelwright, name) is value
    assert getattr(modelwright.modeling_tf_utils, name) is value
    assert (value.__doc__ or "").strip()


@pytest.mark.parametrize(("door", "home", "name"), DOOR_NAMES)
def test_a_door_serves_it(door: str, home: str, name: str) -> None:
    assert getattr(importlib.import_module(door), name) is getattr(importlib.import_module(home), name)
