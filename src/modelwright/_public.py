"""The name table: which module is the home of each public name, and which doors also serve it. Pure data.

`PUBLIC` feeds the root (`modelwright.X`, looked up lazily) and `__init__.pyi`. `DOORS` feeds the generated files at the
paths that code for transformers 4.x imports from. A name enters with its first real implementation. After a change run
`make doors`.
"""

from functools import cache

_OUTPUTS = (
    "BaseModelOutput",
    "BaseModelOutputWithCrossAttentions",
    "BaseModelOutputWithNoAttention",
    "BaseModelOutputWithPast",
    "BaseModelOutputWithPastAndCrossAttentions",
    "BaseModelOutputWithPooling",
    "BaseModelOutputWithPoolingAndCrossAttentions",
    "CausalLMOutput",
    "CausalLMOutputWithCrossAttentions",
    "CausalLMOutputWithPast",
    "MaskedLMOutput",
    "MultipleChoiceModelOutput",
    "NextSentencePredictorOutput",
    "QuestionAnsweringModelOutput",
    "Seq2SeqLMOutput",
    "Seq2SeqModelOutput",
    "Seq2SeqQuestionAnsweringModelOutput",
    "Seq2SeqSequenceClassifierOutput",
    "SequenceClassifierOutput",
    "SequenceClassifierOutputWithPast",
    "TokenClassifierOutput",
)
_AVAILABLE = (
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
)
_FILE_NAMES = (
    "CONFIG_NAME",
    "GENERATION_CONFIG_NAME",
    "SAFE_WEIGHTS_INDEX_NAME",
    "SAFE_WEIGHTS_NAME",
    "WEIGHTS_INDEX_NAME",
    "WEIGHTS_NAME",
)
_STRATEGIES = ("PaddingStrategy", "TensorType", "TruncationStrategy")
_LOGITS_PROCESSORS = (
    "LogitsProcessor",
    "LogitsProcessorList",
    "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor",
    "NoRepeatNGramLogitsProcessor",
    "RepetitionPenaltyLogitsProcessor",
)
_LOGITS_WARPERS = ("MinPLogitsWarper", "TemperatureLogitsWarper", "TopKLogitsWarper", "TopPLogitsWarper")
_STOPPING_CRITERIA = (
    "EosTokenCriteria",
    "MaxLengthCriteria",
    "MaxTimeCriteria",
    "StopStringCriteria",
    "StoppingCriteria",
    "StoppingCriteriaList",
)
_STREAMERS = ("TextIteratorStreamer", "TextStreamer")
_REFORMER = ("ReformerModel", "ReformerModelWithLMHead", "ReformerPreTrainedModel")

_COLLATORS = (
    "DataCollatorForLanguageModeling",
    "DataCollatorForSeq2Seq",
    "DataCollatorForTokenClassification",
    "DataCollatorForWholeWordMask",
    "DataCollatorWithPadding",
)

