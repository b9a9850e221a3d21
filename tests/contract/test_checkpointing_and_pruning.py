"""What every model with layers of ours must do in training and under pruning; others refuse with a reason."""

import pytest
import torch

from modelwright.nn.checkpointing import GradientCheckpointingLayer


def gradients(model):
    model.zero_grad()
    torch.manual_seed(3)
    output = model(**model.dummy_inputs)
    (output if isinstance(output, torch.Tensor) else output[0]).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_checkpointing_changes_no_gradient(model):
    model.train()
    # Reformer's stack recomputes anyway: tests/models/reformer/test_checkpointing.py.
    reversible = model.config.model_type == "reformer"
    if not reversible and not any(isinstance(module, GradientCheckpointingLayer) for module in model.modules()):
        with pytest.raises(ValueError, match="has no layers that can be recomputed"):
            model.gradient_checkpointing_enable()
        return
    plain = gradients(model)
    for reentrant in (False, True):
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        recomputed = gradients(model)
        assert plain.keys() == recomputed.keys()
        for name, gradient in plain.items():
            # The other kind adds up what comes from several layers in another order.
            most = max(1.0, float(gradient.abs().max())) if reentrant else 1.0
            torch.testing.assert_close(recomputed[name], gradient, rtol=1.3e-6, atol=1e-5 * most, msg=name)


def test_pruning_survives_save_and_load(model, tmp_path):
    grouped = getattr(model.config, "num_key_value_heads", None) not in (
        None,
        getattr(model.config, "num_attention_heads", None),
    )
    two_models = model.config.model_type == "encoder-decoder"
    if grouped or not (two_models or hasattr(model.base_model, "_prune_heads")):
        with pytest.raises(NotImplementedError, match="cannot be pruned: "):
            model.prune_heads({1: [0]})
        return
    model.prune_heads({1: [0]})
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, strict=True)
    assert (loaded.config.encoder if two_models else loaded.config).pruned_heads[1] == [0]
    assert loaded.num_parameters() == model.num_parameters()
    first = [m(**m.dummy_inputs)[0] for m in (model, loaded)]
    assert torch.equal(*first)
