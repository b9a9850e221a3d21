"""Values for what has none: a new model, and exactly what a checkpoint lacks."""

import pytest
import torch
from torch import nn

from modelwright.core.errors import CheckpointMismatchError
from modelwright.pretrained import initialization

CPU = torch.device("cpu")


class Holder(nn.Module):
    """A model whose `_init_weights` is given as a function."""

    def __init__(self, rule, **children):
        super().__init__()
        self.rule = rule
        for name, child in children.items():
            self.add_module(name, child)

    def _init_weights(self, module):
        self.rule(module)


def ones(module):
    if isinstance(module, nn.Linear):
        module.weight.data.fill_(1.0)


def lose(model, *names):
    """Put the parameters or buffers `names` on meta, as if no checkpoint had had them."""
    for name in names:
        module_name, _, attribute = name.rpartition(".")
        module = model.get_submodule(module_name)
        slots = module._parameters if attribute in module._parameters else module._buffers
        tensor = slots[attribute].to("meta")
        slots[attribute] = nn.Parameter(tensor) if slots is module._parameters else tensor
    return model


def test_each_module_is_initialised_once_by_the_innermost_model():
    calls = []
    inner = Holder(lambda module: calls.append(("inner", type(module).__name__)), a=nn.Linear(2, 2))
    outer = Holder(lambda module: calls.append(("outer", type(module).__name__)), inner=inner, b=nn.Linear(2, 2))
    initialization.initialize(inner)
    initialization.initialize(outer)
    assert calls == [("inner", "Linear"), ("inner", "Holder"), ("outer", "Linear"), ("outer", "Holder")]


def test_a_module_with_the_4x_mark_is_left_alone():
    model = Holder(ones, a=nn.Linear(2, 2), b=nn.Linear(2, 2))
    model.a._is_hf_initialized = True
    kept = model.a.weight.clone()
    initialization.initialize(model)
    assert torch.equal(model.a.weight, kept)
    assert (model.b.weight == 1).all()


def test_only_the_missing_are_touched_by_a_rule_that_works_in_place():
    model = lose(Holder(ones, a=nn.Linear(3, 3), b=nn.Linear(3, 3)), "b.weight")
    loaded = {name: parameter for name, parameter in model.named_parameters() if name != "b.weight"}
    before = {name: (parameter, parameter.clone()) for name, parameter in loaded.items()}
    initialization.initialize_missing(model, CPU)
    assert (model.b.weight == 1).all()
    for name, (parameter, values) in before.items():
        assert model.get_parameter(name) is parameter
        assert torch.equal(parameter, values), name


def test_the_rule_of_a_parent_initialises_its_missing_child_and_spares_the_loaded_one():
    def rule(module):
        if isinstance(module, nn.Sequential):
            module[0].weight.data = torch.full_like(module[0].weight.data, 5.0)
            module[1].weight.data.fill_(6.0)

    model = lose(Holder(rule, pair=nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))), "pair.1.weight")
    loaded = model.pair[0].weight.clone()
    initialization.initialize_missing(model, CPU)
    assert torch.equal(model.pair[0].weight, loaded)
    assert (model.pair[1].weight == 6).all()


def test_torchs_own_initialisation_fills_what_the_rule_leaves_alone():
    layers = {"norm": nn.LayerNorm(3), "batch": nn.BatchNorm1d(3), "attention": nn.MultiheadAttention(4, 2)}
    names = ["norm.weight", "batch.running_var", "batch.num_batches_tracked", "attention.in_proj_weight"]
    model = lose(Holder(lambda module: None, **layers), *names)
    model.batch.running_mean.fill_(7.0)
    initialization.initialize_missing(model, CPU)
    assert (model.norm.weight == 1).all()
    assert (model.batch.running_var == 1).all()
    assert model.batch.num_batches_tracked == 0
    assert (model.batch.running_mean == 7).all(), "a loaded buffer was reset"
    assert not model.attention.in_proj_weight.isnan().any()


def test_tied_missing_parameters_stay_one_parameter():
    model = Holder(ones, a=nn.Linear(2, 2, bias=False), b=nn.Linear(2, 2, bias=False))
    model.a.weight = model.b.weight = nn.Parameter(torch.empty(2, 2, device="meta"))
    initialization.initialize_missing(model, CPU)
    assert model.a.weight is model.b.weight
    assert (model.a.weight == 1).all()


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))


def test_a_parameter_that_nothing_initialises_is_an_error_that_names_the_hook():
    model = lose(Holder(lambda module: None, layer=Scale()), "layer.scale")
    with pytest.raises(CheckpointMismatchError, match=r"no 'layer.scale', and neither Holder._init_weights nor Scale."):
        initialization.initialize_missing(model, CPU)


class Table(nn.Module):
    """A stored table and what is computed from it."""

    def __init__(self, fill=None):
        super().__init__()
        self.fill = fill
        self.register_buffer("stored", torch.arange(3.0))
        self.register_buffer("twice", torch.empty(3), persistent=False)
        self.register_buffer("mask", torch.empty(3, dtype=torch.bool), persistent=False)
        self.register_buffer("index", torch.empty(3, dtype=torch.long), persistent=False)

    def init_buffers(self):
        if self.fill is not None:
            self.fill(self)


def fill(table):
    table.stored.mul_(2)
    table.twice = table.stored.clone()
    table.mask.fill_(False)
    table.index.data.copy_(torch.arange(3))


def test_computed_buffers_are_computed_and_stored_ones_kept():
    model = lose(Holder(ones, table=Table(fill)), "table.twice", "table.mask", "table.index")
    initialization.initialize_missing(model, CPU)
    assert model.table.twice.tolist() == [0, 2, 4]
    assert model.table.stored.tolist() == [0, 1, 2]
    assert model.table.mask.tolist() == [False] * 3
    assert model.table.index.tolist() == [0, 1, 2]
    initialization.check_nothing_on_meta(model)


@pytest.mark.parametrize("name", ["twice", "mask", "index"])
def test_a_buffer_that_nothing_computes_is_an_error_that_names_the_hook(name):
    model = lose(Holder(ones, table=Table()), f"table.{name}")
    with pytest.raises(CheckpointMismatchError, match=f"the buffer 'table.{name}', .* Give Table a method init_b"):
        initialization.initialize_missing(model, CPU)


def test_a_plain_tensor_on_meta_is_found():
    model = Holder(ones, layer=nn.Linear(2, 2))
    model.layer.mask = torch.ones(2, device="meta")
    with pytest.raises(CheckpointMismatchError, match=r"'layer.mask' has no values .* compute it in init_buffers"):
        initialization.check_nothing_on_meta(model)


def test_nothing_missing_draws_nothing():
    model = Holder(lambda module: torch.rand(1), a=nn.Linear(2, 2))
    state = torch.get_rng_state()
    initialization.initialize_missing(model, CPU)
    assert torch.equal(torch.get_rng_state(), state)
