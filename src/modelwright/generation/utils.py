"""The import path transformers.generation.utils of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.generation.mixin import GenerationMixin
    from modelwright.generation.outputs import (
        BeamSampleDecoderOnlyOutput,
        BeamSampleEncoderDecoderOutput,
        BeamSearchDecoderOnlyOutput,
        BeamSearchEncoderDecoderOutput,
        GenerateBeamDecoderOnlyOutput,
        GenerateBeamEncoderDecoderOutput,
        GenerateBeamOutput,
        GenerateDecoderOnlyOutput,
        GenerateEncoderDecoderOutput,
        GenerateNonBeamOutput,
        GenerateOutput,
        GreedySearchDecoderOnlyOutput,
        GreedySearchEncoderDecoderOutput,
        SampleDecoderOnlyOutput,
        SampleEncoderDecoderOutput,
    )

__all__ = [
    "BeamSampleDecoderOnlyOutput",
    "BeamSampleEncoderDecoderOutput",
    "BeamSearchDecoderOnlyOutput",
    "BeamSearchEncoderDecoderOutput",
    "GenerateBeamDecoderOnlyOutput",
    "GenerateBeamEncoderDecoderOutput",
    "GenerateBeamOutput",
    "GenerateDecoderOnlyOutput",
    "GenerateEncoderDecoderOutput",
    "GenerateNonBeamOutput",
    "GenerateOutput",
    "GenerationMixin",
    "GreedySearchDecoderOnlyOutput",
    "GreedySearchEncoderDecoderOutput",
    "SampleDecoderOnlyOutput",
    "SampleEncoderDecoderOutput",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
