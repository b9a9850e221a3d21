"""Every model runs from disk, and split between disk and memory, as it runs from memory; and is saved from there."""

import pytest
import torch

from modelwright.placement.planner import total_bytes


def outputs(model):
    with torch.no_grad():
        result = model(**model.dummy_inputs)
    tensors = [result] if isinstance(result, torch.Tensor) else list(result.values())
    return [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]


def saved(model, folder):
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_on_disk_is_the_model(placeable, tmp_path, dtype):
    folder, load = saved(placeable, tmp_path / "saved"), type(placeable).from_pretrained
    plain = load(folder, dtype=dtype)
    offloaded = load(folder, dtype=dtype, device_map={"": "disk"}, offload_folder=tmp_path / "offload")
    assert offloaded.hf_device_map == {"": "disk"}
    assert all(parameter.is_meta for parameter in offloaded.parameters())
    assert offloaded.device == torch.device("cpu")
    assert (offloaded.dtype, offloaded.num_parameters()) == (plain.dtype, plain.num_parameters())
    written = {path.stem for path in (tmp_path / "offload").glob("*")}
    assert bool(written) == (dtype == "bfloat16")
    for left, right in zip(outputs(plain), outputs(offloaded), strict=True):
        assert torch.equal(left, right)
    offloaded.save_pretrained(tmp_path / "again")
    plain.save_pretrained(tmp_path / "plain")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name
    assert offloaded.config.dtype == dtype


def test_what_does_not_fit_goes_to_disk(placeable, tmp_path):
    folder, load = saved(placeable, tmp_path / "saved"), type(placeable).from_pretrained
    if placeable._no_split_modules is None:
        with pytest.raises(ValueError, match="does not say what must stay whole"):
            load(folder, device_map="auto", max_memory={"cpu": 1})
        return
    half = {"cpu": total_bytes(placeable) * 3 // 4, "disk": "1GiB"}
    placed = load(folder, device_map="auto", max_memory=half)
    on_cpu = sum({id(each): each.nbytes for each in placed.parameters() if not each.is_meta}.values())
    assert 0 <= on_cpu <= half["cpu"]
    assert "disk" in placed.hf_device_map.values()
    for left, right in zip(outputs(placeable), outputs(placed), strict=True):
        assert torch.equal(left, right)


def test_what_cannot_be_spread_says_why(unplaceable, tmp_path):
    folder, load = saved(unplaceable, tmp_path / "saved"), type(unplaceable).from_pretrained
    for placement in ({"device_map": {"": "disk"}}, {"device_map": "auto", "max_memory": {"cpu": 1}}):
        with pytest.raises(NotImplementedError, match="cannot be spread over several devices: ") as caught:
            load(folder, offload_folder=tmp_path / "offload", **placement)
        assert unplaceable._placement_refusal in str(caught.value)
