"""ProphetNet (Qi et al. 2020, arXiv 2001.04063): a decoder whose streams predict the next tokens ahead, not one.

`streams` says who sees whom, `ngram_kernel` computes it, `ngram_attention` and `layers` are the modules, `encoder` and
`decoder` put them in a row, `backbone` makes a model of both and `modeling_prophetnet` puts the head on.
"""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.models.prophetnet.backbone import ProphetNetModel
    from modelwright.models.prophetnet.base import ProphetNetPreTrainedModel
    from modelwright.models.prophetnet.configuration_prophetnet import ProphetNetConfig
    from modelwright.models.prophetnet.decoder import ProphetNetDecoder
    from modelwright.models.prophetnet.encoder import ProphetNetEncoder
    from modelwright.models.prophetnet.modeling_prophetnet import (
        ProphetNetForCausalLM,
        ProphetNetForConditionalGeneration,
    )

__all__ = [
    "ProphetNetConfig",
    "ProphetNetDecoder",
    "ProphetNetEncoder",
    "ProphetNetForCausalLM",
    "ProphetNetForConditionalGeneration",
    "ProphetNetModel",
    "ProphetNetPreTrainedModel",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
