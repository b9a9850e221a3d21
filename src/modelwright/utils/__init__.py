"""The import path transformers.utils of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.core.docstrings import (
        add_code_sample_docstrings,
        add_end_docstrings,
        add_start_docstrings,
        add_start_docstrings_to_model_forward,
        replace_return_docstrings,
    )
    from modelwright.core.optional import (
        is_accelerate_available,
        is_flax_available,
        is_keras_available,
        is_matplotlib_available,
        is_onnx_available,
        is_onnxruntime_available,
        is_peft_available,
        is_psutil_available,
        is_safetensors_available,
        is_sentencepiece_available,
        is_tf_available,
        is_tokenizers_available,
        is_torch_available,
    )
    from modelwright.hub.names import (
        CONFIG_NAME,
        GENERATION_CONFIG_NAME,
        SAFE_WEIGHTS_INDEX_NAME,
        SAFE_WEIGHTS_NAME,
        WEIGHTS_INDEX_NAME,
        WEIGHTS_NAME,
    )
    from modelwright.hub.publish import PushToHubMixin
    from modelwright.outputs.base import ModelOutput
    from modelwright.tokenization.json_schema import get_json_schema
    from modelwright.tokenization.strategies import PaddingStrategy, TensorType, TruncationStrategy
    from modelwright.utils import logging

__all__ = [
    "CONFIG_NAME",
    "GENERATION_CONFIG_NAME",
    "SAFE_WEIGHTS_INDEX_NAME",
    "SAFE_WEIGHTS_NAME",
    "WEIGHTS_INDEX_NAME",
    "WEIGHTS_NAME",
    "ModelOutput",
    "PaddingStrategy",
    "PushToHubMixin",
    "TensorType",
    "TruncationStrategy",
    "add_code_sample_docstrings",
    "add_end_docstrings",
    "add_start_docstrings",
    "add_start_docstrings_to_model_forward",
    "get_json_schema",
    "is_accelerate_available",
    "is_flax_available",
    "is_keras_available",
    "is_matplotlib_available",
    "is_onnx_available",
    "is_onnxruntime_available",
    "is_peft_available",
    "is_psutil_available",
    "is_safetensors_available",
    "is_sentencepiece_available",
    "is_tf_available",
    "is_tokenizers_available",
    "is_torch_available",
    "logging",
    "replace_return_docstrings",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
