import pytest
import torch

from modelwright.checkpoint.compare import compare_checkpoints
from modelwright.checkpoint.memory import MemoryCheckpoint


def compare(first, second, **options):
    return compare_checkpoints(MemoryCheckpoint(first), MemoryCheckpoint(second), **options)


def test_equal():
    state = {"a": torch.tensor([1.0, float("nan")]), "b": torch.ones(2, 2)}
    found = compare(state, state, values=True)
    assert found.equal and found.same == 2
    assert str(found) == "2 tensors agree, 0 differences"


def test_every_kind_of_difference():
    first = {
        "x.0.w": torch.ones(2),
        "x.1.w": torch.ones(2),
        "shape": torch.ones(2, 3),
        "dtype": torch.ones(3),
        "v": torch.zeros(4),
    }
    second = {
        "new": torch.ones(1),
        "shape": torch.ones(3, 2),
        "dtype": torch.ones(3).half(),
        "v": torch.tensor([0, 0, 0.5, -2]),
    }
    found = compare(first, second, values=True)
    assert not found.equal
    assert found.only_first == ("x.0.w", "x.1.w")
    assert found.only_second == ("new",)
    assert found.headers == (
        ("shape", "float32 2 x 3", "float32 3 x 2"),
        ("dtype", "float32 3", "float16 3"),
    )
    assert [(change.name, change.elements, change.largest) for change in found.values] == [("v", 2, 2.0)]
    assert found.same == 0
    text = str(found)
    assert "only in the first   x.{0..1}.w" in text
    assert "2 elements, by up to 2" in text
    assert compare(first, second).values is None


@pytest.mark.parametrize("values", [False, True])
def test_values_count_only_on_request(values):
    assert compare({"a": torch.ones(2)}, {"a": torch.zeros(2)}, values=values).equal is not values
