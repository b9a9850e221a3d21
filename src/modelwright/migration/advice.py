"""What a user has to change by hand after the imports: arguments that are refused here, and objects that must not meet."""

# Keywords of from_pretrained that raise here, and what to do instead.
REFUSED_ARGUMENTS = {
    "from_tf": "only PyTorch checkpoints are read; convert it once with a transformers 4.x",
    "from_flax": "only PyTorch checkpoints are read; convert it once with a transformers 4.x",
    "gguf_file": "GGUF files are not read",
    "load_in_8bit": "load in a floating-point dtype; for INT8 see `modelwright quantize`",
    "load_in_4bit": "load in a floating-point dtype, such as dtype='bfloat16'",
    "quantization_config": "load in a floating-point dtype; for INT8 see `modelwright quantize`",
    "use_flash_attention_2": "pass attn_implementation='flash_attention_2'",
    "use_kernels": "kernels of the hub are not supported",
    "tp_plan": "tensor parallelism is not supported",
    "tp_size": "tensor parallelism is not supported",
    "device_mesh": "tensor parallelism is not supported",
    "proxies": "set the environment variable HTTPS_PROXY",
}

# Names whose results differ from upstream's on purpose.
DIFFERENCES = {
    "ProphetNetForConditionalGeneration": "trains the paper's relative bias; transformers 4.27 and later scramble it: "
    "relative_bias_layout='transformers' in the config brings that back",
    "ProphetNetModel": "has the paper's relative bias; relative_bias_layout='transformers' is that of 4.27 and later",
    "ReformerModelWithLMHead": "never reseeds the process, and its bias has an effect",
}

# Kept callables that run a model, so they must not be given one of ours.
RUNS_MODELS = frozenset({"Trainer", "Seq2SeqTrainer", "pipeline"})