# Home module -> public names.
PUBLIC: dict[str, tuple[str, ...]] = {
    "modelwright.checkpoint.plan": ("LoadPlan",),
    "modelwright.checkpoint.report": ("LoadReport",),
    "modelwright.config.configuration": ("PreTrainedConfig", "PretrainedConfig"),
    "modelwright.core": ("logging",),
    "modelwright.core.errors": (
        "CheckpointError",
        "CheckpointMismatchError",
        "ConfigError",
        "InputError",
        "MissingPackageError",
        "ModelwrightError",
        "RepoError",
        "UnknownArgumentError",
    ),
    "modelwright.core.optional": _AVAILABLE,
    "modelwright.generation.configuration": ("GenerationConfig",),
    "modelwright.generation.logits_process": _LOGITS_PROCESSORS,
    "modelwright.generation.logits_warpers": _LOGITS_WARPERS,
    "modelwright.generation.mixin": ("GenerationMixin",),
    "modelwright.generation.stopping_criteria": _STOPPING_CRITERIA,
    "modelwright.generation.streamers": _STREAMERS,
    "modelwright.hub.names": _FILE_NAMES,
    "modelwright.models.auto.configuration_auto": ("AutoConfig",),
    "modelwright.models.auto.modeling_auto": ("AutoModel", "AutoModelForCausalLM"),
    "modelwright.models.auto.tokenization_auto": ("AutoTokenizer",),
    "modelwright.models.bert.tokenization_bert": ("BertTokenizer",),
    "modelwright.models.bert.tokenization_bert_fast": ("BertTokenizerFast",),
    "modelwright.models.gpt2.tokenization_gpt2": ("GPT2Tokenizer",),
    "modelwright.models.gpt2.tokenization_gpt2_fast": ("GPT2TokenizerFast",),
    "modelwright.models.llama.tokenization_llama": ("LlamaTokenizer",),
    "modelwright.models.llama.tokenization_llama_fast": ("LlamaTokenizerFast",),
    "modelwright.models.prophetnet.tokenization_prophetnet": ("ProphetNetTokenizer",),
    "modelwright.models.reformer.configuration_reformer": ("ReformerConfig",),
    "modelwright.models.reformer.modeling_reformer": _REFORMER,
    "modelwright.models.reformer.tokenization_reformer": ("ReformerTokenizer",),
    "modelwright.models.reformer.tokenization_reformer_fast": ("ReformerTokenizerFast",),
    "modelwright.models.t5.tokenization_t5": ("T5Tokenizer",),
    "modelwright.models.t5.tokenization_t5_fast": ("T5TokenizerFast",),
    "modelwright.nn.activations": ("ACT2FN",),
    "modelwright.nn.chunking": ("apply_chunking_to_forward",),
    "modelwright.outputs.base": ("ModelOutput",),
    "modelwright.outputs.model_outputs": _OUTPUTS,
    "modelwright.pretrained.modeling": ("PreTrainedModel",),
    "modelwright.pretrained.module_utils": ("ModuleUtilsMixin",),
    "modelwright.tokenization.alignment": ("CharSpan", "TokenSpan"),
    "modelwright.tokenization.base": ("PreTrainedTokenizerBase",),
    "modelwright.tokenization.batch_encoding": ("BatchEncoding",),
    "modelwright.tokenization.byte_tokenizer": ("ByteTokenizer",),
    "modelwright.tokenization.fast_tokenizer": ("PreTrainedTokenizerFast",),
    "modelwright.tokenization.python_tokenizer": ("PreTrainedTokenizer",),
    "modelwright.tokenization.special_tokens": ("SpecialTokensMixin",),
    "modelwright.tokenization.strategies": _STRATEGIES,
    "modelwright.training.collators": _COLLATORS,
}

