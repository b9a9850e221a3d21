"""TFSequenceSummary: one vector for a sequence of hidden states."""

from collections.abc import Mapping
from typing import Any

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError, InputError, check_choice
from modelwright.keras_layers.activations import FUNCTIONS, get_tf_activation
from modelwright.keras_layers.errors import ConfigTypeError, UnsupportedSummaryError
from modelwright.keras_layers.initializers import get_initializer
from modelwright.keras_layers.keras_api import keras, ops
from modelwright.keras_layers.tensors import as_floats, as_integers, check_range, inside, shape_list

_TYPES = ("cls_index", "first", "last", "mean")
# The fields of the configuration that the layer reads, and what they are if the configuration has none.
_FIELDS: dict[str, Any] = {
    "summary_type": "last",
    "summary_use_proj": False,
    "summary_proj_to_labels": False,
    "summary_activation": None,
    "summary_first_dropout": 0.0,
    "summary_last_dropout": 0.0,
    "num_labels": 0,
    "hidden_size": None,
}


def _read(config: Any) -> dict[str, Any]:
    """Return the layer's fields of a configuration, or of a dictionary as `get_config` writes it; checked."""
    if isinstance(config, PretrainedConfig):
        fields = {name: getattr(config, name, default) for name, default in _FIELDS.items()}
    elif isinstance(config, Mapping):
        fields = {name: config.get(name, default) for name, default in _FIELDS.items()}
    else:
        raise ConfigTypeError(
            f"TFSequenceSummary: expected config to be a PretrainedConfig or a dictionary, got {type(config).__name__}"
        )
    where = "TFSequenceSummary: config."
    if fields["summary_type"] == "attn":
        raise UnsupportedSummaryError(
            f"{where}summary_type 'attn' (multi-head attention) is implemented by no library; use one of "
            f"{', '.join(_TYPES)}"
        )
    check_choice(f"{where}summary_type", fields["summary_type"], _TYPES)
    if fields["summary_activation"]:
        check_choice(f"{where}summary_activation", fields["summary_activation"], FUNCTIONS)
    for name in ("summary_first_dropout", "summary_last_dropout"):
        rate = fields[name] = fields[name] or 0.0
        if not isinstance(rate, int | float) or not 0 <= rate < 1:
            raise ConfigError(f"{where}{name}: expected a probability from 0 to below 1, got {rate!r}")
    return fields


