"""Attention probabilities in chunks and as one matrix, and heads that are taken out."""

import copy
import pickle

import pytest
import torch
from small_reformer import QUIET, build, ids

from modelwright import dense_attentions
from modelwright.core.errors import InputError
from modelwright.models.reformer.backbone import ReformerModel
from modelwright.models.reformer.modeling_reformer import ReformerForMaskedLM
from modelwright.models.reformer.windows import split_heads

CASES = {
    "whole-chunks": (64, {}),
    "padded": (21, {}),
    "one-chunk": (6, {}),
    "both-sides": (45, {"is_decoder": False, "lsh_num_chunks_after": 1, "local_num_chunks_after": 1}),
    "uneven-chunks": (19, {"local_attn_chunk_length": 4, "lsh_attn_chunk_length": 16}),
    "exact": (37, {"attention_mode": "exact"}),
}


@pytest.mark.parametrize("case", CASES)
def test_matrix_times_values_is_what_the_layer_attends_to(case):
    length, changes = CASES[case]
    model = build(ReformerModel, **{**QUIET, **changes}).eval()
    seen = []
    for block in model.encoder.layers:
        block.attention.self_attention.register_forward_hook(
            lambda module, args, out: seen.append((module.project(args[0])[-1], out[0]))
        )
    with torch.no_grad():
        attentions = model(ids(2, length), output_attentions=True).attentions
    matrices = dense_attentions(attentions)
    assert isinstance(attentions, tuple)
    assert len(attentions) == len(matrices) == 4
    for matrix, (value, attended) in zip(matrices, seen, strict=True):
        assert matrix.shape == (2, 2, length, length)
        expected = split_heads(attended[:, :length], 2)
        assert torch.allclose(matrix @ split_heads(value[:, :length], 2), expected, atol=1e-5)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_and_what_is_loaded_know_their_tokens_too(again):
    model = build(ReformerModel, **QUIET).eval()
    with torch.no_grad():
        attentions = model(ids(2, 19), output_attentions=True).attentions
    for found, expected in zip(dense_attentions(again(attentions)), dense_attentions(attentions), strict=True):
        assert torch.equal(found, expected)


def test_chunks_and_states_are_trimmed_to_the_text():
    model = build(ReformerModel, **QUIET).eval()
    with torch.no_grad():
        output = model(ids(2, 19), output_attentions=True, output_hidden_states=True)
    assert isinstance(output.hidden_states, tuple)
    assert [state.shape for state in output.hidden_states] == [(2, 19, 16)] * 5
    # 3 chunks of 8 tokens see 2 each; an LSH layer has 2 rounds.
    assert [tuple(probs.shape) for probs in output.attentions] == [(2, 2, 3, 8, 16), (2, 2, 6, 8, 16)] * 2


def test_matrix_of_something_else():
    with pytest.raises(InputError, match="expected the `attentions` of a Reformer's output as they are"):
        dense_attentions([torch.ones(1, 1, 2, 2)])


class TestPruning:
    @pytest.mark.parametrize("length", [6, 45])
    def test_equals_a_zero_head_mask(self, length):
        model = build(ReformerForMaskedLM, **QUIET, is_decoder=False, num_attention_heads=3).eval()
        mask = torch.ones(4, 3)
        mask[0, 1] = mask[1, 0] = mask[1, 2] = mask[2, 2] = 0
        with torch.no_grad():
            expected = model(ids(2, length), head_mask=mask).logits
            model.prune_heads({0: [1], 1: [0]})
            model.prune_heads({1: [2, 0], 2: [2]})  # Those that are gone may be named again.
            assert torch.allclose(model(ids(2, length)).logits, expected, atol=1e-5)
            # A mask is still one of all heads.
            assert torch.allclose(model(ids(2, length), head_mask=mask).logits, expected, atol=1e-5)
            output = model(ids(2, length), head_mask=mask, output_attentions=True)
        assert torch.allclose(output.logits, expected, atol=1e-5)
        assert [probs.shape[1] for probs in output.attentions] == [2, 1, 2, 3]
        attention = model.reformer.encoder.layers[1].attention
        assert attention.self_attention.query_key.weight.shape == (8, 16)
        assert attention.output.dense.weight.shape == (16, 8)
        assert model.config.pruned_heads == {0: [1], 1: [0, 2], 2: [2]}

    def test_is_saved_and_trains(self, tmp_path):
        model = build(**QUIET).eval()
        model.prune_heads({1: [0], 2: [1]})
        model.save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path)
        with torch.no_grad():
            assert torch.equal(loaded(ids()).logits, model(ids()).logits)
        loaded.train()(ids(), labels=ids()).loss.backward()
        assert all(parameter.grad is not None for parameter in loaded.parameters())
