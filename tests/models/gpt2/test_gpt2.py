import json

import pytest
import torch
from torch import nn

from modelwright.attention.caches import DynamicCache, StaticCache
from modelwright.core import logging
from modelwright.core.errors import ConfigError, InputError, UnknownArgumentError
from modelwright.models.gpt2.configuration_gpt2 import GPT2Config
from modelwright.models.gpt2.modeling_gpt2 import GPT2DoubleHeadsModel, GPT2ForSequenceClassification, GPT2LMHeadModel

SMALL = {
    "vocab_size": 50,
    "n_positions": 32,
    "n_embd": 16,
    "n_layer": 3,
    "n_head": 4,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
IDS = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(0))
PADDED = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9])


def make(kind=GPT2LMHeadModel, **config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(GPT2Config(**{**SMALL, **config})).eval()


@pytest.fixture
def said(caplog):
    logging.forget_once()
    return lambda: [record.getMessage() for record in caplog.records]


# --- pruning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_pruned_is_masked_with_zeros_and_smaller(kernel):
    model = make(attn_implementation=kernel)
    mask = torch.ones(3, 4)
    mask[0, 1] = mask[2, 0] = mask[2, 3] = 0
    masked = model(IDS, head_mask=mask).logits
    before = model.num_parameters()
    model.prune_heads({0: [1], 2: [3]})
    model.prune_heads({2: (0, 3)})
    torch.testing.assert_close(model(IDS).logits, masked)
    # A head is 4 wide: three columns of c_attn with their biases, and a row of c_proj.
    assert before - model.num_parameters() == 3 * (3 * 4 * (16 + 1) + 4 * 16)
    assert model.config.pruned_heads == {0: [1], 2: [0, 3]}
    # Masks count the heads as before pruning, or as they are now.
    torch.testing.assert_close(model(IDS, head_mask=mask).logits, masked)


def test_pruned_models_are_saved_and_loaded(tmp_path):
    model = make()
    model.prune_heads({0: [1], 2: [0, 3]})
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["pruned_heads"] == {"0": [1], "2": [0, 3]}
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path, strict=True)
    assert loaded.config.pruned_heads == {0: [1], 2: [0, 3]}
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    loaded.prune_heads({0: [0, 1]})
    assert loaded.config.pruned_heads[0] == [0, 1]
    assert loaded.transformer.h[0].attn.num_heads == 2
    generated = loaded.generate(IDS, max_new_tokens=5)
    assert torch.equal(generated, loaded.generate(IDS, max_new_tokens=5, use_cache=False))


def test_a_new_model_of_a_pruned_config_is_pruned_and_initialised():
    model = make(pruned_heads={"1": [2]})
    assert model.transformer.h[1].attn.c_attn.weight.shape == (16, 36)
    assert 0.2 < model.transformer.h[1].attn.c_attn.weight.std().item() < 0.4


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({3: [0]}, "expected layers from 0 to 2, got 3"),
        ({"0": [0]}, "expected layers from 0 to 2, got '0'"),
        ({0: [1], 1: [4]}, r"expected heads from 0 to 3 \(numbered as before any pruning\) for layer 1, got 4"),
        ({0: [-1]}, "for layer 0, got -1"),
        ({0: [0, 1, 2]}, r"at least one of 4 heads to stay in layer 0, but \[0, 1, 2, 3\] would go"),
        ({0: 1}, "expected a list of heads for layer 0, got 1"),
        ({0: ["a"]}, "whole numbers as heads of layer 0, got 'a'"),
        ([0], r"expected a dictionary \{layer: heads\}.*got \[0\]"),
    ],
)
def test_wrong_heads_change_nothing(heads, message):
    model = make()
    model.prune_heads({0: [3]})
    with pytest.raises(InputError, match=f"GPT2LMHeadModel.prune_heads: .*{message}"):
        model.prune_heads(heads)
    assert model.config.pruned_heads == {0: [3]}
    assert [block.attn.num_heads for block in model.transformer.h] == [3, 4, 4]


# --- gradient checkpointing ------------------------------------------------------------------------------------------


