"""from_torch: a Keras layer, on any backend, gives the output of the torch module."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import references as ref
import torch
from keras import ops

from modelwright import keras_layers as layers
from modelwright.core.errors import InputError
from modelwright.nn.conv1d import Conv1D
from modelwright.nn.sequence_summary import SequenceSummary


def conv1d(nf: int) -> Conv1D:
    """A torch Conv1D with a bias that is not zero."""
    module = Conv1D(nf, ref.HIDDEN)
    torch.nn.init.normal_(module.bias)
    return module


def summary(kind: str, size: int | None, activation: str | None) -> SequenceSummary:
    """A torch SequenceSummary with dropout, in evaluation mode."""
    config = SimpleNamespace(
        summary_type=kind,
        summary_use_proj=size is not None,
        summary_proj_to_labels=size is not None,
        num_labels=size,
        hidden_size=ref.HIDDEN,
        summary_activation=activation,
        summary_last_dropout=0.1,
    )
    return SequenceSummary(config).eval()


def near(found: Any, wanted: torch.Tensor) -> None:
    np.testing.assert_allclose(ops.convert_to_numpy(found), wanted.detach().numpy(), rtol=1e-6, atol=1e-6)


def test_conv1d() -> None:
    module = conv1d(5)
    layer = layers.from_torch(module, name="c_attn")
    assert (type(layer), layer.name, layer.nf, layer.nx) == (layers.TFConv1D, "c_attn", 5, ref.HIDDEN)
    near(layer(ref.HIDDEN_STATES), module(torch.from_numpy(ref.HIDDEN_STATES)))
    half = conv1d(5).to(torch.bfloat16)
    near(layers.from_torch(half)(ref.HIDDEN_STATES), half.float()(torch.from_numpy(ref.HIDDEN_STATES)))


@pytest.mark.parametrize("kind", ref.SUMMARY_TYPES)
@pytest.mark.parametrize(
    ("size", "activation"),
    [(None, None), (3, "tanh"), (3, "gelu_new"), (4, "silu")],
)
def test_sequence_summary(kind: str, size: int | None, activation: str | None) -> None:
    module = summary(kind, size, activation)
    layer = layers.from_torch(module)
    assert layer.last_dropout.rate == pytest.approx(0.1)
    assert layer.first_dropout is None
    wanted = module(torch.from_numpy(ref.HIDDEN_STATES), torch.from_numpy(ref.CLS_INDEX))
    near(layer((ref.HIDDEN_STATES, ref.CLS_INDEX)), wanted)
    near(layers.TFSequenceSummary.from_config(layer.get_config())((ref.HIDDEN_STATES, ref.CLS_INDEX)).shape[-1],
         torch.tensor(wanted.shape[-1]))  # fmt: skip


def test_modules_of_another_build_are_refused() -> None:
    for wrong in (torch.nn.Linear(2, 3), SimpleNamespace(nf=3)):
        with pytest.raises(InputError, match="from_torch: expected a torch Conv1D .* or SequenceSummary .*, got a"):
            layers.from_torch(wrong)
    module = summary("last", 3, None)
    module.activation = torch.nn.Softplus()
    with pytest.raises(InputError, match=r"the activation Softplus\(.*\) of the SequenceSummary has no Keras"):
        layers.from_torch(module)