@keras.saving.register_keras_serializable(package="modelwright")
class TFSequenceSummary(keras.layers.Layer):
    """A summary of hidden states, (batch, ..., tokens, hidden_size) -> (batch, ..., size).

    The configuration says which: `summary_type` is "last", "first" or "mean" over the tokens (padding counts: "last" is
    the last position, whatever it holds), or "cls_index", the position that the call names. Then, each if it is asked
    for: dropout (`summary_first_dropout`), a projection named "summary" (`summary_use_proj`) to `num_labels`
    (`summary_proj_to_labels`) or `hidden_size`, an activation (`summary_activation`), dropout (`summary_last_dropout`).

    The input is the hidden states, a tuple (hidden states, cls_index) or a dictionary of those names. `cls_index` has
    the shape of the hidden states without their last two axes, or with one more axis of size 1; without it, the last
    position is taken. Further keywords go to `keras.layers.Layer`.
    Raises ConfigTypeError, ConfigError and UnsupportedSummaryError (which is a NotImplementedError) for configurations
    that cannot work, InputError for inputs that cannot. In a compiled function, which cannot raise, a position out of
    range gives NaN.
    """

    def __init__(self, config: Any, initializer_range: float = 0.02, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._fields = _read(config)
        self.initializer_range = initializer_range
        self.summary_type = self._fields["summary_type"]
        self.summary = self._projection() if self._fields["summary_use_proj"] else None
        name = self._fields["summary_activation"]
        self.activation = get_tf_activation(name) if name else None
        self.first_dropout = self._dropout("summary_first_dropout")
        self.last_dropout = self._dropout("summary_last_dropout")
        self.supports_masking = True

    def _projection(self) -> Any:
        to_labels = self._fields["summary_proj_to_labels"] and (self._fields["num_labels"] or 0) > 0
        units = self._fields["num_labels" if to_labels else "hidden_size"]
        if not units:
            raise ConfigError("TFSequenceSummary: config.summary_use_proj needs config.hidden_size, which is not set")
        return keras.layers.Dense(
            units, kernel_initializer=get_initializer(self.initializer_range), dtype=self.dtype_policy, name="summary"
        )

    def _dropout(self, name: str) -> Any:
        rate = self._fields[name]
        return keras.layers.Dropout(rate, dtype=self.dtype_policy) if rate > 0 else None

    def build(self, input_shape: Any) -> None:
        """Make the projection's weights, once."""
        if self.summary is not None and not self.summary.built:
            while isinstance(input_shape, Mapping) or isinstance(input_shape[0], list | tuple):
                input_shape = input_shape["hidden_states"] if isinstance(input_shape, Mapping) else input_shape[0]
            self.summary.build((None, input_shape[-1]))
        self.built = True

    def call(self, inputs: Any, cls_index: Any = None, training: bool | None = None) -> Any:
        """Return the summary."""
        hidden, index = self._unpack(inputs)
        output = self._pick(hidden, cls_index if index is None else index)
        if self.first_dropout is not None:
            output = self.first_dropout(output, training=training)
        if self.summary is not None:
            output = self.summary(output)
        if self.activation is not None:
            output = self.activation(output)
        return output if self.last_dropout is None else self.last_dropout(output, training=training)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:  # noqa: ARG002 - Keras's signature
        """Return None: a summary has no tokens to mask."""
        return

    def _unpack(self, inputs: Any) -> tuple[Any, Any]:
        where = f"{self.name} (TFSequenceSummary)"
        if isinstance(inputs, Mapping):
            if "hidden_states" not in inputs or set(inputs) - {"hidden_states", "cls_index"}:
                raise InputError(
                    f"{where}: expected inputs hidden_states and cls_index, got {', '.join(map(str, inputs))}"
                )
            hidden, index = inputs["hidden_states"], inputs.get("cls_index")
        elif isinstance(inputs, tuple | list):
            if not 1 <= len(inputs) <= 2:
                raise InputError(
                    f"{where}: too many inputs: expected hidden states and cls_index, got {len(inputs)}"
                    if inputs
                    else f"{where}: expected hidden states, got an empty {type(inputs).__name__}"
                )
            hidden, index = inputs[0], inputs[1] if len(inputs) == 2 else None
        else:
            hidden, index = inputs, None
        if len(hidden.shape) < 3:
            raise InputError(
                f"{where}: expected hidden states of shape (batch, tokens, hidden_size), got {tuple(hidden.shape)}"
            )
        return hidden, index

    def _pick(self, hidden: Any, index: Any) -> Any:
        if self.summary_type == "mean":
            return ops.cast(ops.mean(as_floats(hidden), axis=-2), hidden.dtype)
        if self.summary_type == "first":
            return hidden[..., 0, :]
        if self.summary_type == "last" or index is None:
            return hidden[..., -1, :]
        return self._pick_at(hidden, index)

    def _pick_at(self, hidden: Any, index: Any) -> Any:
        where = f"{self.name} (TFSequenceSummary)"
        index = as_integers(f"{where} cls_index", index)
        axes, shape = len(hidden.shape), tuple(index.shape)
        if len(shape) == axes - 1 and shape[-1] in (1, None):
            index = index[..., 0]
        elif len(shape) != axes - 2:
            raise InputError(
                f"{where}: expected cls_index of {axes - 2} axes, or one more of size 1, for hidden states of {axes} "
                f"axes, got the shape {shape}"
            )
        length = shape_list(hidden)[-2]
        check_range(where, "cls_index", index, length)
        known = inside(index, length) if length is not None else ops.greater_equal(index, 0)
        place = ops.expand_dims(ops.expand_dims(ops.where(known, index, 0), -1), -1)
        picked = ops.take_along_axis(hidden, place, axis=-2)[..., 0, :]
        return ops.where(ops.expand_dims(known, -1), picked, ops.cast(float("nan"), picked.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return what makes the same layer again."""
        own = {"transformers_config": dict(self._fields), "initializer_range": self.initializer_range}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make the layer that `get_config` described."""
        config = dict(config)
        config["config"] = config.pop("transformers_config", None) or config.get("config")
        return super().from_config(config)
