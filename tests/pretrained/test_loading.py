"""from_pretrained: what is loaded, what is initialised, and what is refused."""

import json
import threading

import pytest
import torch
from torch import nn

from modelwright.core.errors import (
    CheckpointError,
    CheckpointMismatchError,
    ConfigError,
    InputError,
    RepoError,
    UnknownArgumentError,
)

IDS = torch.tensor([[1, 2, 3], [4, 5, 0]])


def same(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def saved(toys, tmp_path):
    """A causal toy model and the folder it was saved in."""
    model = toys.ToyForCausalLM(toys.ToyConfig(tie_word_embeddings=False))
    model.save_pretrained(tmp_path)
    return model, tmp_path


def test_the_whole_model_comes_back_in_evaluation_mode(toys, saved, said):
    model, folder = saved
    loaded, info = toys.ToyForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert same(model, loaded)
    assert torch.equal(model.eval()(IDS), loaded(IDS))
    assert not loaded.training
    assert not any(module.training for module in loaded.modules())
    assert info == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}
    assert loaded.load_report.loaded_keys == list(loaded.state_dict())
    assert loaded.config.name_or_path == loaded.name_or_path == str(folder)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert said() == []


def test_in_inference_mode(toys, saved):
    model, folder = saved
    with torch.inference_mode():
        loaded = toys.ToyForCausalLM.from_pretrained(folder)
    assert same(model, loaded)


