"""Adapters of peft (which needs transformers) on our models: attached, trained, saved, loaded, and as in 4.57.1."""

import json

import pytest
import torch

import modelwright
from modelwright.core.errors import CheckpointMismatchError, ConfigError, InputError, RepoError

pytestmark = pytest.mark.parity

IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1]])
CONFIGS = {
    "GPT2LMHeadModel": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "initializer_range": 0.3},
    "LlamaForCausalLM": {
        "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 16, "initializer_range": 0.3,
    },
    "ReformerModelWithLMHead": {
        "attention_head_size": 8, "attn_layers": ["local", "lsh"], "axial_pos_embds": False, "feed_forward_size": 32,
        "hidden_size": 16, "is_decoder": True, "max_position_embeddings": 64, "num_attention_heads": 2,
        "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "num_buckets": 2, "hash_seed": 1,
        "initializer_range": 0.3, "hidden_dropout_prob": 0.0, "local_attention_probs_dropout_prob": 0.0,
    },
    "T5ForConditionalGeneration": {
        "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0,
        "decoder_start_token_id": 0, "pad_token_id": 0,
    },
    "BertForMaskedLM": {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 16, "initializer_range": 0.3, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
}  # fmt: skip
TARGETS = {
    "GPT2LMHeadModel": ["c_attn", "c_proj", "c_fc"],
    "LlamaForCausalLM": ["q_proj", "v_proj", "down_proj"],
    "ReformerModelWithLMHead": ["query", "key", "value", "query_key", "output.dense"],
    "T5ForConditionalGeneration": ["q", "v", "wo"],
    "BertForMaskedLM": ["query", "value", "dense"],
}


def family(library, name):
    stem = next(stem for stem in ("GPT2", "Llama", "Reformer", "T5", "Bert") if name.startswith(stem))
    return getattr(library, name), getattr(library, f"{stem}Config")


def lora(name, **keywords):
    from peft import LoraConfig

    return LoraConfig(
        r=4, lora_alpha=8, target_modules=TARGETS[name], fan_in_fan_out=name.startswith("GPT2"), **keywords
    )


