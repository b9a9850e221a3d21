"""An encoder and a decoder of any two families as one model (Rothe, Narayan and Severyn 2020, arXiv 1907.12461).

`parts` makes the two models and checks that they fit each other; `modeling_encoder_decoder` runs them.
"""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.models.encoder_decoder.configuration_encoder_decoder import EncoderDecoderConfig
    from modelwright.models.encoder_decoder.modeling_encoder_decoder import EncoderDecoderModel

__all__ = [
    "EncoderDecoderConfig",
    "EncoderDecoderModel",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
