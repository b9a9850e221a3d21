"""A model file as it was written for 4.x, with only its imports changed, loads, saves and initialises."""

import pytest
import torch

from modelwright.core.errors import CheckpointMismatchError

IDS = torch.tensor([[1, 2, 3]])


@pytest.fixture
def saved(toys, tmp_path):
    model = toys.LegacyForMaskedLM(toys.LegacyConfig())
    model.encoder.block.gain.data.uniform_()
    model.save_pretrained(tmp_path)
    return model.eval(), tmp_path


def test_its_own_initialisation_ran_once(toys):
    model = toys.LegacyForMaskedLM(toys.LegacyConfig(initializer_range=0.0))
    assert all(parameter.mean() in (0.0, 3.0) for parameter in model.parameters())
    assert (model.encoder.block.gain == 3).all()


def test_round_trip_with_tied_weights_and_bias(toys, saved):
    model, folder = saved
    loaded, info = toys.LegacyForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert info == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}
    assert torch.equal(model(IDS), loaded(IDS))
    assert loaded.decoder.weight is loaded.encoder.words.weight
    assert loaded.decoder.bias is loaded.bias
    stored = set(loaded.load_report.loaded_keys)
    assert "bias" in stored
    assert not stored & {"decoder.bias", "decoder.weight"}


def test_base_from_head_and_back_keeps_what_was_loaded(toys, saved, tmp_path):
    model, folder = saved
    base, info = toys.LegacyModel.from_pretrained(folder, output_loading_info=True)
    assert info["missing_keys"] == ["pooler.weight", "pooler.bias"]
    assert info["unexpected_keys"] == ["bias"]
    assert (base.pooler.bias == 0).all()
    assert torch.equal(base.block.gain, model.encoder.block.gain), "an in-place _init_weights destroyed a loaded weight"
    base.save_pretrained(tmp_path / "base")
    head, info = toys.LegacyForMaskedLM.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert info["missing_keys"] == ["bias"]
    assert sorted(info["unexpected_keys"]) == ["pooler.bias", "pooler.weight"]
    assert torch.equal(head(IDS), model(IDS) - model.bias)


def test_buffers_keep_the_dtype_that_the_class_means(toys, saved):
    loaded = toys.LegacyForMaskedLM.from_pretrained(saved[1], dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    block = loaded.encoder.block
    assert block.inv_freq.dtype == torch.float32, "made with .float()"
    assert block.bias.dtype == torch.bfloat16, "made without a dtype"
    assert block.position_ids.dtype == torch.int64
    assert loaded(IDS).dtype == torch.bfloat16
    assert torch.get_default_dtype() == torch.float32


def test_mismatched_sizes(toys, saved):
    load = toys.LegacyForMaskedLM.from_pretrained
    with pytest.raises(CheckpointMismatchError, match=r"encoder.words.weight: stored \[11, 8\]"):
        load(saved[1], vocab_size=13)
    loaded = load(saved[1], vocab_size=13, ignore_mismatched_sizes=True)
    assert loaded(IDS).shape == (1, 3, 13)
    assert torch.equal(loaded.encoder.block.gain, saved[0].encoder.block.gain)
    assert loaded.decoder.weight is loaded.encoder.words.weight


def test_from_config_by_its_4x_name(toys):
    model = toys.LegacyModel._from_config(toys.LegacyConfig(), torch_dtype=torch.float16)
    assert model.dtype == torch.float16
    assert model.config.torch_dtype == "float16"
    assert model.training
