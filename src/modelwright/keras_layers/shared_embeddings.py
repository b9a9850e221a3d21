"""TFSharedEmbeddings: one matrix that embeds tokens and scores them."""

from typing import Any

from modelwright.core.errors import InputError, check_choice
from modelwright.keras_layers.conv1d import check_size
from modelwright.keras_layers.initializers import get_initializer
from modelwright.keras_layers.keras_api import keras, ops
from modelwright.keras_layers.tensors import as_integers, check_range, inside


@keras.saving.register_keras_serializable(package="modelwright")
class TFSharedEmbeddings(keras.layers.Layer):
    """Token embeddings whose matrix, [vocab_size, hidden_size], also is the output layer.

    `initializer_range` is hidden_size ** -0.5 if it is not given. Further keywords go to `keras.layers.Layer`.
    Raises InputError for sizes that are none, an unknown mode, and ids that are no integers or out of range. In a
    compiled function, which cannot raise, an id out of range has an embedding of NaN.
    """

    built: bool

    def __init__(
        self, vocab_size: int, hidden_size: int, initializer_range: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = check_size("TFSharedEmbeddings vocab_size", vocab_size)
        self.hidden_size = check_size("TFSharedEmbeddings hidden_size", hidden_size)
        self.initializer_range = hidden_size**-0.5 if initializer_range is None else initializer_range
        self.initializer = get_initializer(self.initializer_range)

    def build(self, input_shape: Any = None) -> None:  # noqa: ARG002 - Keras's signature
        """Make the matrix, once."""
        if self.built:
            return
        self.weight = self.add_weight(
            shape=(self.vocab_size, self.hidden_size), initializer=self.initializer, name="weight"
        )
        self.built = True

    def call(self, inputs: Any, mode: str = "embedding") -> Any:
        """Embed ids, (...) -> (..., hidden_size), or score with mode "linear", the other way: -> (..., vocab_size)."""
        check_choice(f"{self.name} (TFSharedEmbeddings) mode", mode, ("embedding", "linear"))
        return self._embed(inputs) if mode == "embedding" else self._score(inputs)

    def _embed(self, ids: Any) -> Any:
        where = f"{self.name} (TFSharedEmbeddings)"
        ids = as_integers(f"{where} ids", ids)
        check_range(where, "id", ids, self.vocab_size)
        known = inside(ids, self.vocab_size)
        rows = ops.take(ops.convert_to_tensor(self.weight), ops.where(known, ids, 0), axis=0)
        return ops.where(ops.expand_dims(known, -1), rows, ops.cast(float("nan"), rows.dtype))

    def _score(self, hidden: Any) -> Any:
        if not hidden.shape or hidden.shape[-1] not in (self.hidden_size, None):
            shape = tuple(hidden.shape)
            raise InputError(
                f"{self.name} (TFSharedEmbeddings): expected inputs of shape (..., {self.hidden_size}) in mode linear, "
                f"got {shape}"
            )
        return ops.matmul(hidden, ops.transpose(self.weight))

    def get_config(self) -> dict[str, Any]:
        """Return what makes the same layer again."""
        own = {
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
        }
        return {**super().get_config(), **own}
