"""`to_bettertransformer` and its way back: encoders that spend nothing on padding.

In 4.x these hand the model to the package optimum, for fused encoder layers. torch's fused kernels are the default
here; what is left to gain is the padding, see `modelwright.attention.packing`.
"""

from typing import Self, cast

from torch import nn

from modelwright.attention.packing import Unpaddable
from modelwright.core.errors import InputError


class UnpaddingMixin:
    """Switches the encoders in a model between padded and unpadded; parameters and their names stay the same."""

    @property
    def is_bettertransformer(self) -> bool:
        """Whether an encoder of the model runs unpadded."""
        return any(encoder.unpadded for encoder in _encoders(self))

    def to_bettertransformer(self) -> Self:
        """Let the encoders of the model run on the real tokens only, and return the model.

        Outputs are the same where `attention_mask` (B, T) is 1 and zeros elsewhere. A call that cannot run unpadded
        (attentions are asked for, the mask is a ready one, positions are relative to keys) runs as before. While
        converted the model cannot be saved. Raises NotImplementedError for a family whose encoder cannot do it.
        """
        encoders = _encoders(self)
        if not encoders:
            name = type(self).__name__
            raise NotImplementedError(
                f"{name}.to_bettertransformer: {name} has no encoder that runs unpadded; those of BERT, ProphetNet and "
                "T5 do"
            )
        for encoder in encoders:
            encoder.unpadded = True
        return self

    def reverse_bettertransformer(self) -> Self:
        """Undo `to_bettertransformer`, and return the model; it can be saved again."""
        for encoder in _encoders(self):
            encoder.unpadded = False
        return self


def check_can_be_saved(where: str, model: UnpaddingMixin) -> None:
    """Raise InputError if an encoder of the model runs unpadded."""
    if model.is_bettertransformer:
        raise InputError(
            f"{where}: the model is converted by to_bettertransformer(); call reverse_bettertransformer() before saving"
        )


def _encoders(model: UnpaddingMixin) -> list[Unpaddable]:
    modules = cast(nn.Module, model).modules()
    return [module for module in modules if isinstance(module, Unpaddable) and module.can_unpad]
