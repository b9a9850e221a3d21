"""Llama against transformers 4.57.1: logits, gradients, all rotary types, generation, checkpoints of either side."""

import warnings

import pytest
import torch

from modelwright.attention.caches import StaticCache
from modelwright.core import logging
from modelwright.models.llama import modeling_llama as ours
from modelwright.models.llama.configuration_llama import LlamaConfig

pytestmark = pytest.mark.parity

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    # Large weights: attention must be far from uniform, or a wrong mask would hardly show.
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_SHORT, _LONG = [1.0, 1.5, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0]
ROPES = {
    "default": None,
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8},
    # 4.57 looks for the length that it was trained with in the config itself, as Phi-3 has it.
    "longrope": {"rope_type": "longrope", "factor": 2.0, "short_factor": _SHORT, "long_factor": _LONG},
    "llama3": {
        "rope_type": "llama3",
        "factor": 2.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    },
}
VARIANTS = {
    "multi-head": {"num_key_value_heads": None},
    "one-group": {"num_key_value_heads": 1},
    "head-dim": {"head_dim": 6},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "tied": {"tie_word_embeddings": True},
    "gelu": {"hidden_act": "gelu", "rms_norm_eps": 1e-3, "rope_theta": 100.0},
}
IDS = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(0))
LONG_IDS = torch.randint(3, 50, (2, 24), generator=torch.Generator().manual_seed(2))
PADDED = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9])


@pytest.fixture(autouse=True)
def quiet():
    logging.set_verbosity_error()
    yield
    logging.set_verbosity_warning()


def pair(name, **config):
    """Their model and ours with its weights; random biases and norms."""
    import transformers

    config = {**SMALL, **config}
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr(transformers, name)(transformers.LlamaConfig(**config, attn_implementation="eager"))
    for parameter in theirs.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    mine = getattr(ours, name)(LlamaConfig(**config))
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.eval(), mine.eval()


def assert_close(left, right, **tolerance):
    torch.testing.assert_close(left, right, **{"rtol": 1e-4, "atol": 1e-5, **tolerance})


