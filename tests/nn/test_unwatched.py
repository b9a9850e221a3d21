import copy

import pytest
import torch
from torch import nn

from modelwright.nn.decode_layout import apply_each, lay_out_for_decoding, ready_product
from modelwright.nn.packed_linear import can_pack
from modelwright.nn.unwatched import Unwatched, as_written

FORWARDS = as_written(nn.Linear, nn.Dropout)


def network():
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 2, bias=False)]).eval()


def hooked(model):
    model[2].register_forward_hook(lambda *_: None)


def hooked_before(model):
    model[0].register_forward_pre_hook(lambda *_: None)


def another_part(model):
    model[1] = nn.Identity()


def another_weight(model):
    model[2].weight = nn.Parameter(model[2].weight.detach().clone())


def moved_weight(model):
    model[2].weight.data = model[2].weight.data.clone()


def changed_weight(model):
    model[0].bias.add_(1.0)


def no_bias(model):
    model[0].bias = None


def patched(model):
    model[0].forward = lambda x: x


def compiled(model):
    model[2]._compiled_call_impl = lambda x: x  # as `compile` does, which takes seconds


def training(model):
    model[1].train()


def laid_out(model):
    lay_out_for_decoding(model)


CHANGES = [
    hooked, hooked_before, another_part, another_weight, moved_weight, changed_weight, no_bias, patched, compiled,
    training, laid_out,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change):
    model = network()
    with torch.no_grad():
        unwatched = Unwatched(model, FORWARDS)
        assert unwatched.hold(model)
        assert unwatched.in_evaluation
        change(model)
        assert not unwatched.hold(model)


@pytest.mark.parametrize("change", CHANGES)
def test_in_place_numbers_and_training_do_not_matter(change):
    model = network()
    with torch.no_grad():
        unwatched = Unwatched(model, FORWARDS, in_place=True)
        change(model)
        assert unwatched.hold(model) == (change in (changed_weight, training))


def test_hooks_are_seen_whichever_came_and_went_before():
    model = network()
    with torch.no_grad():
        unwatched = Unwatched(model, FORWARDS)
        for register in (model[0].register_forward_hook, model[2].register_full_backward_hook):
            handle = register(lambda *_: None)
            nn.Linear(1, 1).register_forward_hook(lambda *_: None)
            assert not unwatched.hold(model)
            assert not unwatched.hold(model)
            handle.remove()
            assert unwatched.hold(model)


def test_hooks_that_were_put_aside_and_back_are_seen():
    model = network()
    model[0].register_forward_hook(lambda *_: None)
    aside = dict(model[0]._forward_hooks)
    with torch.no_grad():
        model[0]._forward_hooks.clear()
        unwatched = Unwatched(model, FORWARDS)
        assert unwatched.hold(model)
        model[0]._forward_hooks.update(aside)
        assert not unwatched.hold(model)


def test_a_call_that_is_compiled_again_is_seen():
    model = network()
    compiled(model)
    model[2]._compiled_call_impl = None
    with torch.no_grad():
        unwatched = Unwatched(model, FORWARDS)
        compiled(model)
        assert not unwatched.hold(model)


def test_a_patched_class_is_seen(monkeypatch):
    model = network()
    with torch.no_grad():
        unwatched = Unwatched(model, FORWARDS)
        monkeypatch.setattr(nn.Dropout, "forward", lambda _, x: x)
        assert not unwatched.hold(model)
        assert not Unwatched(model, FORWARDS).hold(model)


def test_it_holds_for_these_modules_only():
    model = network()
    with torch.no_grad():
        unwatched = Unwatched(model, FORWARDS)
        assert not unwatched.hold(copy.deepcopy(model))
        assert not Unwatched(model, as_written(nn.Linear)).hold(model), "a class that is not among them"
        assert not Unwatched(model.double(), FORWARDS).hold(model)


def test_who_follows_a_call_is_seen():
    model = network()
    unwatched = Unwatched(model, FORWARDS)
    assert not unwatched.hold(model), "gradients"
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert not unwatched.hold(model)
        hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
        assert not unwatched.hold(model)
        hook.remove()
        assert unwatched.hold(model)


@pytest.mark.parametrize("layout", ["none", "rows", "packed"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 200])
def test_a_ready_product_is_that_of_the_layers(layout, bias, rows):
    if layout == "packed" and not can_pack():
        pytest.skip("torch without oneDNN")
    torch.manual_seed(0)
    parent = nn.Module()
    parent.a, parent.b = nn.Linear(8, 6, bias=bias), nn.Linear(8, 10, bias=bias)
    parent._siblings = ("a", "b")
    x = torch.randn(rows, 1, 8)
    with torch.no_grad():
        expected = torch.cat([parent.a(x), parent.b(x)], dim=-1)
        if layout != "none":
            lay_out_for_decoding(parent, packed=layout == "packed")
        torch.testing.assert_close(ready_product(parent.a, parent.b)(x), expected)
        torch.testing.assert_close(torch.cat(apply_each(x, parent.a, parent.b), dim=-1), expected)
        torch.testing.assert_close(ready_product(parent.a)(x), expected[..., :6])