def gradients(model, **keywords):
    model.zero_grad()
    torch.manual_seed(3)
    model(IDS, labels=IDS, use_cache=False, **keywords).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kwargs", [None, {"use_reentrant": True}, {"use_reentrant": False}])
def test_gradients_with_dropout_are_those_without_checkpointing(kwargs):
    model = make().train()
    assert not model.is_gradient_checkpointing
    plain = gradients(model)
    model.gradient_checkpointing_enable(kwargs)
    assert model.is_gradient_checkpointing
    assert model.supports_gradient_checkpointing
    model.enable_input_require_grads()
    recomputed = gradients(model)
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


def test_keyword_tensors_keep_their_gradients():
    model = make(add_cross_attention=True).train()
    states, mask = torch.randn(2, 5, 16, requires_grad=True), torch.ones(3, 4, requires_grad=True)
    gradients(model, encoder_hidden_states=states, head_mask=mask)
    expected = states.grad.clone(), mask.grad.clone()
    for reentrant in (False, True):
        states.grad = mask.grad = None
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        gradients(model, encoder_hidden_states=states, head_mask=mask)
        torch.testing.assert_close((states.grad, mask.grad), expected)


def test_layers_are_recomputed_every_n():
    model = make().train()
    model.gradient_checkpointing_enable(every_n_layers=2)
    assert [block.gradient_checkpointing for block in model.transformer.h] == [True, False, True]
    counts = [0, 0, 0]
    for index, block in enumerate(model.transformer.h):
        block.mlp.register_forward_pre_hook(lambda *_, index=index: counts.__setitem__(index, counts[index] + 1))
    gradients(model)
    assert counts == [2, 1, 2]
    for wrong in (0, True, 1.5):
        with pytest.raises(InputError, match="every_n_layers to be a whole number of 1 or more"):
            model.gradient_checkpointing_enable(every_n_layers=wrong)
    with pytest.raises(UnknownArgumentError, match="'use_rentrant'.*Did you mean 'use_reentrant'"):
        model.gradient_checkpointing_enable({"use_rentrant": True})


def test_a_function_of_ones_own():
    model, calls = make().train(), []
    model.set_gradient_checkpointing(gradient_checkpointing_func=lambda call, *args: (calls.append(1), call(*args))[1])
    gradients(model)
    assert len(calls) == 3
    model.set_gradient_checkpointing(enable=False)
    gradients(model)
    assert len(calls) == 3
    model.set_gradient_checkpointing()
    assert model.transformer.h[0]._gradient_checkpointing_func.keywords == {"use_reentrant": False}


def test_no_cache_in_training_with_one_warning(said):
    model = make().train()
    model.gradient_checkpointing_enable()
    assert model(IDS).past_key_values is None
    assert model(IDS, use_cache=True, past_key_values=DynamicCache()).past_key_values is None
    assert said() == ["Caching is incompatible with gradient checkpointing in GPT2Model: setting use_cache=False."]
    full = make()(IDS).past_key_values
    with pytest.raises(
        InputError, match="past_key_values holds 9 tokens, which gradient checkpointing would leave out"
    ):
        model(IDS[:, :1], past_key_values=full)
    with torch.no_grad():
        assert model(IDS).past_key_values.get_seq_length() == 9


def test_frozen_embeddings_train_through_required_gradients():
    model = make().train()
    model.requires_grad_(False)
    probe = nn.Parameter(torch.zeros(16))
    model.transformer.h[2].register_forward_hook(lambda _m, _i, output: (output[0] + probe, *output[1:]))
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.enable_input_require_grads()
    model(IDS, labels=IDS).loss.backward()
    assert probe.grad.any()
    assert model.transformer.wte(IDS).requires_grad
    model.disable_input_require_grads()
    assert not model.transformer.wte(IDS).requires_grad


# --- attention kernels -----------------------------------------------------------------------------------------------


