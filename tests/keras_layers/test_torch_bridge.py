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
from modelwright.nn.activations import get_activation


class Conv1D(torch.nn.Module):
    """The parts of a torch Conv1D."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = torch.nn.Parameter(torch.randn(nx, nf))
        self.bias = torch.nn.Parameter(torch.randn(nf))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


class SequenceSummary(torch.nn.Module):
    """The parts of a torch SequenceSummary."""

    def __init__(self, kind: str, size: int | None, activation: Any, dropout: float = 0.1) -> None:
        super().__init__()
        self.summary_type = kind
        self.summary = torch.nn.Identity() if size is None else torch.nn.Linear(ref.HIDDEN, size)
        self.activation = activation
        self.first_dropout = torch.nn.Identity()
        self.last_dropout = torch.nn.Dropout(dropout)

    def forward(self, hidden: torch.Tensor, cls_index: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(hidden))
        picked = {"last": hidden[:, -1], "first": hidden[:, 0], "mean": hidden.mean(1)}.get(self.summary_type)
        output = self.first_dropout(hidden[rows, cls_index] if picked is None else picked)
        return self.last_dropout(self.activation(self.summary(output)))


def near(found: Any, wanted: torch.Tensor) -> None:
    np.testing.assert_allclose(ops.convert_to_numpy(found), wanted.detach().numpy(), rtol=1e-6, atol=1e-6)


def test_conv1d() -> None:
    module = Conv1D(5, ref.HIDDEN)
    layer = layers.from_torch(module, name="c_attn")
    assert (type(layer), layer.name, layer.nf, layer.nx) == (layers.TFConv1D, "c_attn", 5, ref.HIDDEN)
    near(layer(ref.HIDDEN_STATES), module(torch.from_numpy(ref.HIDDEN_STATES)))
    half = Conv1D(5, ref.HIDDEN).to(torch.bfloat16)
    near(layers.from_torch(half)(ref.HIDDEN_STATES), half.float()(torch.from_numpy(ref.HIDDEN_STATES)))


@pytest.mark.parametrize("kind", ref.SUMMARY_TYPES)
@pytest.mark.parametrize(
    ("size", "activation"),
    [(None, torch.nn.Identity()), (3, get_activation("tanh")), (3, torch.nn.GELU(approximate="tanh")), (4, torch.nn.SiLU())],  # noqa: E501
    ids=str,
)  # fmt: skip
def test_sequence_summary(kind: str, size: int | None, activation: Any) -> None:
    module = SequenceSummary(kind, size, activation).eval()
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
    with pytest.raises(
        InputError, match=r"the activation Softplus\(.*\) of the SequenceSummary has no Keras counterpart"
    ):
        layers.from_torch(SequenceSummary("last", 3, torch.nn.Softplus()))
