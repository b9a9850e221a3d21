"""ModelOutput: attributes, mapping and tuple are three views of one thing."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch.utils import _pytree as pytree

from modelwright.core.errors import InputError
from modelwright.outputs.base import ModelOutput
from modelwright.outputs.model_outputs import BaseModelOutput, CausalLMOutput, CausalLMOutputWithPast


def sample() -> CausalLMOutput:
    return CausalLMOutput(logits=torch.ones(2, 3), attentions=(torch.zeros(1),))


def test_fields_that_are_none_are_absent() -> None:
    output = sample()
    assert output.loss is None
    assert list(output) == ["logits", "attentions"]
    assert len(output) == 2
    assert "loss" not in output
    with pytest.raises(KeyError):
        output["loss"]


def test_the_three_views_agree() -> None:
    output = sample()
    assert output["logits"] is output.logits is output[0] is output.to_tuple()[0]
    assert output[-1] is output.attentions
    assert output[:1] == (output.logits,)
    assert isinstance(output, Mapping)


def test_positional_construction_follows_the_fields() -> None:
    output = CausalLMOutputWithPast(torch.tensor(1.0), torch.ones(1), "cache")
    assert list(output) == ["loss", "logits", "past_key_values"]
    assert output.past_key_values == "cache"


def test_setting_an_attribute_or_an_item_changes_all_views_in_the_order_of_the_fields() -> None:
    output = sample()
    output.loss = torch.tensor(2.0)
    assert output[0] is output["loss"] is output.loss
    assert list(output) == ["loss", "logits", "attentions"]
    output["hidden_states"] = ()
    assert list(output) == ["loss", "logits", "hidden_states", "attentions"]
    output.logits = None
    assert output.to_tuple() == (output.loss, (), output.attentions)
    output.update(loss=None)
    assert "loss" not in output


def test_attributes_beside_the_fields_are_not_fields() -> None:
    output = sample()
    output.note = "kept"  # type: ignore[attr-defined]
    assert "note" not in output
    assert len(output.to_tuple()) == 2


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"CausalLMOutput has no field 'logit': expected one of .*Did you mean 'logits'"
    ):
        sample()["logit"] = 1
    with pytest.raises(TypeError, match="logit"):
        CausalLMOutput(logit=1)  # type: ignore[call-arg]


def test_fields_cannot_be_deleted() -> None:
    output = sample()
    for delete in (
        lambda: output.__delitem__("logits"),
        lambda: output.pop("logits"),
        lambda: output.popitem(),
        lambda: output.clear(),
    ):
        with pytest.raises(InputError, match="CausalLMOutput: a field cannot be deleted; set .* to None instead"):
            delete()
    assert list(output) == ["logits", "attentions"]


def test_a_mapping_or_pairs_as_the_only_argument() -> None:
    # DataParallel and accelerate rebuild mappings in these two ways.
    whole = sample()
    for given in (dict(whole), ((name, whole[name]) for name in whole), list(whole.items()), whole):
        again = CausalLMOutput(given)  # type: ignore[arg-type]
        assert list(again) == list(whole)
        assert again.logits is whole.logits
        assert again.loss is None


def test_a_first_field_that_is_a_tuple_stays_one() -> None:
    states = (torch.ones(1), torch.ones(1))
    assert BaseModelOutput(states).last_hidden_state is states  # type: ignore[arg-type]


def test_an_iterator_of_something_else_is_refused() -> None:
    with pytest.raises(InputError, match="expected pairs of a field and its value, fields being last_hidden_state"):
        BaseModelOutput(iter([1, 2]))  # type: ignore[arg-type]


def test_copies_and_pickles() -> None:
    output = sample()
    for other in (output.copy(), copy.copy(output), copy.deepcopy(output), pickle.loads(pickle.dumps(output))):
        assert type(other) is CausalLMOutput
        assert list(other) == list(output)
        assert torch.equal(other.logits, output.logits)
        assert other.loss is None


def test_a_plain_model_output_takes_any_name() -> None:
    output = ModelOutput(last_hidden_state=1, extra=2)
    assert (output.extra, output[0], output["extra"]) == (2, 1, 2)
    output.more = 3
    assert output.to_tuple() == (1, 2, 3)


def test_a_subclass_without_the_decorator_is_refused() -> None:
    class Forgotten(ModelOutput):
        loss: float | None = None

    class AlsoForgotten(CausalLMOutput):
        extra: float | None = None

    for cls in (Forgotten, AlsoForgotten):
        with pytest.raises(
            InputError, match=f"{cls.__name__} is a ModelOutput with fields: decorate the class with @dataclass"
        ):
            cls(loss=None)


def test_a_subclass_inherits_fields() -> None:
    @dataclass
    class More(CausalLMOutput):
        extra: torch.Tensor | None = None

    assert list(More(extra=torch.ones(1), loss=torch.ones(1))) == ["loss", "extra"]


def test_pytree_maps_over_the_fields_and_keeps_the_class() -> None:
    doubled = pytree.tree_map(lambda tensor: tensor * 2, sample())
    assert type(doubled) is CausalLMOutput
    assert torch.equal(doubled.logits, torch.full((2, 3), 2.0))
    assert doubled.loss is None
    leaves, spec = pytree.tree_flatten(sample())
    assert len(leaves) == 2
    assert type(pytree.tree_unflatten(leaves, spec)) is CausalLMOutput
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(sample())[0]]
    assert paths == ["['logits']", "['attentions'][0]"]


def test_the_room_is_free_of_torch_and_registers_when_torch_comes() -> None:
    script = """
import sys
from modelwright.outputs.model_outputs import MaskedLMOutput
assert "torch" not in sys.modules
import torch
from torch.utils import _pytree
output = MaskedLMOutput(logits=torch.ones(2))
assert len(_pytree.tree_leaves(output)) == 1 and _pytree.tree_leaves(output)[0] is output.logits
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


class _Doubler(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> CausalLMOutput:
        return CausalLMOutput(loss=x.sum(), logits=2 * x)


@pytest.mark.slow
def test_torch_compile_and_export_return_it() -> None:
    x = torch.arange(4.0)
    compiled = torch.compile(_Doubler(), backend="eager", fullgraph=True)(x)
    assert type(compiled) is CausalLMOutput
    assert torch.equal(compiled.logits, 2 * x)
    exported = torch.export.export(_Doubler(), (x,)).module()(x)
    assert type(exported) is CausalLMOutput
    assert torch.equal(exported.logits, 2 * x)
