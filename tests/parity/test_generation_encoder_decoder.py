"""Decoding of encoder-decoders beside transformers 4.57.1: its T5 and its BART, run by its loop and by ours."""

import pytest
import torch
import transformers

from modelwright.config.configuration import PretrainedConfig
from modelwright.generation.mixin import GenerationMixin

pytestmark = pytest.mark.parity

SOURCE = torch.tensor([[5, 9, 9, 3, 30, 2], [17, 22, 3, 2, 0, 0], [8, 11, 2, 0, 0, 0]])


class Wrapped(GenerationMixin):
    """Their model behind our protocol, with their tuple cache."""

    _supports_generation_cache = True

    def __init__(self, model):
        self.model, self.device, self.forward = model, model.device, model.forward
        names = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        values = {name: getattr(model.config, name, None) for name in names}
        self.config = PretrainedConfig(is_encoder_decoder=True, **values)

    def get_encoder(self):
        return self.model.get_encoder()

    def prepare_inputs_for_generation(self, decoder_input_ids, past_key_values=None, use_cache=None, **kwargs):
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        return {
            "decoder_input_ids": decoder_input_ids[:, past:], "past_key_values": past_key_values,
            "use_cache": use_cache, **kwargs,
        }  # fmt: skip

    def __call__(self, **kwargs):
        return self.model(**kwargs)


def _t5():
    config = transformers.T5Config(
        vocab_size=47, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0,
        eos_token_id=1, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def _bart():
    config = transformers.BartConfig(
        vocab_size=47, d_model=16, encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=64, bos_token_id=4,
        eos_token_id=2, pad_token_id=0, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    return transformers.BartForConditionalGeneration(config)


@pytest.fixture(scope="module", params=[_t5, _bart])
def models(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = request.param().eval()
        with torch.no_grad():
            for each in model.parameters():
                each.copy_(torch.randn_like(each) * 0.3)
    return model, Wrapped(model)


CASES = {
    "greedy": {},
    "mask": {"attention_mask": torch.tensor([[1] * 6, [0, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]])},
    "started": {"decoder_input_ids": torch.tensor([[3, 7], [3, 4], [5, 6]])},
    "started_mask": {
        "decoder_input_ids": torch.tensor([[3, 7], [3, 4], [5, 6]]),
        "decoder_attention_mask": torch.tensor([[1, 1], [0, 1], [1, 1]]),
    },
    "uncached": {"use_cache": False},
    "processors": {"no_repeat_ngram_size": 2, "repetition_penalty": 1.4, "min_new_tokens": 6},
    "sample": {"do_sample": True, "top_p": 0.9},
    "beams": {"num_beams": 4, "num_return_sequences": 4},
    "beams_early": {"num_beams": 3, "early_stopping": True, "length_penalty": 0.5, "num_return_sequences": 2},
    "beams_started": {
        "decoder_input_ids": torch.tensor([[3, 7], [3, 4], [5, 6]]),
        "decoder_attention_mask": torch.tensor([[1, 1], [0, 1], [1, 1]]),
        "num_beams": 3,
        "num_return_sequences": 3,
    },
    "beams_uncached": {"num_beams": 4, "use_cache": False},
    "beams_sampled": {"num_beams": 4, "do_sample": True, "num_return_sequences": 4},
    "several": {"do_sample": True, "num_return_sequences": 3},
}


@pytest.mark.parametrize("case", CASES)
def test_same_ids_scores_and_states(models, case):
    results = []
    for model in models:
        with torch.random.fork_rng():
            torch.manual_seed(11)
            results.append(
                model.generate(
                    SOURCE,
                    max_new_tokens=14,
                    return_dict_in_generate=True,
                    output_scores=True,
                    output_hidden_states=True,
                    **CASES[case],
                )
            )
    expected, got = results
    sequences = expected.sequences.clone()
    if "sequences_scores" in expected:
        torch.testing.assert_close(got.sequences_scores, expected.sequences_scores, atol=1e-5, rtol=1e-5)
        assert torch.equal(got.beam_indices, expected.beam_indices.long())
        # With pad id 0, 4.57.1 fills finished beams with the end of text.
        ended = torch.nn.functional.pad(
            expected.beam_indices < 0, (sequences.shape[1] - expected.beam_indices.shape[1], 0)
        )
        sequences[ended] = 0
    assert torch.equal(got.sequences, sequences)
    assert len(got.scores) == len(expected.scores) == len(got.decoder_hidden_states)
    for ours, other in zip(got.scores, expected.scores, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-5)
    for ours, other in zip(got.encoder_hidden_states, expected.encoder_hidden_states, strict=True):
        torch.testing.assert_close(ours, other)
