"""`device_map` of `from_pretrained`: a small T5 split between memory and disk, and what offloading refuses."""

import pytest
import torch

from modelwright import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration
from modelwright.core.errors import CheckpointError, InputError, PlacementError

SPLIT = {"shared": "cpu", "encoder": "disk", "decoder": "disk", "decoder.block.1": "cpu", "lm_head": "cpu"}


@pytest.fixture(scope="module")
def t5():
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=60,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=3,
        num_heads=4,
        decoder_start_token_id=0,
        eos_token_id=None,
    )
    config.initializer_factor = 3.0
    return T5ForConditionalGeneration(config).eval()


@pytest.fixture
def folder(t5, tmp_path):
    t5.save_pretrained(tmp_path / "t5", max_shard_size=9000)
    return tmp_path / "t5"


def answers(model):
    ids = torch.arange(12).reshape(2, 6) + 3
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    with torch.no_grad():
        scores = model(input_ids=ids, attention_mask=mask, decoder_input_ids=ids).logits
    return scores, model.generate(ids, attention_mask=mask, max_new_tokens=5, num_beams=2)


def equal(left, right):
    return all(torch.equal(a, b) for a, b in zip(answers(left), answers(right), strict=True))


@pytest.mark.parametrize("device_map", [SPLIT, "auto", {"": "disk"}])
def test_split_computes_and_saves_the_same(t5, folder, tmp_path, device_map):
    limits = {"max_memory": {"cpu": "12kB"}} if device_map == "auto" else {}
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, device_map=device_map, **limits)
    assert device_map in ("auto", model.hf_device_map)
    assert "disk" in model.hf_device_map.values()
    for _ in range(2):
        assert equal(model, t5)
    model.save_pretrained(folder)  # over the files that it is mapped from
    assert equal(model, t5)
    again = T5ForConditionalGeneration.from_pretrained(folder)
    assert equal(again, t5)
    assert again.shared.weight is again.lm_head.weight
    assert again.load_report.unexpected_keys == []


def test_the_weights_on_disk_take_no_memory(folder):
    model = T5ForConditionalGeneration.from_pretrained(folder, device_map=SPLIT)
    on_disk = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    assert {name.split(".")[0] for name in on_disk} == {"encoder", "decoder"}
    assert not any(name.startswith("decoder.block.1.") for name in on_disk)
    assert model.get_memory_footprint() == T5ForConditionalGeneration.from_pretrained(folder).get_memory_footprint()


def test_what_files_do_not_hold_needs_a_folder(t5, folder, tmp_path):
    load = T5ForConditionalGeneration.from_pretrained
    for options in ({"dtype": "bfloat16"}, {"mmap": False}):
        with pytest.raises(InputError, match="expected an offload_folder, since these weights .* and .* more. Pass"):
            load(folder, device_map={"": "disk"}, **options)
        there = load(folder, device_map={"": "disk"}, offload_folder=tmp_path / "offload", **options)
        assert equal(there, load(folder, **options))
        assert (tmp_path / "offload" / "encoder.block.0.layer.0.SelfAttention.q.weight.safetensors").is_file()
    t5.save_pretrained(folder, safe_serialization=False)
    with pytest.raises(InputError, match="expected an offload_folder"):
        load(folder, device_map={"": "disk"})
    assert equal(load(folder, device_map={"": "disk"}, offload_folder=tmp_path / "offload"), t5)


def test_new_weights_go_to_disk_too(t5, tmp_path):
    weights = {name: tensor for name, tensor in t5.state_dict().items() if "block.2" not in name}
    model = T5ForConditionalGeneration.from_pretrained(
        None, config=t5.config, state_dict=weights, device_map={"": "disk"}, offload_folder=tmp_path
    )
    q = "encoder.block.2.layer.0.SelfAttention.q.weight"
    assert q in model.load_report.missing_keys
    assert (tmp_path / f"{q}.safetensors").is_file()
    assert all(tensor.isfinite().all() for tensor in answers(model))


def test_a_spread_model_is_not_moved_nor_cast(folder):
    model = T5ForConditionalGeneration.from_pretrained(folder, device_map=SPLIT)
    for move in (model.half, lambda: model.to("cpu"), lambda: model.to(torch.bfloat16)):
        with pytest.raises(PlacementError, match="is spread over devices by device_map=.* cannot be moved or cast"):
            move()


def test_options_that_contradict_each_other(folder):
    load = T5ForConditionalGeneration.from_pretrained
    with pytest.raises(InputError, match="a device_map needs low_cpu_mem_usage=True"):
        load(folder, device_map="auto", low_cpu_mem_usage=False)
    with pytest.raises(InputError, match="max_memory is for device_map='auto'"):
        load(folder, max_memory={"cpu": "1GiB"})
    with pytest.raises(
        InputError, match="expected a device_map for the devices of this machine, got device 99; it has"
    ):
        load(folder, device_map={"": 99})
    with pytest.raises(InputError, match=r"got none for encoder\.embed_tokens\.weight, encoder\.block\.0"):
        load(folder, device_map={name: device for name, device in SPLIT.items() if name != "encoder"})


def test_one_device_needs_no_hooks(t5, folder):
    for device_map in ("auto", "cpu", {"shared": "cpu", "encoder": "cpu", "decoder": "cpu", "lm_head": "cpu"}):
        model = T5ForConditionalGeneration.from_pretrained(folder, device_map=device_map)
        assert set(model.hf_device_map.values()) == {"cpu"}
        assert not any(hasattr(module, "_hf_hook") for module in model.modules())
        assert model.to(torch.float64).dtype == torch.float64
    assert not hasattr(T5ForConditionalGeneration.from_pretrained(folder), "hf_device_map")


def test_verify(t5, folder):
    load = T5ForConditionalGeneration.from_pretrained
    assert equal(load(folder, verify="hash"), t5)
    shard = sorted(folder.glob("*.safetensors"))[1]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    load(folder, verify="size")
    with pytest.raises(CheckpointError, match=rf"{shard.name}: its [\d,]+ bytes are not those of the manifest"):
        load(folder, verify="hash")
    (folder / "modelwright.manifest.json").unlink()
    load(folder, verify="size")
    with pytest.raises(CheckpointError, match="verify='hash': no hash is known of model"):
        load(folder, verify="hash")
    with pytest.raises(InputError, match="verify: expected one of None, hash, size, got 'sha'"):
        load(folder, verify="sha")
