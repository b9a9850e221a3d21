"""Every model under the transforms of `torch.func`: their derivatives are those of a backward."""

import pytest
import torch
from torch.func import functional_call, grad, jvp


def loss_of(result):
    values = [result] if isinstance(result, torch.Tensor) else list(result.values())
    return next(x for x in values if isinstance(x, torch.Tensor)).float().square().mean()


def as_function(model):
    """Return a loss as a function of the parameters, and these."""
    inputs = model.dummy_inputs
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    return lambda given: loss_of(functional_call(model, given, (), inputs)), parameters


def assert_same_gradients(model):
    # First: torch's functional_call does not put parameters back that are in the model twice.
    loss_of(model(**model.dummy_inputs)).backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    assert any(gradient is not None for gradient in expected.values())
    loss, parameters = as_function(model)
    for name, found in grad(loss)(parameters).items():
        wanted = torch.zeros_like(found) if expected[name] is None else expected[name]
        assert torch.allclose(found, wanted, atol=1e-6, rtol=1e-4), name


def without_dropout(model):
    """Make training draw nothing."""
    for part in model.modules():
        for name, value in vars(part).items():
            if "dropout" in name and isinstance(value, float):
                setattr(part, name, 0.0)
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model.train()


def test_gradients_in_evaluation(transformable):
    assert_same_gradients(transformable.make_settled())


def test_gradients_in_training(transformable):
    assert_same_gradients(without_dropout(transformable.make_settled()))


def test_gradients_with_dropout(transformable):
    def found():
        loss, parameters = as_function(transformable.make_settled().train())
        torch.manual_seed(0)
        return list(grad(loss)(parameters).values())

    gradients = found()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)
    assert all(map(torch.equal, gradients, found()))


# torch scripts some of these derivatives, and says that scripting is old.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_derivative_in_a_direction(transformable):
    model = transformable.make_settled()
    model.set_attn_implementation("eager")  # torch's fused kernel has no such derivative
    directions = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    for name, part in model.named_modules():
        if isinstance(part, torch.nn.Embedding) and part.padding_idx is not None and f"{name}.weight" in directions:
            directions[f"{name}.weight"][part.padding_idx] = 0  # which has no gradient
    loss, parameters = as_function(model)
    _, slope = jvp(loss, (parameters,), (directions,))
    loss, _ = as_function(transformable.make_settled())  # not the one that torch has changed
    expected = sum((gradient * directions[name]).sum() for name, gradient in grad(loss)(parameters).items())
    assert torch.allclose(slope, expected, rtol=1e-3, atol=1e-5)
