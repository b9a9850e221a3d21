"""The parts of a model: construction, tying, embeddings, the small properties."""

import pytest
import torch
from torch import nn

from modelwright.core.errors import ConfigError, InputError, UnknownArgumentError

IDS = torch.tensor([[1, 2, 3]])


def test_a_config_is_needed(toys):
    with pytest.raises(InputError, match=r"ToyModel: expected a config .* got dict; to load weights use ToyModel.fr"):
        toys.ToyModel({"hidden_size": 8})


def test_from_config(toys):
    config = toys.ToyConfig(dtype="bfloat16")
    model = toys.ToyForCausalLM.from_config(config)
    assert (model.dtype, model.training, model.config.dtype) == (torch.float32, True, "float32")
    assert config.dtype == "bfloat16", "the caller's config was changed"
    assert toys.ToyForCausalLM.from_config(config, dtype="auto").dtype == torch.bfloat16
    assert toys.ToyForCausalLM.from_config(config, torch_dtype=torch.float16).dtype == torch.float16
    empty = toys.ToyForCausalLM.from_config(config, device="meta")
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert empty.lm_head.weight is empty.toy.words.weight
    with pytest.raises(UnknownArgumentError, match="from_config got an unknown keyword 'dtyp'. Did you mean 'dtype"):
        toys.ToyModel.from_config(config, dtyp=1)


def test_modules_that_stay_in_float32(toys, tmp_path, monkeypatch):
    model = toys.ToyModel(toys.ToyConfig())
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(toys.ToyModel, "_keep_in_fp32_modules", ["norm"], raising=False)

    def in_float32(dtype):
        loaded = toys.ToyModel.from_pretrained(tmp_path, dtype=dtype)
        return {name for name, parameter in loaded.named_parameters() if parameter.dtype == torch.float32}

    norms = {f"layers.{i}.norm.{name}" for i in range(2) for name in ("weight", "bias")}
    assert in_float32(torch.float16) == norms
    assert in_float32(torch.bfloat16) == set()
    monkeypatch.setattr(toys.ToyModel, "_keep_in_fp32_modules_strict", ["1.dense"], raising=False)
    assert in_float32(torch.bfloat16) == {"layers.1.dense.weight", "layers.1.dense.bias"}


def test_the_same_seed_gives_the_same_model(toys):
    def weight():
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return toys.ToyForCausalLM(toys.ToyConfig()).toy.layers[1].dense.weight

    assert torch.equal(weight(), weight())


def test_initialisation_covers_base_and_head(toys):
    model = toys.ToyForClassification(toys.ToyConfig(initializer_range=0.0))
    assert {parameter.mean().item() for parameter in model.parameters()} == {0.0, 1.0}


def test_a_model_without_prunable_heads_says_so(toys):
    match = r"config.pruned_heads: heads of ToyModel cannot be pruned: its attention has no heads"
    with pytest.raises(NotImplementedError, match=match):
        toys.ToyModel(toys.ToyConfig(pruned_heads={0: [1]}))
    with pytest.raises(NotImplementedError, match=r"ToyForCausalLM.prune_heads: heads of ToyModel cannot be pruned"):
        toys.ToyForCausalLM(toys.ToyConfig()).prune_heads({0: [1]})


# --- tying ------------------------------------------------------------------------------------------------------------


def test_tying_follows_the_config(toys):
    tied, apart = (toys.ToyForCausalLM(toys.ToyConfig(tie_word_embeddings=tie)) for tie in (True, False))
    assert tied.lm_head.weight is tied.toy.words.weight
    assert apart.lm_head.weight is not apart.toy.words.weight


def test_new_embeddings_are_tied_again_and_the_bias_grows(toys):
    model = toys.ToyForCausalLM(toys.ToyConfig())
    model.lm_head.bias.data.fill_(2.0)
    model.set_input_embeddings(nn.Embedding(13, 8))
    assert model.lm_head.weight is not model.toy.words.weight
    model.tie_weights()
    assert model.lm_head.weight is model.toy.words.weight
    assert model.lm_head.bias.tolist() == [2.0] * 11 + [0.0] * 2
    assert model.lm_head.out_features == 13
    assert model(IDS).shape == (1, 3, 13)


