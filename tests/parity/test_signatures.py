"""`forward` of every model class that 4.57.1 has too: the same parameters in the same order with the same defaults."""

import importlib
import inspect

import pytest

from modelwright import _public

pytestmark = [
    pytest.mark.parity,
    # The toolkit that the QDQBERT of 4.57.1 imports compiles its kernels so.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]

# Parameters of 4.57.1 that ours lack, each with the reason.
LEFT_OUT: dict[str, dict[str, str]] = {}


def models():
    names = [(name, home) for home, names in _public.PUBLIC.items() if ".models." in home for name in names]
    for name, home in sorted(names):
        if ".auto." in home or "tokenization_" in home or "configuration_" in home or name.endswith("PreTrainedModel"):
            continue
        if name[0].islower():  # a function
            continue
        yield pytest.param(home, name, id=name)


def named(function):
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return {each.name: each.default for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD}


@pytest.mark.parametrize(("home", "name"), list(models()))
def test_forward(home, name):
    import transformers

    ours = getattr(importlib.import_module(home), name)
    theirs = getattr(transformers, name)
    expected = {key: value for key, value in named(theirs.forward).items() if key not in LEFT_OUT.get(name, {})}
    found = named(ours.forward)
    assert list(found)[: len(expected)] == list(expected), "another order"
    assert {key: found[key] for key in expected} == expected, "another default"
    # What 4.57.1 takes among its **kwargs, ours name: after the others, and never needed.
    assert all(found[key] is not inspect.Parameter.empty for key in found if key not in expected)
