"""Decoding beside transformers 4.57.1: processors, settings on disk, greedy and sampled ids of the same tiny GPT-2."""

import json

import pytest
import torch
import transformers
from transformers.generation import logits_process as theirs

from modelwright.config.configuration import PretrainedConfig
from modelwright.generation import logits_bias, logits_ends, logits_process, logits_source, logits_warpers
from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.fields import DEFAULTS, OURS
from modelwright.generation.mixin import GenerationMixin

pytestmark = pytest.mark.parity


class Wrapped(GenerationMixin):
    """Their GPT-2 behind our protocol."""

    def __init__(self, model):
        self.model, self.device, self.forward = model, model.device, model.forward
        self.config = PretrainedConfig(vocab_size=model.config.vocab_size, max_position_embeddings=64)

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, use_cache=None, **kwargs):
        positions = None if attention_mask is None else (attention_mask.cumsum(-1) - 1).clamp(min=0)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": positions, "use_cache": False}

    def __call__(self, **kwargs):
        return self.model(**kwargs)


@pytest.fixture(scope="module")
def models():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            vocab_size=61, n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.6,
            bos_token_id=0, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config).eval()
    return model, Wrapped(model)


IDS = torch.tensor([[0, 0, 0, 5, 9, 9], [0, 3, 17, 22, 3, 17], [8, 8, 1, 60, 2, 41]])
MASK = (IDS != 0).long()

