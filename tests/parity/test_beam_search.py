"""Beam search beside transformers 4.57.1: GPT-2 and Llama of both libraries with the same weights."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import transformers

from modelwright.attention.caches import DynamicCache, StaticCache
from modelwright.models.gpt2.configuration_gpt2 import GPT2Config
from modelwright.models.gpt2.modeling_gpt2 import GPT2LMHeadModel
from modelwright.models.llama.configuration_llama import LlamaConfig
from modelwright.models.llama.modeling_llama import LlamaForCausalLM

pytestmark = pytest.mark.parity

IDS = torch.tensor([[60, 60, 60, 5, 9, 9], [60, 3, 17, 22, 3, 17], [8, 8, 1, 59, 2, 41]])
MASK = (IDS != 60).long()
# The pad id is not 0: with that one, 4.57.1 fills finished rows with the end of text.
SPECIAL = {"bos_token_id": 1, "pad_token_id": 60, "eos_token_id": [4, 8, 9, 12, 15, 20, 29, 33, 41, 44, 51]}


def _gpt2():
    config = {"vocab_size": 61, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}
    config |= {"bos_token_id": 1, "pad_token_id": 60, "eos_token_id": 4}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**config)), GPT2LMHeadModel(GPT2Config(**config))


def _llama():
    config = {
        "vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 64, "initializer_range": 0.3, "bos_token_id": 1,
        "pad_token_id": 60, "eos_token_id": 4,
    }  # fmt: skip
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)), LlamaForCausalLM(LlamaConfig(**config))


@pytest.fixture(scope="module", params=[_gpt2, _llama], ids=["gpt2", "llama"])
def models(request):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        expected, ours = request.param()
        ours.load_state_dict(expected.state_dict(), strict=True)
    return expected.eval(), ours.eval()


CASES = {
    "plain": {"num_beams": 4},
    "two": {"num_beams": 2, "num_return_sequences": 2},
    "returned": {"num_beams": 5, "num_return_sequences": 3},
    "short": {"num_beams": 4, "length_penalty": -1.0, "num_return_sequences": 4},
    "no_penalty": {"num_beams": 4, "length_penalty": 0.0, "num_return_sequences": 2},
    "long": {"num_beams": 4, "length_penalty": 2.5, "num_return_sequences": 4},
    "early": {"num_beams": 4, "early_stopping": True, "num_return_sequences": 4},
    "never": {"num_beams": 4, "early_stopping": "never", "num_return_sequences": 4},
    "never_long": {"num_beams": 3, "early_stopping": "never", "length_penalty": 2.0, "num_return_sequences": 3},
    "no_end": {"num_beams": 4, "eos_token_id": -1, "num_return_sequences": 4},
    "many_ends": {"num_beams": 3, "eos_token_id": list(range(2, 40)), "num_return_sequences": 3},
    "processors": {
        "num_beams": 4, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "min_new_tokens": 4,
        "num_return_sequences": 4,
    },
    "bans": {
        "num_beams": 4, "bad_words_ids": [[5], [22, 3], [9, 9], [11]], "suppress_tokens": [20, 21],
        "begin_suppress_tokens": [4, 44], "num_return_sequences": 4,
    },
    "prefix": {
        "num_beams": 3, "num_return_sequences": 3,
        "prefix_allowed_tokens_fn": lambda item, ids: [item, (int(ids[-1]) * 7 + len(ids)) % 60, 40, 20, 42, 43, 45],
    },
    "ends": {"num_beams": 3, "forced_eos_token_id": 4, "eos_token_id": 4, "exponential_decay_length_penalty": (3, 1.1)},
    "normal": {"num_beams": 3, "renormalize_logits": True, "repetition_penalty": 1.9, "num_return_sequences": 3},
    "typical": {"num_beams": 3, "do_sample": True, "typical_p": 0.7, "epsilon_cutoff": 0.01, "eta_cutoff": 0.02},
    "min_length": {"num_beams": 3, "min_length": 12},
    "stops": {"num_beams": 4, "max_length": 9},
    "sample": {"num_beams": 4, "do_sample": True, "num_return_sequences": 4, "top_k": 0},
    "sample_warped": {
        "num_beams": 3, "do_sample": True, "temperature": 1.7, "top_k": 12, "top_p": 0.8, "length_penalty": 0.6,
    },
    "uncached": {"num_beams": 4, "use_cache": False},
}  # fmt: skip


def run(model, **kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(11)
        kwargs = {"attention_mask": MASK, "max_new_tokens": 20, **SPECIAL, **kwargs}
        if "max_length" in kwargs:
            del kwargs["max_new_tokens"]
        return model.generate(IDS, return_dict_in_generate=True, output_scores=True, output_logits=True, **kwargs)


@pytest.mark.parametrize("case", CASES)
def test_same_ids_scores_and_beams(models, case):
    expected, got = (run(model, **CASES[case]) for model in models)
    assert torch.equal(got.sequences, expected.sequences)
    torch.testing.assert_close(got.sequences_scores, expected.sequences_scores, atol=1e-5, rtol=1e-5)
    assert torch.equal(got.beam_indices, expected.beam_indices.long())
    for name in ("scores", "logits"):
        assert len(got[name]) == len(expected[name])
        for ours, other in zip(got[name], expected[name], strict=True):
            torch.testing.assert_close(ours, other, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_transition_scores(models, normalize):
    results = []
    for model in models:
        out = run(model, num_beams=4, num_return_sequences=3)
        results.append(model.compute_transition_scores(out.sequences, out.scores, out.beam_indices, normalize))
        plain = run(model)
        results.append(model.compute_transition_scores(plain.sequences, plain.scores, normalize_logits=normalize))
    for expected, got in ((results[0], results[2]), (results[1], results[3])):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_hidden_states_and_attentions_of_each_beam(models):
    results = []
    for model in models:
        model.set_attn_implementation("eager")
        results.append(run(model, num_beams=3, output_hidden_states=True, output_attentions=True))
        model.set_attn_implementation("sdpa")
    expected, got = results
    assert torch.equal(got.sequences, expected.sequences)
    for name in ("hidden_states", "attentions"):
        for ours, other in zip(got[name], expected[name], strict=True):
            for each, wanted in zip(ours, other, strict=True):
                # The last item has no padding, whose states are nobody's business.
                torch.testing.assert_close(each[6:], wanted[6:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("kind", ["static", "dynamic", "dynamic_full"])
def test_the_kind_of_cache_changes_nothing(models, beams, kind):
    expected = run(models[0], num_beams=beams, cache_implementation=kind)
    got = run(models[1], num_beams=beams, cache_implementation=kind)
    assert torch.equal(got.sequences, expected.sequences)
    assert isinstance(got.past_key_values, StaticCache if kind == "static" else DynamicCache)
    plain = run(models[1], num_beams=beams)
    assert torch.equal(got.sequences, plain.sequences)
    for ours, other in zip(got.scores, plain.scores, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-5)


def test_diverse_groups_find_what_4_37_found():
    path = Path(__file__)
    spec = importlib.util.spec_from_file_location("golden", path.parents[2] / "tools" / "golden_group_beams.py")
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    model = GPT2LMHeadModel(GPT2Config(**golden.CONFIG)).eval()
    golden.fill(model)
    got, expected = golden.results(model), json.loads((path.parent / "group_beams.json").read_text())
    for case, wanted in expected.items():
        assert got[case]["sequences"] == wanted["sequences"], case
        torch.testing.assert_close(torch.tensor(got[case]["scores"]), torch.tensor(wanted["scores"]))
    assert len({str(each["sequences"]) for each in got.values()}) == len(got)