# Door module -> home module -> names.
DOORS: dict[str, dict[str, tuple[str, ...]]] = {
    "modelwright.activations": {"modelwright.nn.activations": ("ACT2FN", "get_activation")},
    "modelwright.configuration_utils": {"modelwright.config.configuration": ("PreTrainedConfig", "PretrainedConfig")},
    "modelwright.file_utils": {
        "modelwright.core.optional": _AVAILABLE,
        "modelwright.hub.names": _FILE_NAMES,
        "modelwright.outputs.base": ("ModelOutput",),
        "modelwright.tokenization.strategies": _STRATEGIES,
    },
    "modelwright.generation": {
        "modelwright.generation.configuration": ("GenerationConfig",),
        "modelwright.generation.logits_process": _LOGITS_PROCESSORS,
        "modelwright.generation.logits_warpers": _LOGITS_WARPERS,
        "modelwright.generation.mixin": ("GenerationMixin",),
        "modelwright.generation.outputs": ("GenerateDecoderOnlyOutput",),
        "modelwright.generation.stopping_criteria": _STOPPING_CRITERIA,
        "modelwright.generation.streamers": ("BaseStreamer", *_STREAMERS),
    },
    "modelwright.generation.configuration_utils": {"modelwright.generation.configuration": ("GenerationConfig",)},
    "modelwright.generation.utils": {
        "modelwright.generation.mixin": ("GenerationMixin",),
        "modelwright.generation.outputs": ("GenerateDecoderOnlyOutput",),
    },
    "modelwright.modeling_outputs": {"modelwright.outputs.model_outputs": _OUTPUTS},
    "modelwright.modeling_utils": {
        "modelwright.nn.chunking": ("apply_chunking_to_forward",),
        "modelwright.pretrained.modeling": ("PreTrainedModel",),
        "modelwright.pretrained.module_utils": ("ModuleUtilsMixin",),
    },
    "modelwright.models.auto": {
        "modelwright.models.auto.configuration_auto": ("AutoConfig",),
        "modelwright.models.auto.modeling_auto": ("AutoModel", "AutoModelForCausalLM"),
        "modelwright.models.auto.tokenization_auto": ("AutoTokenizer",),
    },
    "modelwright.models.reformer": {
        "modelwright.models.reformer.configuration_reformer": ("ReformerConfig",),
        "modelwright.models.reformer.modeling_reformer": _REFORMER,
    },
    "modelwright.pytorch_utils": {"modelwright.nn.chunking": ("apply_chunking_to_forward",)},
    "modelwright.tokenization_utils": {
        "modelwright.tokenization.batch_encoding": ("BatchEncoding",),
        "modelwright.tokenization.python_tokenizer": ("PreTrainedTokenizer",),
        "modelwright.tokenization.strategies": _STRATEGIES,
    },
    "modelwright.tokenization_utils_fast": {
        "modelwright.tokenization.fast_tokenizer": ("PreTrainedTokenizerFast",),
    },
    "modelwright.tokenization_utils_base": {
        "modelwright.tokenization.alignment": ("CharSpan", "TokenSpan"),
        "modelwright.tokenization.base": ("PreTrainedTokenizerBase",),
        "modelwright.tokenization.batch_encoding": ("BatchEncoding",),
        "modelwright.tokenization.special_tokens": ("SpecialTokensMixin",),
        "modelwright.tokenization.strategies": _STRATEGIES,
    },
    "modelwright.utils": {
        "modelwright.core.optional": _AVAILABLE,
        "modelwright.hub.names": _FILE_NAMES,
        "modelwright.outputs.base": ("ModelOutput",),
        "modelwright.tokenization.strategies": _STRATEGIES,
        "modelwright.utils": ("logging",),
    },
    "modelwright.utils.generic": {
        "modelwright.outputs.base": ("ModelOutput",),
        "modelwright.tokenization.strategies": _STRATEGIES,
    },
    "modelwright.utils.import_utils": {"modelwright.core.optional": _AVAILABLE},
    "modelwright.utils.logging": {
        "modelwright.core.logging": (
            "CRITICAL",
            "DEBUG",
            "ERROR",
            "FATAL",
            "INFO",
            "NOTSET",
            "WARN",
            "WARNING",
            "get_logger",
            "get_verbosity",
            "set_verbosity",
            "set_verbosity_debug",
            "set_verbosity_error",
            "set_verbosity_info",
            "set_verbosity_warning",
        )
    },
}


@cache
def _homes() -> dict[str, str]:
    return {name: home for home, names in PUBLIC.items() for name in names}


def find(name: str) -> str | None:
    """Return the home module of a public name, or None if no name of the table is spelled so."""
    return _homes().get(name)


def names() -> list[str]:
    """Return all public names, sorted."""
    return sorted(_homes())


def submodules(package: str) -> frozenset[str]:
    """Return the names of the rooms and doors directly below `package` that the table knows."""
    prefix = package + "."
    return frozenset(
        module.removeprefix(prefix).split(".")[0] for module in (*PUBLIC, *DOORS) if module.startswith(prefix)
    )