def test_ties_declared_as_a_dictionary(toys):
    class Declared(toys.ToyForCausalLM):
        _tied_weights_keys = {
            "lm_head.weight": "toy.words.weight",
            r"toy\.layers\.(1)\.norm\.(\w+)": r"toy.layers.0.norm.\2",
        }

    model = Declared(toys.ToyConfig())
    assert model.lm_head.weight is model.toy.words.weight
    assert model.toy.layers[1].norm.bias is model.toy.layers[0].norm.bias
    assert model.toy.layers[1].dense.bias is not model.toy.layers[0].dense.bias
    Declared._tied_weights_keys = {"lm_head.weight": "toy.wrods.weight"}
    with pytest.raises(InputError, match="ties 'lm_head.weight' to 'toy.wrods.weight', which is no parameter"):
        model.tie_weights()


def test_ties_of_a_modules_own(toys):
    class Own(toys.ToyModel):
        def _tie_weights(self):
            self.layers[1].dense.weight = self.layers[0].dense.weight

    model = Own(toys.ToyConfig())
    assert model.layers[1].dense.weight is model.layers[0].dense.weight


def test_a_tied_encoder_needs_a_decoder(toys):
    with pytest.raises(
        ConfigError, match=r"ToyModel: config.tie_encoder_decoder=True needs a decoder; set it to False"
    ):
        toys.ToyModel(toys.ToyConfig(is_encoder_decoder=True, tie_encoder_decoder=True))


# --- parts ------------------------------------------------------------------------------------------------------------


def test_base_model_and_embeddings(toys):
    head, base = toys.ToyForCausalLM(toys.ToyConfig()), toys.ToyModel(toys.ToyConfig())
    assert head.base_model is head.toy
    assert base.base_model is base
    assert head.get_input_embeddings() is head.toy.words
    assert base.get_output_embeddings() is None
    assert head.get_output_embeddings() is head.lm_head

    class Without(toys.ToyPreTrainedModel):
        pass

    bare = Without(toys.ToyConfig())
    for call in (bare.get_input_embeddings, lambda: bare.set_input_embeddings(nn.Embedding(1, 1))):
        with pytest.raises(NotImplementedError, match="Without does not say where its input embeddings are"):
            call()


def test_small_properties(toys):
    model = toys.ToyForCausalLM(toys.ToyConfig())
    assert model.can_generate()
    assert not toys.ToyModel.can_generate()
    assert model.framework == "pt"
    assert model.main_input_name == "input_ids"
    assert model(**model.dummy_inputs).shape == (2, 4, 11)
    assert model.num_parameters() == 11 * 8 + 11 + 2 * (8 * 8 + 8 + 8 + 8)
    assert model.generation_config is not None
    assert toys.ToyModel(toys.ToyConfig()).generation_config is None


def test_an_id_without_an_embedding_is_named_with_the_way_out(toys):
    model = toys.ToyForCausalLM(toys.ToyConfig())
    with pytest.raises(InputError) as caught:
        model(torch.tensor([[1, 11]]))
    assert str(caught.value) == (
        "ToyModel: expected ids from 0 to 10 in input_ids, the number of token embeddings, got 11. If the tokenizer "
        "has more tokens than the model, call model.resize_token_embeddings(len(tokenizer)) once"
    )
    assert isinstance(caught.value, IndexError)
    model.resize_token_embeddings(12)
    model(torch.tensor([[1, 11]]))


def test_another_index_error_stays_what_it_is(toys, monkeypatch):
    def fail(self, input_ids):
        raise IndexError("somewhere else")

    monkeypatch.setattr(toys.ToyModel, "forward", fail)
    with pytest.raises(IndexError, match="^somewhere else$"):
        toys.ToyModel(toys.ToyConfig())(torch.tensor([[1]]))


def test_a_model_still_compiles_into_one_graph(toys):
    model = toys.ToyForCausalLM(toys.ToyConfig()).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.tensor([[1, 2]])), model(torch.tensor([[1, 2]])))
