"""What every model must do when it is saved and loaded. A new model is one more row of the table in conftest.py."""

import json
import struct

import pytest
import torch

from modelwright.core.errors import CheckpointMismatchError
from modelwright.pretrained.tying import tied_groups

CLEAN = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}


def first_output(model):
    with torch.no_grad():
        output = model(**model.dummy_inputs)
    return output if isinstance(output, torch.Tensor) else output[0]


def assert_same(left, right):
    left, right = left.state_dict(), right.state_dict()
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert torch.equal(left[name], right[name]), name


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_round_trip(model, tmp_path, safe):
    model.save_pretrained(tmp_path, safe_serialization=safe)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True, strict=True)
    assert info == CLEAN
    assert_same(model, loaded)
    assert torch.equal(first_output(model), first_output(loaded))
    assert not loaded.training
    ours, theirs = model.config.to_dict(), loaded.config.to_dict()
    for only_in_a_file in ("architectures", "dtype"):
        ours.pop(only_in_a_file), theirs.pop(only_in_a_file)
    # Through JSON, which has no tuples and no whole numbers as keys.
    assert json.loads(json.dumps(ours)) == json.loads(json.dumps(theirs))


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_sharded_is_whole(model, folder, tmp_path, safe):
    largest = max(tensor.nbytes for tensor in model.state_dict().values())
    model.save_pretrained(tmp_path / "shards", max_shard_size=largest, safe_serialization=safe)
    assert len(list((tmp_path / "shards").glob("*-of-*"))) > 1
    assert_same(type(model).from_pretrained(folder), type(model).from_pretrained(tmp_path / "shards"))


def test_loading_draws_no_random_number_and_changes_no_state(model, folder):
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    type(model).from_pretrained(folder)
    if not _built_for_real(model):
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == dtype


def _built_for_real(model):
    from modelwright.pretrained.construction import takes_factory_arguments

    return not takes_factory_arguments(type(model))


def test_dtypes(model, folder, tmp_path):
    load = type(model).from_pretrained
    assert {p.dtype for p in load(folder).parameters()} == {torch.float32}
    half = load(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {half.dtype} == {torch.bfloat16}
    assert first_output(half).isfinite().all()
    for name, tensor in half.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].to(tensor.dtype)), name
    half.save_pretrained(tmp_path / "half")
    assert_same(half, load(tmp_path / "half", dtype="auto"))
    assert load(tmp_path / "half").dtype == torch.float32


def test_tied_weights_are_one_parameter_and_stored_once(model, folder):
    loaded = type(model).from_pretrained(folder)
    assert tied_groups(loaded) == tied_groups(model)
    stored = _names_in(folder / "model.safetensors")
    for group in tied_groups(loaded):
        assert len({id(loaded.get_parameter(name)) for name in group}) == 1
        assert len(stored & set(group)) == 1


def _names_in(file):
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        return set(json.loads(stream.read(length))) - {"__metadata__"}


def test_number_of_parameters_and_footprint(model, folder):
    loaded = type(model).from_pretrained(folder, dtype=torch.bfloat16)
    unique = {id(parameter): parameter for parameter in model.parameters()}
    assert model.num_parameters() == loaded.num_parameters() == sum(p.numel() for p in unique.values())
    assert model.num_parameters(exclude_embeddings=True) < model.num_parameters()
    assert model.get_memory_footprint(return_buffers=False) == 4 * model.num_parameters()
    assert loaded.get_memory_footprint(return_buffers=False) == 2 * model.num_parameters()
    buffers = {id(buffer): buffer.nbytes for buffer in model.buffers()}
    assert model.get_memory_footprint() == 4 * model.num_parameters() + sum(buffers.values())


def test_missing_and_unexpected_keys_are_told(model):
    weights = dict(model.state_dict())
    tied = {name for group in tied_groups(model) for name in group}
    lost = next(name for name in weights if name not in tied and name in dict(model.named_parameters()))
    del weights[lost]
    weights["something.else"] = torch.ones(1)
    load = type(model).from_pretrained
    loaded, info = load(None, config=model.config, state_dict=weights, output_loading_info=True)
    assert info == {**CLEAN, "missing_keys": [lost], "unexpected_keys": ["something.else"]}
    assert loaded.get_parameter(lost).isfinite().all()
    for name, tensor in loaded.state_dict().items():
        assert name == lost or torch.equal(tensor, model.state_dict()[name]), name
    with pytest.raises(CheckpointMismatchError, match=f"missing: {lost}; unexpected: something.else"):
        load(None, config=model.config, state_dict=weights, strict=True)


def test_every_parameter_can_be_initialised_when_it_is_missing(model):
    kept = next(iter(model.state_dict()))
    weights = {kept: model.state_dict()[kept]}

    def load(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return type(model).from_pretrained(None, config=model.config, state_dict=weights).state_dict()

    first, again, other = load(1), load(1), load(2)
    assert all(tensor.isfinite().all() for tensor in first.values())
    assert all(torch.equal(first[name], again[name]) for name in first), "the seed does not decide"
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(first[kept], weights[kept])


def test_the_seed_decides_a_new_model(row):
    def make(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return row.make()

    assert_same(make(3), make(3))
    assert any(not torch.equal(a, b) for a, b in zip(make(3).parameters(), make(4).parameters(), strict=True))


def test_from_config_on_meta_takes_no_memory_and_has_the_same_names(model):
    empty = type(model).from_config(model.config, device="meta")
    assert all(tensor.is_meta for tensor in [*empty.parameters(), *empty.buffers()])
    assert {n: (t.shape, t.dtype) for n, t in empty.state_dict().items()} == {
        n: (t.shape, t.dtype) for n, t in model.state_dict().items()
    }
    assert tied_groups(empty) == tied_groups(model)


def test_base_model_from_the_whole_one(model, folder):
    base = type(model.base_model).from_pretrained(folder)
    for name, tensor in model.base_model.state_dict().items():
        assert torch.equal(base.state_dict()[name], tensor), name
