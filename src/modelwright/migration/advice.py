"""What is left to change by hand after the imports: arguments that are refused, and objects that must not meet."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Refused:
    """A keyword that `from_pretrained` refuses here, but for the harmless `values`, and what to do instead."""

    reason: str
    values: tuple[object, ...] = (None, False)


_TF = "only PyTorch checkpoints are read; convert it once with a transformers 4.x"
_QUANTIZED = "load in a floating-point dtype, such as dtype='bfloat16'; for INT8 see modelwright.quantization"
_PARALLEL = "tensor parallelism is not supported"

# Keywords of from_pretrained that raise here. A test compares them with those that do.
REFUSED_ARGUMENTS = {
    "from_tf": Refused(_TF),
    "from_flax": Refused(_TF),
    "gguf_file": Refused("GGUF files are not read", (None,)),
    "load_in_8bit": Refused(_QUANTIZED),
    "load_in_4bit": Refused(_QUANTIZED),
    "quantization_config": Refused(_QUANTIZED, (None,)),
    "use_flash_attention_2": Refused("pass attn_implementation='flash_attention_2'"),
    "use_kernels": Refused("kernels of the hub are not supported"),
    "tp_plan": Refused(_PARALLEL, (None,)),
    "tp_size": Refused(_PARALLEL, (None,)),
    "device_mesh": Refused(_PARALLEL, (None,)),
    "distributed_config": Refused(_PARALLEL, (None,)),
    "weights_only": Refused(".bin files are never unpickled without restrictions; leave it out", (None, True)),
    "proxies": Refused("set the environment variables HTTPS_PROXY and HTTP_PROXY", (None,)),
}

_PROPHETNET = (
    "has the paper's relative bias, which transformers 4.27 and later scramble; for a checkpoint trained by those, "
    "set relative_bias_layout='transformers' in its config"
)
# Names whose results differ from upstream's on purpose.
DIFFERENCES = {
    **dict.fromkeys(("ProphetNetForConditionalGeneration", "ProphetNetForCausalLM", "ProphetNetModel"), _PROPHETNET),
    "ReformerModelWithLMHead": "never reseeds the process, and the bias of its head has an effect",
}

_MEETS = "stays with transformers; what it is given must not be a model or a tokenizer of modelwright"
# Kept callables that run a model, so they must not be given one of ours.
RUNS_MODELS = {"Trainer": _MEETS, "Seq2SeqTrainer": _MEETS, "pipeline": _MEETS}


def is_model(name: str) -> bool:
    """Tell whether a public name is that of a model class."""
    return name.endswith(("Model", "HeadModel", "WithLMHead")) or "For" in name.removeprefix("DataCollatorFor")
