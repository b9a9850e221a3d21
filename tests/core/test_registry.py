"""Registry: a mapping whose errors list what there is, and local ones over a global one."""

import pytest

from modelwright.core.errors import InputError
from modelwright.core.registry import Registry, UnknownNameError


def colours() -> Registry[int]:
    return Registry("colour", {"red": 1, "green": 2})


def test_register_and_look_up() -> None:
    registry = colours()
    registry.register("blue", 3)
    assert dict(registry) == {"red": 1, "green": 2, "blue": 3}


def test_a_taken_name_needs_exist_ok() -> None:
    registry = colours()
    with pytest.raises(InputError, match=r"register colour: the name 'red' is taken by 1; pass exist_ok=True"):
        registry.register("red", 5)
    assert registry["red"] == 1
    registry.register("red", 5, exist_ok=True)
    assert registry["red"] == 5


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        colours()["gren"]
    assert str(caught.value) == "unknown colour 'gren': expected one of green, red. Did you mean 'green'?"
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, ValueError)


def test_an_empty_registry_says_so() -> None:
    with pytest.raises(UnknownNameError, match="expected one of none"):
        Registry[int]("colour")["red"]


def test_get_and_in_work_as_for_every_mapping() -> None:
    assert colours().get("blue") is None
    assert "blue" not in colours()
    assert "red" in colours()


def test_a_local_registry_sees_the_global_one_and_does_not_change_it() -> None:
    registry = colours()
    local = registry.local()
    local["red"] = 7
    local.register("blue", 3)
    assert dict(local) == {"red": 7, "blue": 3, "green": 2}
    assert len(local) == 3
    assert dict(registry) == {"red": 1, "green": 2}
    registry["white"] = 9  # What is added later is seen too.
    assert local["white"] == 9
    del local["red"]
    assert local["red"] == 1


def test_what_belongs_to_the_parent_cannot_be_deleted_in_a_local_registry() -> None:
    with pytest.raises(InputError, match="colour 'red' belongs to the parent registry"):
        del colours().local()["red"]
    with pytest.raises(UnknownNameError, match="unknown colour 'blue'"):
        del colours()["blue"]