def test_nothing_initialised_means_no_random_number_drawn(toys, saved):
    state = torch.get_rng_state()
    toys.ToyForCausalLM.from_pretrained(saved[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_base_into_head_initialises_only_the_head(toys, tmp_path, said):
    base = toys.ToyModel(toys.ToyConfig())
    base.save_pretrained(tmp_path)
    head, info = toys.ToyForClassification.from_pretrained(tmp_path, num_labels=5, output_loading_info=True)
    assert same(base, head.toy)
    assert info["missing_keys"] == ["classifier.weight", "classifier.bias"]
    assert head.classifier.weight.std() > 0.2, "not initialised by _init_weights, whose std is 0.5"
    assert (head.classifier.bias == 0).all()
    assert head.config.num_labels == 5
    assert said() == [
        f"ToyForClassification: 2 weights are not in {tmp_path}, or not in this shape, and are newly initialised: "
        "classifier.bias, classifier.weight. Train the model before you rely on its predictions."
    ]


def test_head_into_base_and_into_another_head(toys, saved):
    model, folder = saved
    base, info = toys.ToyModel.from_pretrained(folder, output_loading_info=True)
    assert same(model.toy, base)
    assert sorted(info["unexpected_keys"]) == ["lm_head.bias", "lm_head.weight"]
    other, info = toys.ToyForClassification.from_pretrained(folder, output_loading_info=True)
    assert same(model.toy, other.toy)
    assert len(info["missing_keys"]) == len(info["unexpected_keys"]) == 2


def test_the_seed_decides_what_missing_weights_become(toys, saved):
    def head(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return toys.ToyForClassification.from_pretrained(saved[1]).classifier.weight

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


def test_tied_weights_are_stored_once_and_loaded_as_one(toys, tmp_path):
    model = toys.ToyForCausalLM(toys.ToyConfig())
    assert model.lm_head.weight is model.toy.words.weight
    model.save_pretrained(tmp_path)
    loaded, info = toys.ToyForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert loaded.lm_head.weight is loaded.toy.words.weight
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert same(model, loaded)
    assert "lm_head.weight" not in loaded.load_report.loaded_keys


@pytest.mark.parametrize("name", ["lm_head.weight", "toy.words.weight"])
def test_either_name_of_a_tied_weight_is_enough(toys, name):
    model = toys.ToyForCausalLM(toys.ToyConfig())
    weights = {key: value for key, value in model.state_dict().items() if key != name}
    loaded, info = toys.ToyForCausalLM.from_pretrained(
        None, config=model.config, state_dict=weights, output_loading_info=True
    )
    assert info["missing_keys"] == []
    assert loaded.lm_head.weight is loaded.toy.words.weight
    assert same(model, loaded)


def test_a_tied_checkpoint_can_be_loaded_untied(toys, tmp_path):
    model = toys.ToyForCausalLM(toys.ToyConfig())
    model.save_pretrained(tmp_path)
    loaded, info = toys.ToyForCausalLM.from_pretrained(tmp_path, tie_word_embeddings=False, output_loading_info=True)
    assert loaded.lm_head.weight is not loaded.toy.words.weight
    assert info["missing_keys"] == ["lm_head.weight"]


def test_torchscript_copies_tied_weights(toys, tmp_path):
    toys.ToyForCausalLM(toys.ToyConfig()).save_pretrained(tmp_path)
    loaded, info = toys.ToyForCausalLM.from_pretrained(tmp_path, torchscript=True, output_loading_info=True)
    assert info["missing_keys"] == []
    assert loaded.lm_head.weight is not loaded.toy.words.weight
    assert torch.equal(loaded.lm_head.weight, loaded.toy.words.weight)


def test_missing_tied_weights_are_one_and_initialised(toys):
    model = toys.ToyForCausalLM(toys.ToyConfig())
    weights = {name: tensor for name, tensor in model.state_dict().items() if "layers" in name}
    loaded = toys.ToyForCausalLM.from_pretrained(None, config=model.config, state_dict=weights)
    assert loaded.lm_head.weight is loaded.toy.words.weight
    assert same(model.toy.layers, loaded.toy.layers)


def test_computed_buffers_are_there_and_not_in_the_file(toys, saved):
    loaded = toys.ToyModel.from_pretrained(saved[1])
    assert loaded.layers[1].scale.tolist() == [2.0**-power for power in range(8)]
    assert not any("scale" in name for name in loaded.state_dict())


@pytest.mark.parametrize("safe", [True, False])
def test_sharded_is_whole(toys, saved, tmp_path, safe):
    model, _ = saved
    model.save_pretrained(tmp_path / "shards", max_shard_size=400, safe_serialization=safe)
    shards = list((tmp_path / "shards").glob("*-of-*"))
    assert len(shards) > 3
    assert same(model, toys.ToyForCausalLM.from_pretrained(tmp_path / "shards", use_safetensors=safe))
    with pytest.raises(CheckpointError, match=f"use_safetensors={not safe} excludes"):
        toys.ToyForCausalLM.from_pretrained(tmp_path / "shards", use_safetensors=not safe)


def test_dtype_by_request_config_and_checkpoint(toys, saved, tmp_path):
    model, folder = saved
    load = toys.ToyForCausalLM.from_pretrained
    assert load(folder).dtype == torch.float32
    half = load(folder, torch_dtype="float16")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}
    assert half.config.dtype == "float16"
    assert torch.equal(half.toy.words.weight, model.toy.words.weight.half())
    assert half.toy.layers[0].scale.dtype == torch.float32, "the class does not cast its computed buffer"
    load(folder, dtype=torch.bfloat16).save_pretrained(tmp_path / "bf16")
    assert load(tmp_path / "bf16").dtype == torch.float32
    assert load(tmp_path / "bf16", dtype="auto").dtype == torch.bfloat16
    config = json.loads((tmp_path / "bf16" / "config.json").read_text())
    for name in ("dtype", "torch_dtype"):
        config.pop(name, None)
    (tmp_path / "bf16" / "config.json").write_text(json.dumps(config))
    assert load(tmp_path / "bf16", dtype="auto").dtype == torch.bfloat16
    load(tmp_path / "bf16", dtype="auto").save_pretrained(tmp_path / "shards", max_shard_size=300)
    (tmp_path / "shards" / "config.json").write_text(json.dumps(config))
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    assert load(tmp_path / "shards", dtype="auto").dtype == torch.bfloat16


def test_a_mixed_checkpoint(toys):
    model = toys.ToyModel(toys.ToyConfig(hidden_size=32))
    weights = {name: value.bfloat16() if "dense" in name else value for name, value in model.state_dict().items()}
    for dtype, expected in [("auto", torch.bfloat16), (None, torch.float32)]:
        loaded = toys.ToyModel.from_pretrained(None, config=model.config, state_dict=weights, dtype=dtype)
        assert {parameter.dtype for parameter in loaded.parameters()} == {expected}
    assert torch.equal(loaded.layers[0].dense.weight, model.layers[0].dense.weight.bfloat16().float())
    assert torch.equal(loaded.words.weight, model.words.weight)


def test_a_forgotten_tensor_is_found(toys, saved, monkeypatch):
    def forgetful(self, config, *, device=None, dtype=None):
        original(self, config, device=device, dtype=dtype)
        self.table = torch.zeros(2, device=device)

    original = toys.ToyLayer.__init__
    monkeypatch.setattr(toys.ToyLayer, "__init__", forgetful)
    with pytest.raises(CheckpointMismatchError, match="'layers.0.table' has no values after loading"):
        toys.ToyModel.from_pretrained(saved[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["ToyForCausalLM", "ToyForClassification", "LegacyForMaskedLM"])
def test_loading_to_a_gpu(toys, tmp_path, name):
    model_class = getattr(toys, name)
    base_class = toys.LegacyModel if name.startswith("Legacy") else toys.ToyModel
    base_class(base_class.config_class()).save_pretrained(tmp_path)
    loaded = model_class.from_pretrained(tmp_path, device_map="cuda:0", dtype="bfloat16")
    assert {t.device for t in [*loaded.parameters(), *loaded.buffers()]} == {torch.device("cuda:0")}
    if (head := loaded.get_output_embeddings()) is not None:
        assert head.weight is loaded.get_input_embeddings().weight
    assert loaded(IDS.cuda()).isfinite().all()


def test_a_state_dict_is_copied(toys):
    model = toys.ToyModel(toys.ToyConfig())
    loaded = toys.ToyModel.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    loaded.words.weight.data.zero_()
    assert model.words.weight.abs().sum() > 0


# --- the config -------------------------------------------------------------------------------------------------------


def test_config_keywords_override_file_and_object(toys, saved):
    _, folder = saved
    config = toys.ToyConfig(tie_word_embeddings=False)
    loaded = toys.ToyForCausalLM.from_pretrained(folder, config=config, is_decoder=True, initializer_range=0.1)
    assert (loaded.config.is_decoder, loaded.config.initializer_range) == (True, 0.1)
    assert toys.ToyForCausalLM.from_pretrained(folder, config=config, dtype="float16").config.dtype == "float16"
    assert (config.is_decoder, config.dtype, config.name_or_path) == (False, None, "")
    assert toys.ToyForCausalLM.from_pretrained(folder, is_decoder=True).config.is_decoder


def test_config_of_another_folder(toys, saved, tmp_path):
    toys.ToyConfig(tie_word_embeddings=False, initializer_range=9.0).save_pretrained(tmp_path / "other")
    loaded = toys.ToyForCausalLM.from_pretrained(saved[1], config=tmp_path / "other")
    assert loaded.config.initializer_range == 9.0
    assert loaded.config.name_or_path == str(saved[1])


def test_another_model_type_is_refused_unless_the_class_lists_it(toys, saved, monkeypatch):
    _, folder = saved
    expected = "expected a checkpoint of model_type 'legacy' for LegacyModel, found 'toy'. Use the class of that family"
    with pytest.raises(CheckpointMismatchError, match=expected):
        toys.LegacyModel.from_pretrained(folder)
    with pytest.raises(CheckpointMismatchError, match="the given ToyConfig: expected .* model_type 'legacy'"):
        toys.LegacyModel.from_pretrained(folder, config=toys.ToyConfig())
    monkeypatch.setattr(toys.ToyModel, "_compatible_model_types", ("legacy",))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "legacy"}))
    assert toys.ToyModel.from_pretrained(folder).config.model_type == "toy"


