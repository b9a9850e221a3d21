"""Greedy shards with upstream's names."""

import pytest
import torch

from modelwright.checkpoint.sharding import Shard, parse_size, plan_shards
from modelwright.checkpoint.sharing import compact_storages, drop_tied, overlapping, own_memory
from modelwright.core.errors import InputError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (7, 7),
        ("7", 7),
        ("7B", 7),
        ("5GB", 5 * 10**9),
        ("5GiB", 5 * 2**30),
        ("100kB", 10**5),
        ("1.5MB", 1_500_000),
        ("0.5 KiB", 512),
        ("2TB", 2 * 10**12),
    ],
)
def test_parse_size(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "5G", "5 parsecs", "-1GB", 0, "0.1B", None, True, 1.5])
def test_bad_size(text):
    with pytest.raises(InputError, match="max_shard_size: expected"):
        parse_size(text)


def sizes(**bytes_of):
    return {name: torch.empty(size, dtype=torch.int8, device="meta") for name, size in bytes_of.items()}


def test_one_file_when_it_fits():
    assert plan_shards(sizes(a=3, b=4), 7) == [Shard("model.safetensors", ("a", "b"), 7)]
    assert plan_shards({}, 7) == [Shard("model.safetensors", (), 0)]
    assert plan_shards(sizes(a=100), 7) == [Shard("model.safetensors", ("a",), 100)]


def test_greedy_in_order():
    shards = plan_shards(sizes(a=3, b=3, c=3, d=1), 7, weights_name="model.fp16.safetensors")
    assert shards == [
        Shard("model.fp16-00001-of-00002.safetensors", ("a", "b"), 6),
        Shard("model.fp16-00002-of-00002.safetensors", ("c", "d"), 4),
    ]


def test_a_tensor_over_the_limit_is_alone():
    assert [shard.names for shard in plan_shards(sizes(a=3, big=9, b=3), 7)] == [("big",), ("a", "b")]


def test_groups_stay_together():
    shards = plan_shards(sizes(a=4, b=4, c=4), 8, together={("a", "c"): 4})
    assert [(shard.names, shard.nbytes) for shard in shards] == [(("a", "c", "b"), 8)]
    shards = plan_shards(sizes(a=4, b=4, c=4), 7, together={("a", "c"): 4})
    assert [shard.names for shard in shards] == [("a", "c"), ("b",)]


def test_overlap_is_judged_by_bytes():
    base = torch.zeros(10)
    state = {"x": base[:4], "y": base[4:], "z": base[2:5], "own": torch.ones(2), "none": torch.zeros(0)}
    assert overlapping(state) == {("x", "y", "z"): 40}
    assert overlapping({"x": base[:4], "y": base[4:]}) == {}
    prepared = own_memory(state)
    assert overlapping(prepared) == {}
    assert all(torch.equal(prepared[name], state[name]) for name in state)


def test_drop_tied_keeps_what_is_not_really_tied():
    one = torch.ones(2)
    state = {"a": one, "b": one, "c": one.clone()}
    assert list(drop_tied(state, [["a", "b", "c", "absent"]])) == ["a", "c"]
    assert list(drop_tied(state, [])) == ["a", "b", "c"]


def test_compact_storages_keep_sharing_and_drop_the_rest(tmp_path):
    big = torch.zeros(100_000)
    state = {"a": big[:10], "b": big[:10], "own": torch.ones(3)}
    torch.save(compact_storages(state), tmp_path / "x.bin")
    assert (tmp_path / "x.bin").stat().st_size < 4000
    loaded = torch.load(tmp_path / "x.bin", weights_only=True)
    assert loaded["a"].data_ptr() == loaded["b"].data_ptr()
    assert torch.equal(loaded["own"], torch.ones(3))
