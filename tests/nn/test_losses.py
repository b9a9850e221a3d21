"""The loss of a projection that is never made whole equals torch's of the whole one."""

import pytest
import torch
from torch.nn import functional as F

from modelwright.nn import losses
from modelwright.nn.losses import causal_lm_loss, lean_causal_lm_loss, linear_cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("block", [1, 40, 10_000])
def test_equals_cross_entropy_of_the_scores(smoothing, block, monkeypatch):
    monkeypatch.setattr(losses, "_BYTES", block * 8)
    monkeypatch.setattr(losses, "_CACHED_SCORES", block // 2)
    hidden, weight = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((9, 5), (13, 5)))
    targets = torch.randint(0, 13, (9,))
    targets[[2, 5]] = -100
    expected = F.cross_entropy(hidden @ weight.t(), targets, label_smoothing=smoothing)
    wanted = torch.autograd.grad(3 * expected, (hidden, weight))
    found = linear_cross_entropy(hidden, weight, targets, smoothing)
    torch.testing.assert_close(found, expected)
    for left, right in zip(torch.autograd.grad(3 * found, (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(left, right)
    torch.testing.assert_close(linear_cross_entropy(hidden.detach(), weight.detach(), targets, smoothing), expected)
    (alone,) = torch.autograd.grad(linear_cross_entropy(hidden.detach(), weight, targets, smoothing), weight)
    torch.testing.assert_close(alone, wanted[1] / 3)


def test_the_scores_are_never_whole():
    hidden, weight = torch.randn(4000, 4, requires_grad=True), torch.randn(8000, 4, requires_grad=True)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    with Watch():
        linear_cross_entropy(hidden, weight, torch.zeros(4000, dtype=torch.long))
    assert largest <= losses._BYTES // 4 < 4000 * 8000


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize(("scores", "cached"), [(2**22, 2**20), (13 * 70, 13 * 33), (5, 5)])
def test_half_precision_is_that_of_its_products(smoothing, scores, cached, monkeypatch):
    monkeypatch.setattr(losses, "_BYTES", scores * 2)
    monkeypatch.setattr(losses, "_CACHED_SCORES", cached)
    torch.manual_seed(0)
    hidden = torch.randn(150, 8).bfloat16().requires_grad_()
    weight = torch.randn(13, 8).bfloat16().float().requires_grad_()
    targets = torch.randint(0, 13, (150,))
    expected = F.cross_entropy(hidden.float() @ weight.t(), targets, label_smoothing=smoothing)
    found = linear_cross_entropy(hidden, weight, targets, smoothing)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)
    wanted = torch.autograd.grad(expected, (hidden, weight))
    for left, right in zip(torch.autograd.grad(found, (hidden, weight)), wanted, strict=True):
        assert left.dtype == right.dtype
        assert (left - right).float().norm() < 0.01 * right.float().norm()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_target_whose_probability_is_nothing(smoothing, dtype):
    hidden = torch.tensor([[90.0, 0.0], [-300.0, 40.0], [1.0, 1.0]], dtype=dtype, requires_grad=True)
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]], requires_grad=True)
    targets = torch.tensor([1, 0, 2])
    expected = F.cross_entropy(hidden.float() @ weight.t(), targets, label_smoothing=smoothing)
    found = linear_cross_entropy(hidden, weight, targets, smoothing)
    torch.testing.assert_close(found, expected)
    for left, right in zip(*(torch.autograd.grad(each, (hidden, weight)) for each in (found, expected)), strict=True):
        torch.testing.assert_close(left, right, atol=1e-6 if dtype == torch.float32 else 1e-2, rtol=1e-2)


def _lean(hidden, weight, targets):
    return lean_causal_lm_loss((hidden @ weight.t()).unsqueeze(0), targets.unsqueeze(0))


@pytest.mark.parametrize("loss_of", [linear_cross_entropy, _lean])
def test_derivatives_twice_and_in_transforms(loss_of):
    torch.manual_seed(0)
    targets = torch.tensor([1, 4, -100, 0, 2])

    def plain(hidden, weight, targets):
        if loss_of is _lean:
            hidden, targets = hidden[:-1], targets[1:]
        return F.cross_entropy(hidden @ weight.t(), targets)

    hidden, weight = torch.randn(5, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    second = [torch.autograd.functional.hvp(lambda *x, f=f: f(*x, targets), (hidden, weight), (hidden, weight))[1]
              for f in (loss_of, plain)]  # fmt: skip
    torch.testing.assert_close(*second)
    torch.testing.assert_close(*(torch.func.grad(f)(hidden, weight, targets) for f in (loss_of, plain)))
    only = weight.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss_of(hidden, only, targets), only, create_graph=True)
    assert first.requires_grad


def test_second_derivatives_where_the_states_are_made_of_the_weight():
    torch.manual_seed(0)
    weight = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    ids, targets = torch.tensor([0, 4, 4, 6]), torch.tensor([4, 1, 6, 0])
    found = []
    for loss_of in (
        linear_cross_entropy,
        lambda hidden, weight, targets: F.cross_entropy(hidden @ weight.t(), targets),
    ):
        loss = loss_of(F.embedding(ids, weight).sin(), weight, targets)
        (first,) = torch.autograd.grad(loss, weight, create_graph=True)
        found.append((first, *torch.autograd.grad(first.square().sum(), weight)))
    torch.testing.assert_close(*found)


def test_no_target_counts():
    assert linear_cross_entropy(torch.randn(2, 3), torch.randn(5, 3), torch.tensor([-100, -100])).isnan()


@pytest.mark.parametrize("classes", [11, 2**17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_lean_loss_and_its_gradient_are_the_ordinary_ones(classes, dtype):
    torch.manual_seed(0)
    labels = torch.randint(classes, (2, 9))
    labels[0, 3:5] = -100
    values = torch.randn(2, 9, classes).to(dtype)
    found = []
    for loss_of in (causal_lm_loss, lean_causal_lm_loss):
        logits = values.clone().requires_grad_()
        loss = loss_of(logits, labels)
        (3 * loss).backward()
        found.append((loss.detach(), logits.grad))
    torch.testing.assert_close(found[0], found[1])
    assert found[1][1][:, -1].abs().max() == 0


def test_the_lean_loss_refuses_what_the_ordinary_one_does():
    logits = torch.randn(1, 4, 5)
    with pytest.raises(
        IndexError, match="labels: expected classes from 0 to 4, or -100 for what does not count, got 7"
    ):
        lean_causal_lm_loss(logits, torch.tensor([[1, 2, 7, 0]]))
    with pytest.raises(ValueError, match="labels: expected 3 whole numbers, one for each row of scores, got 2 of"):
        lean_causal_lm_loss(logits, torch.tensor([[1, 2, 3]]))
    assert lean_causal_lm_loss(logits, torch.full((1, 4), -100)).isnan()