def test_generation_config_is_loaded_if_it_is_there(toys, saved):
    model, folder = saved
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(folder)
    assert toys.ToyForCausalLM.from_pretrained(folder).generation_config.max_new_tokens == 7
    (folder / "generation_config.json").unlink()
    assert toys.ToyForCausalLM.from_pretrained(folder, pad_token_id=3).generation_config.pad_token_id == 3
    assert toys.ToyModel.from_pretrained(folder).generation_config is None


# --- what does not fit ------------------------------------------------------------------------------------------------


def test_other_shapes_are_an_error_or_initialised_on_request(toys, tmp_path):
    model = toys.ToyForClassification(toys.ToyConfig(num_labels=2))
    model.save_pretrained(tmp_path)
    load = toys.ToyForClassification.from_pretrained
    with pytest.raises(
        CheckpointMismatchError, match=r"(?s)classifier.weight: stored \[2, 8\].*expects \[3, 8\].*ignor"
    ):
        load(tmp_path, num_labels=3)
    loaded, info = load(tmp_path, num_labels=3, ignore_mismatched_sizes=True, output_loading_info=True)
    assert info["mismatched_keys"] == [("classifier.weight", (2, 8), (3, 8)), ("classifier.bias", (2,), (3,))]
    assert same(model.toy, loaded.toy)
    assert loaded(IDS).shape == (2, 3)
    assert loaded.classifier.weight.std() > 0.2


def test_strict_makes_errors_of_all(toys, saved):
    _, folder = saved
    assert same(saved[0], toys.ToyForCausalLM.from_pretrained(folder, strict=True))
    with pytest.raises(CheckpointMismatchError, match=r"missing: classifier.bias, .*; unexpected: lm_head.bias, "):
        toys.ToyForClassification.from_pretrained(folder, strict=True)