def test_choosing_the_kernel(tmp_path):
    model = make()
    assert model.config._attn_implementation == "sdpa"
    model.save_pretrained(tmp_path)
    assert "attn_implementation" not in (tmp_path / "config.json").read_text()
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation="eager")
    assert loaded.transformer.config._attn_implementation == "eager"
    assert (
        GPT2LMHeadModel.from_config(model.config, attn_implementation={"": "eager"}).config._attn_implementation
        == "eager"
    )
    torch.testing.assert_close(loaded(IDS, attention_mask=PADDED).logits, model(IDS, attention_mask=PADDED).logits)
    for wrong in ("sdqa", None, 3):
        with pytest.raises(InputError):
            loaded.set_attn_implementation(wrong)
        assert loaded.config._attn_implementation == "eager"
    with pytest.raises(KeyError, match="'sdqa' is not a valid attention implementation.*eager.*sdpa"):
        GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation="sdqa")
    with pytest.raises(InputError, match="sub-configs of GPT2Config.*got 'text_config'"):
        loaded.set_attn_implementation({"text_config": "sdpa"})


# --- caches, generation, bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_cached_in_parts_is_whole(kernel):
    model = make(attn_implementation=kernel)
    positions = (PADDED.cumsum(-1) - 1).clamp(min=0)
    whole = model(IDS, attention_mask=PADDED, position_ids=positions).logits
    for cache in (DynamicCache(), StaticCache(model.config, max_cache_len=12), None):
        first = model(
            IDS[:, :5],
            attention_mask=PADDED[:, :5],
            position_ids=positions[:, :5],
            past_key_values=cache,
            use_cache=True,
        )
        past = first.past_key_values.to_legacy_cache() if cache is None else first.past_key_values
        with torch.no_grad():
            rest = model(IDS[:, 5:], attention_mask=PADDED, position_ids=positions[:, 5:], past_key_values=past)
        torch.testing.assert_close(rest.logits, whole[:, 5:], rtol=1e-4, atol=1e-5)


def test_generation_is_the_same_cached_static_uncached_and_alone():
    model = make()
    keywords = {"attention_mask": PADDED, "max_new_tokens": 9}
    batch = model.generate(IDS, **keywords)
    assert torch.equal(model.generate(IDS, **keywords, use_cache=False), batch)
    static = StaticCache(model.config, max_cache_len=18)
    assert torch.equal(model.generate(IDS, **keywords, past_key_values=static), batch)
    assert torch.equal(model.generate(IDS[:1, 3:], max_new_tokens=9)[0], batch[0, 3:])
    prefix = model(IDS[1:, :4]).past_key_values
    assert torch.equal(model.generate(IDS[1:], max_new_tokens=9, past_key_values=prefix), batch[1:])
    with pytest.raises(InputError, match="past_key_values holds 9 tokens and the prompt has 9"):
        model.generate(IDS, past_key_values=model(IDS).past_key_values)


def test_bad_input():
    model = make()
    with pytest.raises(ConfigError, match="n_embd to be a multiple of n_head, got n_embd=16, n_head=3"):
        make(n_head=3)
    with pytest.raises(InputError, match="either input_ids or inputs_embeds, got neither"):
        model()
    with pytest.raises(InputError, match=r"at most 32 tokens \(n_positions\), got 33 after 0"):
        model(torch.zeros(1, 33).long())
    with pytest.raises(InputError, match="encoder_hidden_states need cross-attention layers"):
        model(IDS, encoder_hidden_states=torch.zeros(2, 3, 16))
    with pytest.raises(InputError, match="expected 4 heads for layer 0, .*got 5"):
        model(IDS, head_mask=torch.ones(5))
    with pytest.raises(InputError, match="pad_token_id is None"):
        make(GPT2ForSequenceClassification, pad_token_id=None)(IDS)


def test_outputs_as_tuples_and_the_last_logits_only():
    model = make()
    whole = model(IDS, labels=IDS)
    loss, logits, cache = model(IDS, labels=IDS, return_dict=False)
    assert torch.equal(loss, whole.loss)
    assert torch.equal(logits, whole.logits)
    assert cache.get_seq_length() == 9
    torch.testing.assert_close(model(IDS, logits_to_keep=2).logits, whole.logits[:, -2:])
    assert torch.equal(make()(inputs_embeds=model.transformer.wte(IDS)).logits, whole.logits)
    assert make(GPT2DoubleHeadsModel)(IDS).mc_logits.shape == (2,)
