"""save_pretrained: what is written, and what is refused."""

import json

import pytest
import torch
from torch import nn

from modelwright.core.errors import InputError, UnknownArgumentError


@pytest.fixture
def model(toys):
    return toys.ToyForCausalLM(toys.ToyConfig())


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith((".", "modelwright.")))


def test_files_and_config(model, tmp_path):
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    assert names(tmp_path) == ["config.json", "generation_config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["ToyForCausalLM"]
    assert config.get("torch_dtype", config.get("dtype")) == "bfloat16"
    assert config["model_type"] == "toy"
    assert model.config.architectures is None, "saving changed the model's config"


def test_no_generation_config_for_a_model_that_does_not_generate(toys, tmp_path):
    toys.ToyModel(toys.ToyConfig()).save_pretrained(tmp_path)
    assert names(tmp_path) == ["config.json", "model.safetensors"]


def test_other_processes_write_nothing(model, tmp_path):
    model.save_pretrained(tmp_path / "new", is_main_process=False)
    assert not (tmp_path / "new").exists()


def test_bin_files_by_a_save_function(model, toys, tmp_path):
    calls = []

    def save(tensors, path):
        calls.append((sorted(tensors), str(path)))
        torch.save(tensors, path)

    model.save_pretrained(tmp_path, safe_serialization=False, save_function=save)
    assert names(tmp_path) == ["config.json", "generation_config.json", "pytorch_model.bin"]
    ((keys, _),) = calls
    assert "toy.words.weight" in keys
    assert "lm_head.weight" not in keys, "a tied weight was written twice"
    loaded = toys.ToyForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.toy.words.weight, model.toy.words.weight)


def test_a_save_function_beside_safetensors_is_said_to_be_unused(model, tmp_path, said):
    for _ in range(2):
        model.save_pretrained(tmp_path, save_function=lambda tensors, path: 1 / 0)
    assert said() == [
        "ToyForCausalLM.save_pretrained: save_function is unused, it writes .bin files; safe_serialization is True."
    ]


def test_a_state_dict_is_used_as_given(model, toys, tmp_path):
    weights = {"toy.words.weight": torch.ones(11, 8)}
    model.save_pretrained(tmp_path, state_dict=weights)
    _, info = toys.ToyForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert "toy.words.weight" not in info["missing_keys"]
    assert "lm_head.bias" in info["missing_keys"]
    with pytest.raises(InputError, match="expected tensors, got a int under 'a'"):
        model.save_pretrained(tmp_path, state_dict={"a": 1})


def test_memory_shared_without_a_declaration_is_written_under_every_name(toys, tmp_path):
    model = toys.ToyModel(toys.ToyConfig())
    model.layers[1].dense.weight = model.layers[0].dense.weight
    model.layers[1].norm.weight = nn.Parameter(model.layers[0].norm.weight.data)
    model.save_pretrained(tmp_path)
    loaded, info = toys.ToyModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == []
    assert torch.equal(loaded.layers[1].dense.weight, model.layers[0].dense.weight)


def test_views_of_one_memory_stay_apart(toys, tmp_path):
    model = toys.ToyModel(toys.ToyConfig())
    both = torch.randn(2, 8, 8)
    for layer, weight in zip(model.layers, both, strict=True):
        layer.dense.weight = nn.Parameter(weight)
    model.save_pretrained(tmp_path)
    loaded = toys.ToyModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.layers[0].dense.weight, both[0])
    assert torch.equal(loaded.layers[1].dense.weight, both[1])


def test_names_that_are_not_saved(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(toys.ToyModel, "_keys_to_ignore_on_save", ["layers.0.norm.bias"])
    monkeypatch.setattr(toys.ToyModel, "_keys_to_ignore_on_load_missing", [r"norm\.bias"])
    toys.ToyModel(toys.ToyConfig()).save_pretrained(tmp_path)
    loaded, info = toys.ToyModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == []
    assert loaded.load_report.to_initialise == ["layers.0.norm.bias"]
    assert (loaded.layers[0].norm.bias == 0).all()


def test_weights_without_values_are_refused(toys, tmp_path):
    with pytest.raises(InputError, match="is on the meta device and has no values to save"):
        toys.ToyModel.from_config(toys.ToyConfig(), device="meta").save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_arguments(model, tmp_path, said):
    with pytest.raises(UnknownArgumentError, match="unknown keyword 'shard_size'. Did you mean 'max_shard_size'"):
        model.save_pretrained(tmp_path, shard_size=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder to save in, got the file"):
        model.save_pretrained(tmp_path / "file")
    assert names(tmp_path) == ["file"]
    model.save_pretrained(tmp_path, token="hf_secret", save_peft_format=False, commit_message="m")
    assert said() == [
        "ToyForCausalLM.save_pretrained: commit_message has no effect without push_to_hub.",
        "ToyForCausalLM.save_pretrained: token has no effect without push_to_hub.",
        "ToyForCausalLM.save_pretrained: save_peft_format has no effect: the model has no adapter.",
    ]