@pytest.mark.parametrize(
    ("strict", "message"),
    [
        (
            {"missing": "error"},
            r"strict loading: .*; missing: classifier.bias, .*. Load with strict={\"missing\": \"warn\"}",
        ),
        ({"unexpected": "error", "missing": "ignore"}, "parameters of the model; unexpected: lm_head.bias"),
    ],
)
def test_each_kind_may_be_an_error_of_its_own(toys, saved, strict, message):
    with pytest.raises(CheckpointMismatchError, match=message):
        toys.ToyForClassification.from_pretrained(saved[1], strict=strict)


def test_what_is_ignored_is_not_said_but_reported(toys, saved, said):
    strict = {"missing": "ignore", "unexpected": "ignore", "mismatched": "ignore"}
    load = toys.ToyForClassification.from_pretrained
    model = load(saved[1], strict=strict, architectures=["ToyForClassification"], vocab_size=13)
    assert said() == []
    assert model.load_report.missing_keys == ["classifier.weight", "classifier.bias"]
    assert model.load_report.unexpected_keys == ["lm_head.bias", "lm_head.weight"]
    assert model.load_report.mismatched_keys == [("toy.words.weight", (11, 8), (13, 8))]
    load(saved[1], strict={"mismatched": "ignore"}, vocab_size=13)
    (missing,) = said()
    assert "toy.words" not in missing
    assert "classifier.{bias" in missing or "classifier.bias" in missing


def test_renames_work_both_ways(toys, saved, tmp_path, monkeypatch):
    from modelwright.checkpoint.names import Rename

    model, folder = saved

    class Renamed(toys.ToyForCausalLM):
        _checkpoint_renames = (Rename.literal("words", "embed"), Rename.literal("dense", "proj"))

        def __init__(self, config, *, device=None, dtype=None):
            super().__init__(config, device=device, dtype=dtype)
            self.toy.embed = self.toy.words
            del self.toy.words
            for layer in self.toy.layers:
                layer.proj = layer.dense
                del layer.dense

    monkeypatch.setattr(toys.ToyModel, "get_input_embeddings", lambda self: getattr(self, "embed", None) or self.words)
    renamed, info = Renamed.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert torch.equal(renamed.toy.embed.weight, model.toy.words.weight)
    renamed.save_pretrained(tmp_path / "back")
    assert same(model, toys.ToyForCausalLM.from_pretrained(tmp_path / "back", strict=True))


def test_key_mapping(toys):
    model = toys.ToyModel(toys.ToyConfig())
    weights = {name.replace("words", "wte"): tensor for name, tensor in model.state_dict().items()}
    load = toys.ToyModel.from_pretrained
    loaded = load(None, config=model.config, state_dict=weights, key_mapping={"^wte": "words"}, strict=True)
    assert same(model, loaded)


def test_unexpected_weights_are_said_and_may_be_declared(toys, saved, said, monkeypatch):
    model, _ = saved
    weights = {**model.state_dict(), "toy.layers.0.old": torch.ones(1), "toy.layers.1.old": torch.ones(1)}
    load = toys.ToyForCausalLM.from_pretrained
    load(None, config=model.config, state_dict=weights)
    assert said() == ["ToyForCausalLM: 2 weights of the state dict are not used: toy.layers.{0..1}.old"]
    monkeypatch.setattr(toys.ToyForCausalLM, "_keys_to_ignore_on_load_unexpected", [r"\.old$"])
    _, info = load(None, config=model.config, state_dict=weights, output_loading_info=True)
    assert info["unexpected_keys"] == []
    assert len(said()) == 1


# --- arguments --------------------------------------------------------------------------------------------------------


def test_unknown_keywords_name_the_nearest(toys, saved):
    for wrong, right in [("ignore_mismatched_size", "ignore_mismatched_sizes"), ("num_label", "num_labels"),
                         ("hidden_sizes", "hidden_size"), ("low_cpu_mem", "low_cpu_mem_usage")]:  # fmt: skip
        message = f"ToyModel.from_pretrained got an unknown keyword '{wrong}'. Did you mean '{right}'"
        with pytest.raises(UnknownArgumentError, match=message):
            toys.ToyModel.from_pretrained(saved[1], **{wrong: 3})