CASES = {
    "greedy": {},
    "ends": {"eos_token_id": [4, 20, 33, 47], "pad_token_id": 0},
    "min_new": {"eos_token_id": [4, 20, 33, 47, 11], "pad_token_id": 0, "min_new_tokens": 12},
    "min_length": {"eos_token_id": [4, 20, 33, 47, 11], "pad_token_id": 0, "min_length": 15},
    "repetition": {"repetition_penalty": 1.7},
    "ngram": {"no_repeat_ngram_size": 2},
    "sample": {"do_sample": True},
    "warped": {"do_sample": True, "temperature": 1.9, "top_k": 20, "top_p": 0.8},
    "min_p": {"do_sample": True, "temperature": 3.0, "top_k": 0, "min_p": 0.02},
    "bad_words": {"bad_words_ids": [[5], [22, 3], [9, 9], [11]]},
    "bias": {"sequence_bias": [[[5], 3.0], [[22, 3], -4.0], [[9], -float("inf")]]},
    "prefix": {"prefix_allowed_tokens_fn": lambda item, ids: [item, (int(ids[-1]) * 7 + len(ids)) % 61, 40]},
    "suppressed": {"suppress_tokens": list(range(3, 30)), "begin_suppress_tokens": [31, 32, 44, 57]},
    "forced_end": {"forced_eos_token_id": [7, 9], "eos_token_id": 7},
    "source": {"encoder_repetition_penalty": 1.8, "encoder_no_repeat_ngram_size": 2},
    "decay": {"exponential_decay_length_penalty": (4, 1.3), "eos_token_id": [7, 12]},
    "invalid": {"remove_invalid_values": True},
    "normal": {"renormalize_logits": True, "do_sample": True, "temperature": 2.0},
    "typical": {"do_sample": True, "typical_p": 0.6, "temperature": 2.0},
    "cutoffs": {"do_sample": True, "epsilon_cutoff": 0.02, "eta_cutoff": 0.05, "temperature": 3.0, "top_k": 0},
    "all": {
        "do_sample": True, "temperature": 0.7, "top_p": 0.95, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3,
        "eos_token_id": 7, "pad_token_id": 0, "min_new_tokens": 3,
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_same_ids_scores_and_logits_under_the_same_seed(models, case):
    results = []
    for model in models:
        with torch.random.fork_rng():
            torch.manual_seed(11)
            results.append(
                model.generate(
                    IDS,
                    attention_mask=MASK,
                    max_new_tokens=24,
                    use_cache=False,
                    return_dict_in_generate=True,
                    output_scores=True,
                    output_logits=True,
                    **{"pad_token_id": 0, **CASES[case]},
                )
            )
    expected, got = results
    assert torch.equal(got.sequences, expected.sequences)
    for name in ("scores", "logits"):
        for ours, other in zip(got[name], expected[name], strict=True):
            torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-5)


def test_default_lengths(models):
    for kwargs in ({}, {"max_length": 20}, {"max_length": 40}):
        expected, got = (model.generate(IDS, attention_mask=MASK, pad_token_id=0, **kwargs) for model in models)
        assert torch.equal(got, expected)


def test_num_return_sequences(models):
    results = []
    for model in models:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            kwargs = {"do_sample": True, "num_return_sequences": 4, "max_new_tokens": 6, "pad_token_id": 0}
            results.append(model.generate(IDS, attention_mask=MASK, **kwargs))
    assert torch.equal(results[1], results[0])


IDS4 = torch.tensor([[1, 2, 3, 4, 0], [0, 1, 2, 2, 2], [3, 3, 4, 3, 1], [4, 4, 4, 4, 4]])
PAIRS = {
    "TemperatureLogitsWarper": [(0.3,), (2.5,)],
    "TopKLogitsWarper": [(1,), (7,), (500,), (2, -1e4, 5)],
    "TopPLogitsWarper": [(0.0,), (0.3,), (0.9,), (0.999,), (1.0,), (0.2, -1e4, 4)],
    "MinPLogitsWarper": [(0.0,), (0.1,), (1.0,)],
    "RepetitionPenaltyLogitsProcessor": [(0.5,), (1.4,)],
    "NoRepeatNGramLogitsProcessor": [(1,), (2,), (3,), (30,)],
    "MinLengthLogitsProcessor": [(5, 3), (40, [3, 4])],
    "MinNewTokensLengthLogitsProcessor": [(10, 2, 3), (10, 5, [3, 4])],
    "HammingDiversityLogitsProcessor": [(1.5, 4, 2), (0.3, 4, 4)],
    "SequenceBiasLogitsProcessor": [
        ([[[1], 2.5], [[2], -float("inf")], [[4, 3], 1.5]],),
        ({(1, 2): 3.5, (4, 2): -1.0, (0, 1, 2): 0.5, (3,): 2.0},),
    ],
    "NoBadWordsLogitsProcessor": [([[1], [2, 3], [4, 0, 1], [3, 3]],), ([[1], [2], [2, 3]], 2), ([[1], [4]], [4, 2])],
    "PrefixConstrainedLogitsProcessor": [(lambda item, ids: [item, int(ids[-1]), 3], 2), (lambda item, ids: [4], 1)],
    "ForcedBOSTokenLogitsProcessor": [(3,)],
    "ForcedEOSTokenLogitsProcessor": [(13, 2), (13, [2, 4]), (12, 2)],
    "SuppressTokensLogitsProcessor": [([1, 3],)],
    "SuppressTokensAtBeginLogitsProcessor": [([1, 3], 12), ([1, 3], 11)],
    "EncoderRepetitionPenaltyLogitsProcessor": [(1.7, IDS4), (0.6, IDS4)],
    "EncoderNoRepeatNGramLogitsProcessor": [(1, IDS4), (2, IDS4[:2]), (3, IDS4)],
    "InfNanRemoveLogitsProcessor": [()],
    "LogitNormalization": [()],
    "ExponentialDecayLengthPenalty": [((5, 1.5), 3, 4), ((2, 1.1), [1, 2], 3), ((9, 1.5), 3, 4)],
    "TypicalLogitsWarper": [(0.2,), (0.9,), (0.5, -1e4, 6)],
    "EpsilonLogitsWarper": [(0.02,), (0.3,), (0.4, -1e4, 4)],
    "EtaLogitsWarper": [(0.02,), (0.3,), (0.4, -1e4, 4)],
}
MODULES = (logits_process, logits_warpers, logits_bias, logits_ends, logits_source)
EXTRA = {"HammingDiversityLogitsProcessor": {"current_tokens": torch.tensor([1, 1, 3, 1] * 2), "beam_group_idx": 1}}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_processors_give_the_same_scores(name, dtype):
    generator = torch.Generator().manual_seed(5)
    module = next(each for each in MODULES if hasattr(each, name))
    for args in PAIRS[name]:
        for vocabulary, length in ((5, 12), (97, 12), (5, 1)):
            if length == 1 and name in ("SequenceBiasLogitsProcessor", "NoBadWordsLogitsProcessor"):
                continue  # Theirs does not look at a prompt as long as the rest of the word.
            ids = torch.randint(0, vocabulary, (4, length), generator=generator)
            # Coarse values, so that there are ties.
            scores = (torch.randn(4, vocabulary, generator=generator) * 8).round().div(2).to(dtype)
            if name == "InfNanRemoveLogitsProcessor":
                scores[0, :3] = torch.tensor([float("inf"), -float("inf"), float("nan")])
            if name == "HammingDiversityLogitsProcessor" and args[2] == 4:
                scores, ids = scores[:2], ids[:2]
            kwargs = EXTRA.get(name, {})
            expected = getattr(theirs, name)(*args)(ids, scores.clone(), **kwargs)
            got = getattr(module, name)(*args)(ids, scores, **kwargs)
            assert got.dtype == expected.dtype, args
            assert torch.equal(got, expected), (args, vocabulary)


def test_min_p_keeps_the_same_least_number():
    # Without ties: which of several equal scores they keep is the accident of an unstable sort.
    scores = torch.randperm(97 * 4, generator=torch.Generator().manual_seed(5)).reshape(4, 97) / 8
    expected = theirs.MinPLogitsWarper(0.5, -1e4, 6)(IDS[:1], scores)
    assert torch.equal(logits_warpers.MinPLogitsWarper(0.5, -1e4, 6)(IDS[:1], scores), expected)


def test_fields_and_defaults_are_theirs():
    known = transformers.GenerationConfig().to_dict()
    known = {name: value for name, value in known.items() if name not in ("_from_model_config", "transformers_version")}
    ours = {name: value for name, value in DEFAULTS.items() if name not in OURS}
    assert ours.pop("use_cache") is None
    assert known.pop("use_cache") is True
    # Written by them only if it is set.
    assert ours.pop("compile_config") is None
    assert ours == known


def test_files_are_read_by_the_other_side(tmp_path):
    kwargs = {
        "max_new_tokens": 9, "do_sample": True, "top_p": 0.4, "eos_token_id": [2, 5], "pad_token_id": 1,
        "unknown_key": [1], "typical_p": 0.9, "use_cache": False,
    }  # fmt: skip
    transformers.GenerationConfig(**kwargs).save_pretrained(tmp_path / "theirs")
    ours = GenerationConfig.from_pretrained(tmp_path / "theirs")
    assert ours == GenerationConfig(**kwargs)
    ours.save_pretrained(tmp_path / "ours")
    again = transformers.GenerationConfig.from_pretrained(tmp_path / "ours").to_diff_dict()
    stored = json.loads((tmp_path / "theirs" / "generation_config.json").read_text())
    for values in (again, stored):
        values.pop("transformers_version", None)
        values.pop("modelwright_version", None)
    assert again == stored == kwargs


def test_from_model_config():
    theirs_config = transformers.GPT2Config(eos_token_id=4, bos_token_id=3, max_length=33, use_cache=False)
    values = {name: value for name, value in theirs_config.to_dict().items() if name != "model_type"}
    expected = transformers.GenerationConfig.from_model_config(theirs_config).to_diff_dict()
    got = GenerationConfig.from_model_config(PretrainedConfig(**values)).to_diff_dict()
    expected.pop("transformers_version")
    assert got == expected