def randomize(model):
    """Give the adapter weights that matter: a new one adds nothing."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)


@pytest.fixture(params=CONFIGS)
def name(request):
    return request.param


@pytest.fixture
def folder(name, tmp_path):
    """A saved model."""
    model_class, config_class = family(modelwright, name)
    torch.manual_seed(0)
    model_class(config_class(vocab_size=11, **CONFIGS[name])).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def model(name, folder):
    return family(modelwright, name)[0].from_pretrained(folder)


def logits(model):
    with torch.no_grad():
        return model(IDS, labels=IDS).logits if model.config.is_encoder_decoder else model(IDS).logits


def test_only_the_adapter_is_trained_and_training_helps(model, name):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    scores = logits(model)
    model.add_adapter(lora(name))
    torch.testing.assert_close(logits(model), scores, msg="a new adapter adds nothing")
    trained = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in key for key in trained)
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(12):
        torch.manual_seed(1)
        loss = model(IDS, labels=IDS).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is None for parameter in model.parameters() if not parameter.requires_grad)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    after = {key.replace(".base_layer", ""): value for key, value in model.state_dict().items()}
    assert all(torch.equal(after[key], value) for key, value in before.items()), "the base is frozen"


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_layers_give_the_adapter_the_same_gradients(model, name, reentrant):
    model.add_adapter(lora(name))
    randomize(model)
    model.train()

    def gradients():
        model.zero_grad()
        torch.manual_seed(1)
        model(IDS, labels=IDS).loss.backward()
        return {key: p.grad.clone() for key, p in model.named_parameters() if p.requires_grad}

    plain = gradients()
    assert all(gradient.abs().max() > 0 for gradient in plain.values())
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    recomputed = gradients()
    assert plain.keys() == recomputed.keys()
    for key, gradient in plain.items():
        torch.testing.assert_close(recomputed[key], gradient, msg=key)


def test_the_reversible_stack_gives_the_adapter_the_gradients_of_an_ordinary_one(tmp_path):
    name = "ReformerModelWithLMHead"
    model_class, config_class = family(modelwright, name)
    model = model_class(config_class(vocab_size=11, **CONFIGS[name])).train()
    model.add_adapter(lora(name))
    randomize(model)

    def gradients(**keywords):
        model.zero_grad()
        torch.manual_seed(1)
        model(IDS, labels=IDS, **keywords).loss.backward()
        return {key: p.grad.clone() for key, p in model.named_parameters() if p.requires_grad}

    reversible, ordinary = gradients(), gradients(output_hidden_states=True)
    for key, gradient in ordinary.items():
        torch.testing.assert_close(reversible[key], gradient, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("prefixed", [True, False])
def test_an_adapter_folder_loads_its_model(model, name, tmp_path, safe, prefixed):
    model.add_adapter(lora(name))
    randomize(model)
    saved = tmp_path / "adapter"
    model.save_pretrained(saved, safe_serialization=safe, save_peft_format=prefixed)
    file = "adapter_model.safetensors" if safe else "adapter_model.bin"
    assert {path.name for path in saved.iterdir()} == {"adapter_config.json", file}
    if safe:
        from safetensors import safe_open

        with safe_open(saved / file, "pt") as opened:
            assert all(key.startswith("base_model.model.") == prefixed for key in opened.keys())  # noqa: SIM118
    loaded, info = type(model).from_pretrained(saved, output_loading_info=True)
    assert info["missing_keys"] == []
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.active_adapters() == ["default"]
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    again = type(model).from_pretrained(saved, adapter_name="mine", adapter_kwargs={"is_trainable": True})
    assert again.active_adapters() == ["mine"]
    assert sorted(k for k, p in again.named_parameters() if p.requires_grad) == sorted(
        key.replace("default", "mine") for key, p in model.named_parameters() if p.requires_grad
    )


def test_the_auto_class_finds_the_model_of_an_adapter(tmp_path):
    name = "GPT2LMHeadModel"
    model_class, config_class = family(modelwright, name)
    model_class(config_class(vocab_size=11, **CONFIGS[name])).save_pretrained(tmp_path / "base")
    model = model_class.from_pretrained(tmp_path / "base")
    model.add_adapter(lora(name))
    randomize(model)
    model.save_pretrained(tmp_path / "adapter")
    loaded = modelwright.AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert type(loaded) is model_class
    assert torch.equal(logits(loaded), logits(model))
    ids = loaded.generate(IDS, max_new_tokens=3, do_sample=False, eos_token_id=None)
    assert torch.equal(ids, model.generate(IDS, max_new_tokens=3, do_sample=False, eos_token_id=None))


@pytest.mark.parametrize("direction", ["ours", "theirs"])
def test_adapters_of_either_side(name, folder, tmp_path, direction):
    import transformers

    config = json.loads((folder / "config.json").read_text())
    theirs_class, config_class = family(transformers, name)
    theirs = theirs_class(config_class(**config)).eval()
    ours = family(modelwright, name)[0].from_pretrained(folder)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    theirs.tie_weights()
    writer, reader = (ours, theirs) if direction == "ours" else (theirs, ours)
    writer.add_adapter(lora(name))
    randomize(writer)
    writer.save_pretrained(tmp_path / "adapter")
    reader.load_adapter(str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(reader.eval()), logits(writer.eval()), rtol=1e-4, atol=1e-4)


def test_several_adapters(model, name, tmp_path):
    plain = logits(model)
    model.add_adapter(lora(name), "first")
    randomize(model)
    first = logits(model)
    model.add_adapter(lora(name), "second")
    assert model.active_adapters() == ["second"]
    torch.testing.assert_close(logits(model), plain)
    model.set_adapter("first")
    assert torch.equal(logits(model), first)
    model.disable_adapters()
    assert torch.equal(logits(model), plain)
    model.enable_adapters()
    assert torch.equal(logits(model), first)
    assert len(model.get_adapter_state_dict("second")) == len(model.get_adapter_state_dict()) > 0
    model.set_adapter(["first", "second"])
    with pytest.raises(InputError, match="save_pretrained: expected one active adapter, got first, second; choose one"):
        model.save_pretrained(tmp_path / "adapter")
    model.delete_adapter("second")
    model.set_adapter("first")
    model.save_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(type(model).from_pretrained(tmp_path / "adapter")), first)
    model.delete_adapter("first")
    assert torch.equal(logits(model), plain)
    model.save_pretrained(tmp_path / "whole")
    assert torch.equal(logits(type(model).from_pretrained(tmp_path / "whole", strict=True)), plain)
    with pytest.raises(InputError, match="active_adapters: the model has no adapter; call load_adapter"):
        model.active_adapters()


def test_saving_over_an_adapter_keeps_the_model_beside_it(model, name, folder):
    model.add_adapter(lora(name))
    randomize(model)
    files = {path.name for path in folder.iterdir()}
    model.save_pretrained(folder, safe_serialization=False)
    model.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} - files == {"adapter_config.json", "adapter_model.safetensors"}
    loaded = type(model).from_pretrained(folder)
    assert torch.equal(logits(loaded), logits(model))


def test_a_save_that_fails_leaves_the_old_adapter(model, name, tmp_path, monkeypatch):
    model.add_adapter(lora(name))
    model.save_pretrained(tmp_path / "adapter")
    before = {path.name: path.read_bytes() for path in (tmp_path / "adapter").iterdir()}
    randomize(model)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modelwright.pretrained.adapters.save_file", full)
    with pytest.raises(OSError, match="The folder still holds what it held before"):
        model.save_pretrained(tmp_path / "adapter")
    assert {path.name: path.read_bytes() for path in (tmp_path / "adapter").iterdir()} == before


def test_what_does_not_fit(tmp_path):
    name = "LlamaForCausalLM"
    model_class, config_class = family(modelwright, name)
    model = model_class(config_class(vocab_size=11, **CONFIGS[name]))
    model.add_adapter(lora(name))
    with pytest.raises(InputError, match="add_adapter: there is an adapter 'default' already; choose another"):
        model.add_adapter(lora(name))
    with pytest.raises(InputError, match="expected a config of peft, such as LoraConfig, got {'r': 4}"):
        model.add_adapter({"r": 4}, "other")
    with pytest.raises(InputError, match="set_adapter: expected one of default, got 'other'"):
        model.set_adapter("other")
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(
        ConfigError, match=r"adapter_config.json: expected base_model_name_or_path .* got None. Load that"
    ):
        model_class.from_pretrained(tmp_path / "adapter")
    wider = model_class(config_class(vocab_size=11, **{**CONFIGS[name], "intermediate_size": 20}))
    with pytest.raises(
        CheckpointMismatchError, match=r"down_proj.lora_A.weight: stored 4 x 12, the model expects 4 x 20"
    ):
        wider.load_adapter(tmp_path / "adapter")
    assert not any("lora" in key or "base_layer" in key for key in wider.state_dict()), "peft's layers are gone again"
    assert all(parameter.requires_grad for parameter in wider.parameters())
    wider.save_pretrained(tmp_path / "wider")
    assert (tmp_path / "wider" / "model.safetensors").exists()
    deeper = model_class(config_class(vocab_size=11, **{**CONFIGS[name], "num_hidden_layers": 3}))
    with pytest.raises(
        CheckpointMismatchError, match="does not fit this LlamaForCausalLM: missing: model.layers.2.mlp"
    ):
        deeper.load_adapter(tmp_path / "adapter")
    with pytest.raises(RepoError, match="no file 'adapter_config.json'"):
        model.load_adapter(tmp_path, "new")
    values = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    gone = {**values, "base_model_name_or_path": str(tmp_path / "gone")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(gone))
    with pytest.raises(RepoError, match=r"adapter: the model .*gone' of this adapter cannot be found"):
        model_class.from_pretrained(tmp_path / "adapter")
    model_class(config_class(vocab_size=11, **CONFIGS[name])).save_pretrained(tmp_path / "plain")
    with pytest.raises(InputError, match=r"adapter_kwargs is given, and there is no adapter_config.json"):
        model_class.from_pretrained(tmp_path / "plain", adapter_kwargs={"is_trainable": True})


def test_pefts_own_wrapper_trains_and_saves(model, name, folder, tmp_path):
    from peft import PeftModel, get_peft_model

    wrapped = get_peft_model(model.prepare_for_peft(), lora(name))
    randomize(wrapped)
    wrapped.train()
    wrapped(input_ids=IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in wrapped.parameters() if p.requires_grad)
    wrapped.eval().save_pretrained(tmp_path / "adapter")
    base = type(model).from_pretrained(folder).prepare_for_peft()
    again = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert torch.equal(logits(again), logits(wrapped))
    torch.testing.assert_close(logits(again.merge_and_unload()), logits(wrapped), rtol=1e-4, atol=1e-4)


def test_heads_that_are_trained_as_a_whole_travel_with_the_adapter(tmp_path):
    import peft

    config = modelwright.BertConfig(vocab_size=11, num_labels=3, **CONFIGS["BertForMaskedLM"])
    modelwright.BertForSequenceClassification(config).save_pretrained(tmp_path / "base")
    load = modelwright.BertForSequenceClassification.from_pretrained
    model = load(tmp_path / "base")
    plain = logits_of(model)
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"]))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any("classifier" in name for name in trained)
    with torch.no_grad():
        for name in trained:
            model.get_parameter(name).normal_()
    model.save_pretrained(tmp_path / "adapter")
    loaded = load(tmp_path / "adapter")
    assert torch.equal(logits_of(loaded), logits_of(model))
    assert not torch.allclose(logits_of(model), plain, atol=0.1)
    loaded.delete_adapter("default")
    assert torch.equal(logits_of(loaded), plain)


def logits_of(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_an_adapter_of_the_hub_brings_its_model(hub, tmp_path):
    name, cached, token = "GPT2LMHeadModel", {"cache_dir": tmp_path / "cache"}, "hf_writer"
    model_class, config_class = family(modelwright, name)
    model_class(config_class(vocab_size=11, **CONFIGS[name])).push_to_hub("org/base", token=token)
    model = model_class.from_pretrained("org/base", **cached)
    model.add_adapter(lora(name))
    randomize(model)
    model.push_to_hub("org/adapter", token=token)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(hub.repos["org/adapter"].head)
    assert not {"config.json", "model.safetensors"} & set(hub.repos["org/adapter"].head)
    for load in (model_class.from_pretrained, modelwright.AutoModelForCausalLM.from_pretrained):
        assert torch.equal(logits(load("org/adapter", **cached)), logits(model))
    before = set(hub.repos["org/base"].head)
    model.push_to_hub("org/base", token=token)
    assert before < set(hub.repos["org/base"].head), "the model beside the adapter stays"


# The heads of Llama and Reformer cannot be pruned anyway.
@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if not name.startswith(("Llama", "Reformer"))], indirect=True
)
def test_heads_are_not_pruned_under_an_adapter(model, name):
    model.add_adapter(lora(name))
    randomize(model)
    expected = logits(model.eval())
    with pytest.raises(ValueError, match="prune_heads: the layers of adapters cannot be pruned: prune first"):
        model.prune_heads({0: [0]})
    assert not model.config.pruned_heads
    torch.testing.assert_close(logits(model), expected)
