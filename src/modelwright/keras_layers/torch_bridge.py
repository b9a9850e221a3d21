"""from_torch: a Keras layer with the weights of a torch module of ours."""

from typing import Any

from modelwright.core.errors import InputError
from modelwright.keras_layers.activations import FUNCTIONS
from modelwright.keras_layers.conv1d import TFConv1D
from modelwright.keras_layers.sequence_summary import TFSequenceSummary

# torch.nn's own activation modules; ours (`modelwright.nn.activations.Activation`) know their name.
_TORCH_ACTIVATIONS = {
    "GELU": "gelu",
    "LeakyReLU": "leaky_relu",
    "Mish": "mish",
    "ReLU": "relu",
    "ReLU6": "relu6",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
}


def from_torch(module: Any, **kwargs: Any) -> Any:
    """Return the Keras layer that gives the same output as a torch `Conv1D` or `SequenceSummary`, in evaluation.

    The module is known by its parts, so those of transformers and others of the same build work too. Weights are
    copied, from any device and dtype; `kwargs` go to the layer (`name`, `dtype`). The result of a `Conv1D` is a
    TFConv1D, of a `SequenceSummary` a TFSequenceSummary.
    Raises InputError for any other module.
    """
    if hasattr(module, "summary") and hasattr(module, "summary_type"):
        return _summary(module, kwargs)
    if hasattr(module, "nf") and len(getattr(module, "weight", _NoWeight).shape) == 2:
        return _conv1d(module, kwargs)
    raise InputError(
        f"from_torch: expected a torch Conv1D (with nf, weight, bias) or SequenceSummary (with summary_type, summary), "
        f"got a {type(module).__name__}"
    )


class _NoWeight:
    shape = ()


def _array(tensor: Any) -> Any:
    return tensor.detach().cpu().float().numpy()


def _conv1d(module: Any, kwargs: dict[str, Any]) -> TFConv1D:
    weight = _array(module.weight)
    layer = TFConv1D(weight.shape[1], weight.shape[0], **kwargs)
    layer.build()
    layer.weight.assign(weight)
    layer.bias.assign(_array(module.bias)[None])
    return layer


def _summary(module: Any, kwargs: dict[str, Any]) -> TFSequenceSummary:
    weight: Any = getattr(module.summary, "weight", None)
    fields = {
        "summary_type": module.summary_type,
        "summary_use_proj": weight is not None,
        "hidden_size": None if weight is None else weight.shape[0],
        "summary_activation": _activation_name(getattr(module, "activation", None)),
        "summary_first_dropout": _rate(getattr(module, "first_dropout", None)),
        "summary_last_dropout": _rate(getattr(module, "last_dropout", None)),
    }
    layer = TFSequenceSummary(fields, **kwargs)
    if layer.summary is not None:
        layer.build((None, None, weight.shape[1]))
        layer.summary.kernel.assign(_array(weight).T)
        layer.summary.bias.assign(_array(module.summary.bias))
    return layer


def _rate(dropout: Any) -> float:
    """Return the probability of a dropout module, 0 for an Identity or none."""
    return float(getattr(dropout, "p", 0.0))


def _activation_name(activation: Any) -> str | None:
    kind = type(activation).__name__
    if activation is None or kind == "Identity":
        return None
    name = getattr(activation, "name", None) or _TORCH_ACTIVATIONS.get(kind)
    if kind == "GELU" and getattr(activation, "approximate", "none") == "tanh":
        name = "gelu_new"
    if name not in FUNCTIONS:
        raise InputError(f"from_torch: the activation {activation!r} of the SequenceSummary has no Keras counterpart")
    return str(name)
