"""The methods of a model that are about its embeddings: which they are, their ties, their size."""

from typing import Any, cast

from torch import nn

from modelwright.pretrained import resizing, tying


class EmbeddingsMixin:
    """Access to a model's token embeddings and to the layer that scores the vocabulary.

    A base model defines `get_input_embeddings` and `set_input_embeddings`, a model with a language-model head
    `get_output_embeddings` and `set_output_embeddings`; models around a base model hand on to it.
    """

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that maps token ids to hidden states; raise NotImplementedError if there is none."""
        embeddings: nn.Module = self._other_base("get").get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the input embeddings; call `tie_weights()` after it. Raises NotImplementedError if there are none."""
        self._other_base("set").set_input_embeddings(value)

    def _other_base(self, verb: str) -> Any:
        base: Any = cast(Any, self).base_model
        if base is self or not hasattr(base, f"{verb}_input_embeddings"):
            raise NotImplementedError(
                f"{type(self).__name__} does not say where its input embeddings are: define {verb}_input_embeddings"
            )
        return base

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the module that maps hidden states to vocabulary scores, or None for a model without one."""
        return None

    def set_output_embeddings(self, new_embeddings: Any) -> None:
        """Replace the module that scores the vocabulary; call `tie_weights()` after it.

        Raises NotImplementedError for a model without one.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no output embeddings to replace: define set_output_embeddings"
        )

    def _output_bias(self) -> nn.Parameter | None:
        """Return the bias of the vocabulary scores, None if there is none; overridden where it is a parameter apart."""
        return cast("nn.Parameter | None", getattr(self.get_output_embeddings(), "bias", None))

    def tie_weights(self) -> None:
        """Make tied parameters one again, as after replacing embeddings; see `modelwright.pretrained.tying`."""
        tying.tie(self)

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Give the model a vocabulary of `new_num_tokens` and return its token embeddings, the same module as before.

        Rows are cut from the end or appended there; the head, its bias and the configs follow, ties hold. Dtype, device
        and what is trainable stay. An optimizer that was made before must be made again.

        new_num_tokens: None keeps the size (without a multiple, nothing is done at all).
        pad_to_multiple_of: round the size up, which makes some devices faster.
        mean_resizing: draw new rows closely around the mean of the old ones, so that new tokens disturb the scores of
            the old ones little; False initialises them as in a new model.

        Raises InputError for sizes that are no whole numbers and, also a TypeError, for embeddings of another class.
        """
        return resizing.resize_token_embeddings(self, new_num_tokens, pad_to_multiple_of, mean_resizing)
