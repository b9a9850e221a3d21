"""A Reformer under torch.compile and torch.export."""

import pytest
import torch
from small_reformer import QUIET, build, ids

TINY = {**QUIET, "attn_layers": ["local", "lsh"], "initializer_range": 0.3}


def gradients(model, tokens):
    model.zero_grad()
    model(tokens, labels=tokens).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("masked", [False, True])
def test_exported_evaluation_is_the_model(masked):
    model = build(**TINY).eval()
    inputs = {"input_ids": ids()}
    if masked:
        inputs["attention_mask"] = torch.ones_like(ids()).index_fill(1, torch.arange(50, 64), 0)
    program = torch.export.export(model, (), {**inputs, "return_dict": False}, strict=False)
    targets = [str(node.target) for node in program.graph.nodes]
    for name in ("reformer_local_attention", "reformer_lsh_attention", "reformer_hash_order"):
        assert sum(name in target for target in targets) == 1
    with torch.no_grad():
        other = {**inputs, "input_ids": ids().flip(1)}
        found, expected = program.module()(**other, return_dict=False)[0], model(**other).logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_compiled_training_step_is_the_eager_one():
    model = build(**TINY).train()
    expected = gradients(model, ids())
    compiled = torch.compile(model, backend="aot_eager")
    compiled.zero_grad()
    compiled(ids(), labels=ids()).loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], atol=1e-6), name


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_random_is_not_exported(strict):
    for model in (build(**{**TINY, "hash_seed": None}).eval(), build(**TINY).train()):
        with pytest.raises(
            Exception, match=r"got training mode or hash_seed=None.*from_pretrained\(folder, hash_seed=0\)"
        ):
            torch.export.export(model, (), {"input_ids": ids(), "return_dict": False}, strict=strict)
    short = torch.export.export(build(**{**TINY, "hash_seed": None}).eval(), (ids(2, 8),), strict=strict)
    assert "reformer_hash_order" not in str(short.graph)
