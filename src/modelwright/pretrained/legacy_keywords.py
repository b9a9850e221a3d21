"""The keywords of 4.x's `from_pretrained` that load nothing: each is said once to do nothing, or refused with a reason.

A keyword with the value that it has by default in 4.x says nothing. The keywords about downloads are in
`modelwright.hub.download`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.core.logging import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True)
class NoEffect:
    """A keyword that is accepted, whatever its value, and why it does nothing; what it `asks` for is so anyway."""

    reason: str
    asks: bool = True


@dataclass(frozen=True)
class Refused:
    """A keyword of which only the `harmless` values are accepted, and what to do instead."""

    reason: str
    harmless: tuple[Any, ...] = (None, False)


_TF = "only PyTorch checkpoints are read; convert it once with a transformers 4.x that has {0} and save_pretrained"
_QUANTIZED = "quantized loading is not supported; load in a floating-point dtype, such as dtype='bfloat16'"
_TENSOR_PARALLEL = "tensor parallelism is not supported"

LEGACY: dict[str, NoEffect | Refused] = {
    "low_cpu_mem_usage": NoEffect("loading always uses as little memory as the model's class allows"),
    "_fast_init": NoEffect("what the checkpoint holds is never initialised first, if the class can be built without"),
    "offload_state_dict": NoEffect("the weights are read one by one, never all at once beside the model"),
    "trust_remote_code": NoEffect("a model class runs no code of the checkpoint", asks=False),
    "from_tf": Refused(_TF.format("TensorFlow")),
    "from_flax": Refused(_TF.format("Flax")),
    "gguf_file": Refused("GGUF files are not read", (None,)),
    "load_in_8bit": Refused(_QUANTIZED),
    "load_in_4bit": Refused(_QUANTIZED),
    "quantization_config": Refused(_QUANTIZED, (None,)),
    "use_flash_attention_2": Refused("choose the kernel by attn_implementation='flash_attention_2'"),
    "use_kernels": Refused("kernels of the hub are not supported"),
    "tp_plan": Refused(_TENSOR_PARALLEL, (None,)),
    "tp_size": Refused(_TENSOR_PARALLEL, (None,)),
    "device_mesh": Refused(_TENSOR_PARALLEL, (None,)),
    "distributed_config": Refused(_TENSOR_PARALLEL, (None,)),
    "weights_only": Refused(".bin files are never unpickled without restrictions", (None, True)),
}


def settle(where: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Deal with those of the `keywords` that `LEGACY` holds and return the others.

    Raises NotImplementedError with the reason for a refused one.
    """
    rest = {}
    for name, value in keywords.items():
        rule = LEGACY.get(name)
        if isinstance(rule, NoEffect):
            if value is not None and value is not rule.asks:
                logger.warning_once(f"{where}: {name}={value!r} changes nothing: {rule.reason}.")
        elif isinstance(rule, Refused):
            if not any(value is harmless or value == harmless for harmless in rule.harmless):
                raise NotImplementedError(f"{where}: {name}={value!r} is not possible: {rule.reason}.")
        else:
            rest[name] = value
    return rest