def test_constructor_keywords_reach_the_constructor(toys, tmp_path):
    model = toys.LegacyModel(toys.LegacyConfig(), add_pooling_layer=False)
    model.save_pretrained(tmp_path)
    loaded, info = toys.LegacyModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert loaded.pooler is None
    assert info["missing_keys"] == []
    assert toys.LegacyModel.from_pretrained(tmp_path, False).pooler is None


def test_low_cpu_mem_usage_and_hub_keywords_are_said_once(toys, saved, said):
    for _ in range(2):
        toys.ToyForCausalLM.from_pretrained(saved[1], low_cpu_mem_usage=False, local_files_only=True, revision="v2")
    first, second = sorted(said(), key=lambda line: "revision" in line)
    assert first.startswith("ToyForCausalLM.from_pretrained: low_cpu_mem_usage=False changes nothing: ")
    assert second.startswith(f"{saved[1]}: revision has no effect")


@pytest.mark.parametrize("device_map", ["cpu", torch.device("cpu"), {"": "cpu"}, None])
def test_one_device(toys, saved, device_map):
    loaded = toys.ToyForCausalLM.from_pretrained(saved[1], device_map=device_map)
    assert same(saved[0], loaded)


@pytest.mark.parametrize("device_map", ["gpu", -1, True, "meta", 1.5])
def test_what_is_no_device(toys, saved, device_map):
    with pytest.raises(InputError, match="expected device_map to be None, a device such as 'cpu' or 'cuda:0', or"):
        toys.ToyForCausalLM.from_pretrained(saved[1], device_map=device_map)


def test_arguments_of_a_wrong_type(toys, saved):
    with pytest.raises(InputError, match="expected strict to be True, False or .*, got 'yes'"):
        toys.ToyModel.from_pretrained(saved[1], strict="yes")
    with pytest.raises(InputError, match="expected config to be a config or a folder, got 7"):
        toys.ToyModel.from_pretrained(saved[1], config=7)
    with pytest.raises(InputError, match="without one, pass both config and state_dict"):
        toys.ToyModel.from_pretrained(None, config=toys.ToyConfig())


def test_missing_folder_file_and_weights(toys, saved, tmp_path):
    with pytest.raises(RepoError, match="expected a folder on this machine, found none"):
        toys.ToyModel.from_pretrained("./google/toy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RepoError, match=r"config\.json"):
        toys.ToyModel.from_pretrained(tmp_path / "empty")
    toys.ToyConfig().save_pretrained(tmp_path / "empty")
    with pytest.raises(CheckpointError, match=r"expected one of model\.safetensors"):
        toys.ToyModel.from_pretrained(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text('{"problem_type": "none"}')
    with pytest.raises(ConfigError, match=r"empty/config\.json: ToyConfig.problem_type"):
        toys.ToyModel.from_pretrained(tmp_path / "empty")


def test_subfolder_and_variant(toys, saved, tmp_path):
    model, _ = saved
    model.save_pretrained(tmp_path / "outer" / "inner", variant="fp16")
    load = toys.ToyForCausalLM.from_pretrained
    assert same(model, load(tmp_path / "outer", subfolder="inner", variant="fp16"))
    with pytest.raises(CheckpointError, match="variants fp16"):
        load(tmp_path / "outer", subfolder="inner")


# --- threads ----------------------------------------------------------------------------------------------------------


def test_eight_threads_load_at_once(toys, tmp_path):
    models = [toys.ToyForCausalLM(toys.ToyConfig(tie_word_embeddings=bool(i % 2))) for i in range(4)]
    legacy = [toys.LegacyForMaskedLM(toys.LegacyConfig()) for _ in range(4)]
    for index, model in enumerate([*models, *legacy]):
        model.save_pretrained(tmp_path / str(index))
    before = (torch.get_default_dtype(), nn.Module.register_parameter, nn.Linear.__init__, nn.init.normal_)
    wrong = []

    def work(index, model):
        for turn in range(6):
            dtype = [torch.float32, torch.bfloat16][turn % 2]
            loaded = type(model).from_pretrained(tmp_path / str(index), dtype=dtype)
            if not same(model.to(dtype), loaded) or any(parameter.is_meta for parameter in loaded.parameters()):
                wrong.append((index, turn))
            model.float()

    expected = [model.to(torch.bfloat16).float() for model in [*models, *legacy]]
    for index, model in enumerate(expected):
        model.save_pretrained(tmp_path / str(index))
    threads = [threading.Thread(target=work, args=item) for item in enumerate(expected)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert before == (torch.get_default_dtype(), nn.Module.register_parameter, nn.Linear.__init__, nn.init.normal_)
