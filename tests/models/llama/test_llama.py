import pytest
import torch

from modelwright.attention.caches import StaticCache
from modelwright.core.errors import ConfigError
from modelwright.models.llama.configuration_llama import LlamaConfig
from modelwright.models.llama.modeling_llama import LlamaForCausalLM, LlamaForQuestionAnswering, LlamaModel

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "initializer_range": 0.2,
    "eos_token_id": None,
    "pad_token_id": 0,
}
IDS = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(0))
PADDED = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9])


def make(kind=LlamaForCausalLM, **config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(LlamaConfig(**{**SMALL, **config})).eval()


def test_heads_of_groups_are_not_pruned():
    model = make()
    with pytest.raises(NotImplementedError, match="each key/value head serves 2 query heads.*groups of unequal size"):
        model.prune_heads({0: [1]})
    assert model.config.pruned_heads == {}
    with pytest.raises(NotImplementedError, match="each key/value head serves 2 query heads"):
        make(pruned_heads={0: [1]})


@pytest.mark.parametrize("bias", [False, True])
def test_heads_without_groups_are_pruned(tmp_path, bias):
    model = make(num_key_value_heads=None, attention_bias=bias)
    expected = make(num_key_value_heads=None, attention_bias=bias)
    with torch.no_grad():
        # A head whose output nobody reads is a head that is not there.
        for head in (0, 2):
            expected.model.layers[1].self_attn.o_proj.weight[:, 8 * head : 8 * head + 8] = 0
    model.prune_heads({1: [2]})
    model.prune_heads({1: [0]})
    torch.testing.assert_close(model(IDS).logits, expected(IDS).logits)
    model.save_pretrained(tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path, strict=True)
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    generated = loaded.generate(IDS, max_new_tokens=5)
    assert torch.equal(generated, loaded.generate(IDS, max_new_tokens=5, use_cache=False))


def test_gradients_are_those_without_checkpointing():
    model = make(attention_dropout=0.3).train()
    gradients = []
    for on in (False, True):
        model.set_gradient_checkpointing(on)
        model.zero_grad()
        torch.manual_seed(3)
        model(IDS, labels=IDS, attention_mask=PADDED, use_cache=False).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("window", [None, 4])
def test_generation_is_the_same_cached_static_uncached_and_alone(kernel, window):
    model = make(attn_implementation=kernel, sliding_window=window)
    keywords = {"attention_mask": PADDED, "max_new_tokens": 9}
    batch = model.generate(IDS, **keywords)
    assert torch.equal(model.generate(IDS, **keywords, use_cache=False), batch)
    static = StaticCache(model.config, max_cache_len=18)
    assert torch.equal(model.generate(IDS, **keywords, past_key_values=static), batch)
    assert torch.equal(model.generate(IDS[:1, 3:], max_new_tokens=9)[0], batch[0, 3:])


def test_layers_may_differ_in_what_they_see():
    types = ["sliding_attention", "full_attention"]
    mixed, full = make(sliding_window=3, layer_types=types), make()
    assert mixed.config.layer_types == types
    assert not torch.allclose(mixed(IDS).logits, full(IDS).logits)
    assert torch.equal(mixed(IDS[:, :3]).logits, full(IDS[:, :3]).logits)


def test_the_two_spellings_of_rotary_settings_agree(tmp_path):
    new = make(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 300.0})
    old = make(rope_scaling={"type": "linear", "factor": 4.0}, rope_theta=300.0)
    assert torch.equal(new(IDS).logits, old(IDS).logits)
    assert not torch.allclose(new(IDS).logits, make()(IDS).logits)
    for model in (new, old):
        model.save_pretrained(tmp_path / model.config.rope_scaling.get("type", "new"))
    assert torch.equal(LlamaForCausalLM.from_pretrained(tmp_path / "new")(IDS).logits, old(IDS).logits)
    assert torch.equal(LlamaForCausalLM.from_pretrained(tmp_path / "linear")(IDS).logits, old(IDS).logits)


def test_bad_configs():
    with pytest.raises(
        ConfigError, match="multiple of num_key_value_heads, got num_attention_heads=4, num_key_value_h"
    ):
        make(num_key_value_heads=3)
    with pytest.raises(ConfigError, match="hidden_size to be a multiple of num_attention_heads.*hidden_size=30"):
        make(hidden_size=30)
    with pytest.raises(KeyError, match="Missing required keys in `rope_scaling` for 'rope_type'='linear'"):
        make(rope_scaling={"rope_type": "linear"})
    with pytest.raises(ConfigError, match="one set of values for all layers, got one for each of full_attention"):
        make(rope_parameters={"full_attention": {"rope_type": "default"}})


def test_base_models_and_names():
    assert isinstance(make(LlamaForQuestionAnswering).base_model, LlamaModel)
    tied = make(tie_word_embeddings=True)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert make()._position_limit() is None
    assert make(LlamaModel)(IDS, return_dict=False)[0].shape == (2, 9, 32)


def test_question_answering_starts_from_a_language_model(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    loaded = LlamaForQuestionAnswering.from_pretrained(tmp_path)
    assert torch.equal(loaded.transformer(IDS)[0], model.model(IDS)[0])
    assert set(loaded.load_report.missing_keys) == {"qa_outputs.weight", "qa_outputs.bias"}
    loaded.save_pretrained(tmp_path / "qa")
    assert torch.equal(LlamaModel.from_pretrained(tmp_path / "qa")(IDS)[0], model.model(IDS)[0])
