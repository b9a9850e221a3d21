"""Every model runs from disk, and split between disk and memory, as it runs from memory; and is saved from there."""

import pytest
import torch

from modelwright.placement.planner import total_bytes


def outputs(model):
    with torch.no_grad():
        result = model(**model.dummy_inputs)
    tensors = [result] if isinstance(result, torch.Tensor) else list(result.values())
    return [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]


def place(model, folder, **options):
    if model._placement_refusal is None:
        return type(model).from_pretrained(folder, **options)
    with pytest.raises(NotImplementedError, match="cannot be spread over several devices: ") as caught:
        type(model).from_pretrained(folder, **options)
    assert model._placement_refusal in str(caught.value)
    pytest.skip(model._placement_refusal)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_on_disk_is_the_model(model, folder, tmp_path, dtype):
    plain = type(model).from_pretrained(folder, dtype=dtype)
    offloaded = place(model, folder, dtype=dtype, device_map={"": "disk"}, offload_folder=tmp_path / "offload")
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


def test_what_does_not_fit_goes_to_disk(model, folder):
    if model._placement_refusal is None and model._no_split_modules is None:
        with pytest.raises(ValueError, match="does not say what must stay whole"):
            type(model).from_pretrained(folder, device_map="auto", max_memory={"cpu": 1})
        return
    half = {"cpu": total_bytes(model) * 3 // 4, "disk": "1GiB"}
    placed = place(model, folder, device_map="auto", max_memory=half)
    on_cpu = sum({id(each): each.nbytes for each in placed.parameters() if not each.is_meta}.values())
    assert 0 <= on_cpu <= half["cpu"]
    assert "disk" in placed.hf_device_map.values()
    for left, right in zip(outputs(model), outputs(placed), strict=True):
        assert torch.equal(left, right)