def assert_same_gradients(theirs, mine):
    expected = dict(theirs.named_parameters())
    for name, parameter in mine.named_parameters():
        assert_close(parameter.grad, expected[name].grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients(variant, kernel):
    theirs, mine = pair("LlamaForCausalLM", **VARIANTS[variant])
    mine.set_attn_implementation(kernel)
    a, b = (model(IDS, labels=IDS) for model in (theirs, mine))
    assert_close(b.logits, a.logits)
    a.loss.backward(), b.loss.backward()
    assert_same_gradients(theirs, mine)


@pytest.mark.parametrize("rope", ROPES)
def test_rotary_types_short_and_long(rope):
    extra = {"original_max_position_embeddings": 8} if rope == "longrope" else {}
    theirs, mine = pair("LlamaForCausalLM", rope_scaling=ROPES[rope], **extra)
    for ids in (IDS[:, :6], LONG_IDS, IDS):
        a, b = theirs(ids, labels=ids), mine(ids, labels=ids)
        assert_close(b.logits, a.logits)
    a.loss.backward(), b.loss.backward()
    assert_same_gradients(theirs, mine)


def test_left_padding_and_all_outputs():
    theirs, mine = pair("LlamaModel")
    keywords = {"attention_mask": PADDED, "output_attentions": True, "output_hidden_states": True}
    a, b = (model(IDS, **keywords) for model in (theirs, mine))
    seen = PADDED.bool()
    for left, right in zip(b.hidden_states, a.hidden_states, strict=True):
        assert_close(left[seen], right[seen])
    for left, right in zip(b.attentions, a.attentions, strict=True):
        assert_close(left.transpose(1, 2)[seen], right.transpose(1, 2)[seen])


def test_packed_sequences_are_the_sequences_alone():
    theirs, mine = pair("LlamaForCausalLM")
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    packed = mine(IDS[:1], position_ids=positions, use_cache=False).logits
    assert_close(packed, theirs(IDS[:1], position_ids=positions, use_cache=False).logits)
    alone = [theirs(part, use_cache=False).logits for part in (IDS[:1, :4], IDS[:1, 4:])]
    assert_close(packed, torch.cat(alone, dim=1))


def test_sliding_window_is_mistral():
    import transformers

    config = {**SMALL, "sliding_window": 4, "head_dim": 8}
    torch.manual_seed(1)
    theirs = transformers.MistralForCausalLM(transformers.MistralConfig(**config, attn_implementation="eager")).eval()
    mine = ours.LlamaForCausalLM(LlamaConfig(**config)).eval()
    mine.load_state_dict(theirs.state_dict(), strict=True)
    assert_close(mine(IDS).logits, theirs(IDS).logits)
    assert (mine(IDS).logits - pair("LlamaForCausalLM")[1](IDS).logits).abs().max() > 0.1
    generated = mine.generate(IDS, max_new_tokens=9, eos_token_id=None)
    assert torch.equal(generated, theirs.generate(IDS, max_new_tokens=9, eos_token_id=None, do_sample=False))
    assert torch.equal(generated, mine.generate(IDS, max_new_tokens=9, eos_token_id=None, use_cache=False))


HEADS = {
    "LlamaForSequenceClassification": {"labels": torch.tensor([2, 0])},
    "LlamaForTokenClassification": {"labels": IDS % 3},
    "LlamaForQuestionAnswering": {"start_positions": torch.tensor([1, 4]), "end_positions": torch.tensor([3, 30])},
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(name):
    theirs, mine = pair(name, num_labels=3 if "labels" in HEADS[name] else 2)
    ids = torch.where(PADDED.flip(1).bool(), IDS, 0)
    keywords = {key: value.clone() for key, value in HEADS[name].items()}
    a, b = theirs(ids, **keywords), mine(ids, **HEADS[name])
    assert_close(b.loss, a.loss)
    assert_close(b[1], a[1])
    a.loss.backward(), b.loss.backward()
    assert_same_gradients(theirs, mine)


@pytest.mark.parametrize("rope", ["default", "llama3", "yarn"])
def test_greedy_generation_token_for_token(rope):
    theirs, mine = pair("LlamaForCausalLM", rope_scaling=ROPES[rope])
    keywords = {"attention_mask": PADDED, "max_new_tokens": 12}
    expected = theirs.generate(IDS, **keywords, do_sample=False)
    assert torch.equal(mine.generate(IDS, **keywords), expected)
    assert torch.equal(mine.generate(IDS, **keywords, use_cache=False), expected)
    static = StaticCache(mine.config, max_cache_len=24)
    assert torch.equal(mine.generate(IDS, **keywords, past_key_values=static), expected)
    alone = mine.generate(IDS[:1, 3:], max_new_tokens=12)
    assert torch.equal(alone[0], expected[0, 3 : 3 + alone.shape[1]])


@pytest.mark.parametrize("rope", ["default", "yarn"])
def test_checkpoints_cross_both_ways(tmp_path, rope):
    import transformers

    theirs, mine = pair("LlamaForCausalLM", rope_scaling=ROPES[rope])
    expected = theirs(IDS).logits
    theirs.save_pretrained(tmp_path / "theirs")
    mine.save_pretrained(tmp_path / "mine")
    loaded = ours.LlamaForCausalLM.from_pretrained(tmp_path / "theirs", strict=True)
    assert_close(loaded(IDS).logits, expected)
    back, info = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "mine", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_close(back(IDS).logits, expected)


def test_the_spelling_of_5_is_read_and_4_reads_it_back(tmp_path):
    import transformers

    nested = {**ROPES["yarn"], "rope_theta": 500.0}
    theirs, _ = pair("LlamaForCausalLM", rope_scaling=ROPES["yarn"], rope_theta=500.0)
    mine = ours.LlamaForCausalLM(LlamaConfig(**SMALL, rope_parameters=nested)).eval()
    mine.load_state_dict(theirs.state_dict())
    assert_close(mine(IDS).logits, theirs(IDS).logits)
    mine.save_pretrained(tmp_path)
    assert_close(transformers.LlamaForCausalLM.from_pretrained(tmp_path)(IDS).logits, theirs(IDS).logits)
