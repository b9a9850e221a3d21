"""The exact count of floating-point operations against formulas worked out by hand."""

import pytest
import torch

from modelwright.core.errors import InputError
from modelwright.models.gpt2.backbone import GPT2Model
from modelwright.models.gpt2.configuration_gpt2 import GPT2Config
from modelwright.models.gpt2.modeling_gpt2 import GPT2LMHeadModel
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.modeling_reformer import ReformerModel

B, T, E, LAYERS, V = 2, 6, 8, 3, 11
IDS = {"input_ids": torch.ones(B, T, dtype=torch.long)}
# Per token 12 E^2 weights; scores and their use are T x E multiplications each per token.
FORWARD = LAYERS * B * T * 2 * (12 * E * E + 2 * T * E)


def gpt2(kind=GPT2Model, **config):
    return kind(GPT2Config(vocab_size=V, n_positions=8, n_embd=E, n_layer=LAYERS, n_head=2, **config))


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_a_forward_is_its_matrix_products(kernel):
    assert gpt2(attn_implementation=kernel).count_floating_point_ops(IDS, backward=False) == FORWARD
    head = gpt2(GPT2LMHeadModel, attn_implementation=kernel)
    assert head.count_floating_point_ops(IDS, backward=False) == FORWARD + B * T * 2 * V * E


def test_a_backward_costs_twice_its_forward():
    model = gpt2(attn_implementation="eager")
    assert model.count_floating_point_ops(IDS) == 3 * FORWARD
    labels = {**IDS, "labels": IDS["input_ids"]}
    head = gpt2(GPT2LMHeadModel, attn_implementation="eager")
    assert head.count_floating_point_ops(labels) == 3 * (FORWARD + B * T * 2 * V * E)
    # The fused kernel computes the scores again: five products in the backward for two in the forward.
    fused = gpt2(attn_implementation="sdpa").eval().count_floating_point_ops(IDS)
    assert fused == 3 * FORWARD + LAYERS * B * T * 2 * T * E


def test_recomputed_layers_count():
    model = gpt2(attn_implementation="eager").train()
    model.gradient_checkpointing_enable()
    # The last product of what is recomputed is not needed and torch stops before it.
    assert 3.6 * FORWARD < model.count_floating_point_ops(IDS) <= 4 * FORWARD


def test_reformer_recomputes_always():
    config = ReformerConfig(
        attn_layers=["local"], axial_pos_embds=False, hidden_size=E, num_attention_heads=2, attention_head_size=4,
        feed_forward_size=16, max_position_embeddings=64, local_attn_chunk_length=64,
    )  # fmt: skip
    model = ReformerModel(config).train()
    forward = model.count_floating_point_ops(IDS, backward=False)
    linear, attention = B * T * 2 * (4 * E * E + 2 * E * 16), B * T * 2 * 2 * T * E
    assert forward == linear + attention
    # All runs again; for gradients linear maps run twice, and attention's two products twice with the scores once more.
    assert model.count_floating_point_ops(IDS) == 4 * linear + 2 * attention + 5 * attention // 2


def test_it_leaves_no_trace():
    model = gpt2(attn_pdrop=0.5).train()
    state = torch.get_rng_state()
    model.wte.weight.grad = before = torch.ones_like(model.wte.weight)
    model.count_floating_point_ops(IDS)
    assert torch.equal(torch.get_rng_state(), state)
    assert {id(parameter.grad) for parameter in model.parameters()} == {id(before), id(None)}
    assert (before == 1).all()


def test_frozen_models_have_no_backward():
    model = gpt2().requires_grad_(False)
    assert model.count_floating_point_ops(IDS, backward=False) == FORWARD
    with pytest.raises(InputError, match="GPT2Model.count_floating_point_ops: .*pass backward=False"):
        model.count_floating_point_ops(IDS)
