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
_DOCSTRINGS = (
    "add_code_sample_docstrings",
    "add_end_docstrings",
    "add_start_docstrings",
    "add_start_docstrings_to_model_forward",
    "replace_return_docstrings",
)
_STRATEGIES = ("PaddingStrategy", "TensorType", "TruncationStrategy")
_QDQBERT = (
    "QDQBertForMaskedLM",
    "QDQBertForMultipleChoice",
    "QDQBertForNextSentencePrediction",
    "QDQBertForQuestionAnswering",
    "QDQBertForSequenceClassification",
    "QDQBertForTokenClassification",
    "QDQBertLMHeadModel",
    "QDQBertLayer",
    "QDQBertModel",
    "QDQBertPreTrainedModel",
)
_QUANT_LAYERS = ("QuantConv1D", "QuantConv1d", "QuantConv2d", "QuantLinear")
_DESCRIPTORS = (
    "QUANT_DESC_8BIT_CONV1D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONV3D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONVTRANSPOSE1D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONVTRANSPOSE2D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONVTRANSPOSE3D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW",
    "QUANT_DESC_8BIT_PER_TENSOR",
    "QUANT_DESC_UNSIGNED_8BIT_PER_TENSOR",
    "QuantDescriptor",
    "ScaledQuantDescriptor",
)
_LOGITS_PROCESSORS = (
    "HammingDiversityLogitsProcessor",
    "InfNanRemoveLogitsProcessor",
    "LogitNormalization",
    "LogitsProcessor",
    "LogitsProcessorList",
    "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor",
    "NoRepeatNGramLogitsProcessor",
    "RepetitionPenaltyLogitsProcessor",
)
_LOGITS_BIAS = (
    "NoBadWordsLogitsProcessor",
    "PrefixConstrainedLogitsProcessor",
    "SequenceBiasLogitsProcessor",
    "SuppressTokensAtBeginLogitsProcessor",
    "SuppressTokensLogitsProcessor",
)
_LOGITS_ENDS = ("ExponentialDecayLengthPenalty", "ForcedBOSTokenLogitsProcessor", "ForcedEOSTokenLogitsProcessor")
_LOGITS_SOURCE = ("EncoderNoRepeatNGramLogitsProcessor", "EncoderRepetitionPenaltyLogitsProcessor")
_LOGITS_WARPERS = (
    "EpsilonLogitsWarper",
    "EtaLogitsWarper",
    "MinPLogitsWarper",
    "TemperatureLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "TypicalLogitsWarper",
)
_STOPPING_CRITERIA = (
    "EosTokenCriteria",
    "MaxLengthCriteria",
    "MaxTimeCriteria",
    "StopStringCriteria",
    "StoppingCriteria",
    "StoppingCriteriaList",
)
_GENERATE_OUTPUTS = (
    "BeamSampleDecoderOnlyOutput",
    "BeamSampleEncoderDecoderOutput",
    "BeamSearchDecoderOnlyOutput",
    "BeamSearchEncoderDecoderOutput",
    "GenerateBeamDecoderOnlyOutput",
    "GenerateBeamEncoderDecoderOutput",
    "GenerateDecoderOnlyOutput",
    "GenerateEncoderDecoderOutput",
    "GreedySearchDecoderOnlyOutput",
    "GreedySearchEncoderDecoderOutput",
    "SampleDecoderOnlyOutput",
    "SampleEncoderDecoderOutput",
)
_STREAMERS = ("TextIteratorStreamer", "TextStreamer")
_AUTO_MODELS = (
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForMultipleChoice",
    "AutoModelForNextSentencePrediction",
    "AutoModelForPreTraining",
    "AutoModelForQuestionAnswering",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
)
_BERT: dict[str, tuple[str, ...]] = {
    "modelwright.models.bert.backbone": ("BertModel", "BertPreTrainedModel"),
    "modelwright.models.bert.configuration_bert": ("BertConfig",),
    "modelwright.models.bert.layers": ("BertLayer",),
    "modelwright.models.bert.lm_heads": (
        "BertForMaskedLM",
        "BertForNextSentencePrediction",
        "BertForPreTraining",
        "BertLMHeadModel",
    ),
    "modelwright.models.bert.task_heads": (
        "BertForMultipleChoice",
        "BertForQuestionAnswering",
        "BertForSequenceClassification",
        "BertForTokenClassification",
    ),
}
# What model files that derive from BERT import beside its models.
_BERT_PARTS: dict[str, tuple[str, ...]] = {
    "modelwright.models.bert.backbone": ("BertEncoder", "BertPooler"),
    "modelwright.models.bert.embeddings": ("BertEmbeddings",),
    "modelwright.models.bert.layers": (
        "BertAttention",
        "BertIntermediate",
        "BertOutput",
        "BertSelfAttention",
        "BertSelfOutput",
    ),
    "modelwright.models.bert.lm_heads": (
        "BertForPreTrainingOutput",
        "BertLMPredictionHead",
        "BertOnlyMLMHead",
        "BertOnlyNSPHead",
        "BertPreTrainingHeads",
        "BertPredictionHeadTransform",
    ),
}
_GPT2 = (
    "GPT2DoubleHeadsModel",
    "GPT2ForQuestionAnswering",
    "GPT2ForSequenceClassification",
    "GPT2ForTokenClassification",
    "GPT2LMHeadModel",
)
_GPT2_BASE = ("GPT2Model", "GPT2PreTrainedModel")
_LLAMA = (
    "LlamaForCausalLM",
    "LlamaForQuestionAnswering",
    "LlamaForSequenceClassification",
    "LlamaForTokenClassification",
    "LlamaModel",
    "LlamaPreTrainedModel",
)
_ENCODER_DECODER: dict[str, tuple[str, ...]] = {
    "modelwright.models.encoder_decoder.configuration_encoder_decoder": ("EncoderDecoderConfig",),
    "modelwright.models.encoder_decoder.modeling_encoder_decoder": ("EncoderDecoderModel",),
}
_T5 = {
    "modelwright.models.t5.backbone": ("T5EncoderModel", "T5Model"),
    "modelwright.models.t5.configuration_t5": ("T5Config",),
    "modelwright.models.t5.heads": (
        "T5ForQuestionAnswering",
        "T5ForSequenceClassification",
        "T5ForTokenClassification",
    ),
    "modelwright.models.t5.modeling_t5": ("T5ForConditionalGeneration",),
    "modelwright.models.t5.stack": ("T5PreTrainedModel",),
}
_PROPHETNET = {
    "modelwright.models.prophetnet.backbone": ("ProphetNetModel",),
    "modelwright.models.prophetnet.base": ("ProphetNetPreTrainedModel",),
    "modelwright.models.prophetnet.configuration_prophetnet": ("ProphetNetConfig",),
    "modelwright.models.prophetnet.decoder": ("ProphetNetDecoder",),
    "modelwright.models.prophetnet.encoder": ("ProphetNetEncoder",),
    "modelwright.models.prophetnet.modeling_prophetnet": (
        "ProphetNetForCausalLM",
        "ProphetNetForConditionalGeneration",
    ),
}
_PRUNING = ("find_pruneable_heads_and_indices", "prune_conv1d_layer", "prune_layer", "prune_linear_layer")
_POOLING = ("PoolerAnswerClass", "PoolerEndLogits", "PoolerStartLogits")
_SQUAD = ("SQuADHead", "SquadHeadOutput")
_KERAS_LOSSES = (
    "TFCausalLanguageModelingLoss",
    "TFMaskedLanguageModelingLoss",
    "TFMultipleChoiceLoss",
    "TFNextSentencePredictionLoss",
    "TFQuestionAnsweringLoss",
    "TFSequenceClassificationLoss",
    "TFTokenClassificationLoss",
)
# Home module -> names that 4.x has too.
_KERAS: dict[str, tuple[str, ...]] = {
    "modelwright.keras_layers.conv1d": ("TFConv1D",),
    "modelwright.keras_layers.initializers": ("get_initializer",),
    "modelwright.keras_layers.losses": _KERAS_LOSSES,
    "modelwright.keras_layers.sequence_summary": ("TFSequenceSummary",),
    "modelwright.keras_layers.serialization": ("keras_serializable",),
    "modelwright.keras_layers.shared_embeddings": ("TFSharedEmbeddings",),
    "modelwright.keras_layers.tensors": ("shape_list",),
}
_REFORMER = {
    "modelwright.models.reformer.attention_maps": ("dense_attentions",),
    "modelwright.models.reformer.backbone": ("ReformerModel", "ReformerPreTrainedModel"),
    "modelwright.models.reformer.configuration_reformer": ("ReformerConfig",),
    "modelwright.models.reformer.modeling_reformer": (
        "ReformerForMaskedLM",
        "ReformerForQuestionAnswering",
        "ReformerForSequenceClassification",
        "ReformerModelWithLMHead",
    ),
}

_MASKS = (
    "create_bidirectional_mask",
    "create_bidirectional_sliding_window_mask",
    "create_causal_mask",
    "create_chunked_causal_mask",
    "create_masks_for_generate",
    "create_recurrent_attention_mask",
    "create_sliding_window_causal_mask",
)
_CACHES = ("Cache", "DynamicCache", "EncoderDecoderCache", "StaticCache")
_CACHE_LAYERS = ("DynamicLayer", "DynamicSlidingWindowLayer", "StaticLayer", "StaticSlidingWindowLayer")
_COLLATORS = (
    "DataCollatorForLanguageModeling",
    "DataCollatorForSeq2Seq",
    "DataCollatorForTokenClassification",
    "DataCollatorForWholeWordMask",
    "DataCollatorWithPadding",
)

# Home module -> public names.
PUBLIC: dict[str, tuple[str, ...]] = {
    "modelwright.attention.cache_layers": _CACHE_LAYERS,
    "modelwright.attention.caches": _CACHES,
    "modelwright.attention.interface": ("AttentionInterface",),
    "modelwright.attention.mask_interface": ("AttentionMaskInterface",),
    "modelwright.attention.rope": ("ROPE_INIT_FUNCTIONS",),
    "modelwright.attention.rotary": ("dynamic_rope_update",),
    "modelwright.checkpoint.plan": ("LoadPlan",),
    "modelwright.checkpoint.report": ("LoadReport",),
    "modelwright.config.configuration": ("PreTrainedConfig", "PretrainedConfig"),
    "modelwright.core": ("logging",),
    "modelwright.core.docstrings": ("add_end_docstrings", "add_start_docstrings"),
    "modelwright.core.errors": (
        "CheckpointError",
        "CheckpointMismatchError",
        "ConfigError",
        "GatedRepoError",
        "HubError",
        "HubOfflineError",
        "InputError",
        "MissingPackageError",
        "ModelwrightError",
        "PlacementError",
        "RepoError",
        "RepoNotFoundError",
        "UnknownArgumentError",
    ),
    "modelwright.core.optional": _AVAILABLE,
    "modelwright.export.onnx": ("export_onnx",),
    "modelwright.export.runtime": ("OnnxModel",),
    "modelwright.export.session": ("make_session",),
    "modelwright.generation.configuration": ("GenerationConfig",),
    "modelwright.generation.logits_bias": _LOGITS_BIAS,
    "modelwright.generation.logits_ends": _LOGITS_ENDS,
    "modelwright.generation.logits_process": _LOGITS_PROCESSORS,
    "modelwright.generation.logits_source": _LOGITS_SOURCE,
    "modelwright.generation.logits_warpers": _LOGITS_WARPERS,
    "modelwright.generation.mixin": ("GenerationMixin",),
    "modelwright.generation.stopping_criteria": _STOPPING_CRITERIA,
    "modelwright.generation.streamers": _STREAMERS,
    "modelwright.hub.names": _FILE_NAMES,
    **_KERAS,
    "modelwright.models.auto.configuration_auto": ("AutoConfig",),
    "modelwright.models.auto.modeling_auto": _AUTO_MODELS,
    "modelwright.models.auto.tokenization_auto": ("AutoTokenizer",),
    **_BERT,
    **_ENCODER_DECODER,
    "modelwright.models.gpt2.backbone": _GPT2_BASE,
    "modelwright.models.gpt2.configuration_gpt2": ("GPT2Config",),
    "modelwright.models.gpt2.modeling_gpt2": _GPT2,
    "modelwright.models.llama.configuration_llama": ("LlamaConfig",),
    "modelwright.models.llama.modeling_llama": _LLAMA,
    "modelwright.models.bert.tokenization_bert": ("BertTokenizer",),
    "modelwright.models.bert.tokenization_bert_fast": ("BertTokenizerFast",),
    "modelwright.models.gpt2.tokenization_gpt2": ("GPT2Tokenizer",),
    "modelwright.models.gpt2.tokenization_gpt2_fast": ("GPT2TokenizerFast",),
    "modelwright.models.llama.tokenization_llama": ("LlamaTokenizer",),
    "modelwright.models.llama.tokenization_llama_fast": ("LlamaTokenizerFast",),
    **_PROPHETNET,
    "modelwright.models.prophetnet.tokenization_prophetnet": ("ProphetNetTokenizer",),
    "modelwright.models.qdqbert.configuration_qdqbert": ("QDQBertConfig",),
    "modelwright.models.qdqbert.modeling_qdqbert": _QDQBERT,
    **_REFORMER,
    "modelwright.models.reformer.tokenization_reformer": ("ReformerTokenizer",),
    "modelwright.models.reformer.tokenization_reformer_fast": ("ReformerTokenizerFast",),
    **_T5,
    "modelwright.models.t5.tokenization_t5": ("T5Tokenizer",),
    "modelwright.models.t5.tokenization_t5_fast": ("T5TokenizerFast",),
    "modelwright.nn.activations": ("ACT2FN",),
    "modelwright.nn.checkpointing": ("GradientCheckpointingLayer",),
    "modelwright.nn.chunking": ("apply_chunking_to_forward",),
    "modelwright.nn.conv1d": ("Conv1D",),
    "modelwright.nn.pooling": _POOLING,
    "modelwright.nn.pruning": ("prune_layer",),
    "modelwright.nn.sequence_summary": ("SequenceSummary",),
    "modelwright.outputs.base": ("ModelOutput",),
    "modelwright.outputs.model_outputs": _OUTPUTS,
    "modelwright.pretrained.modeling": ("PreTrainedModel",),
    "modelwright.pretrained.module_utils": ("ModuleUtilsMixin",),
    "modelwright.pretrained.squad_head": _SQUAD,
    "modelwright.tokenization.added_token": ("AddedToken",),
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
    "modelwright.cache_utils": {
        "modelwright.attention.cache_layers": _CACHE_LAYERS,
        "modelwright.attention.caches": _CACHES,
    },
    "modelwright.activations_tf": {"modelwright.keras_layers.activations": ("get_tf_activation",)},
    "modelwright.configuration_utils": {"modelwright.config.configuration": ("PreTrainedConfig", "PretrainedConfig")},
    "modelwright.file_utils": {
        "modelwright.core.docstrings": _DOCSTRINGS,
        "modelwright.core.optional": _AVAILABLE,
        "modelwright.hub.names": _FILE_NAMES,
        "modelwright.outputs.base": ("ModelOutput",),
        "modelwright.tokenization.strategies": _STRATEGIES,
    },
    "modelwright.generation": {
        "modelwright.generation.configuration": ("GenerationConfig",),
        "modelwright.generation.logits_bias": _LOGITS_BIAS,
        "modelwright.generation.logits_ends": _LOGITS_ENDS,
        "modelwright.generation.logits_process": _LOGITS_PROCESSORS,
        "modelwright.generation.logits_source": _LOGITS_SOURCE,
        "modelwright.generation.logits_warpers": _LOGITS_WARPERS,
        "modelwright.generation.mixin": ("GenerationMixin",),
        "modelwright.generation.outputs": _GENERATE_OUTPUTS,
        "modelwright.generation.stopping_criteria": _STOPPING_CRITERIA,
        "modelwright.generation.streamers": ("BaseStreamer", *_STREAMERS),
    },
    "modelwright.generation.configuration_utils": {"modelwright.generation.configuration": ("GenerationConfig",)},
    "modelwright.generation.utils": {
        "modelwright.generation.mixin": ("GenerationMixin",),
        "modelwright.generation.outputs": (
            *_GENERATE_OUTPUTS,
            "GenerateBeamOutput",
            "GenerateNonBeamOutput",
            "GenerateOutput",
        ),
    },
    "modelwright.masking_utils": {
        "modelwright.attention.mask_interface": (
            "ALL_MASK_ATTENTION_FUNCTIONS",
            "AttentionMaskInterface",
            "add_offsets_to_mask_function",
            "eager_mask",
            "flash_attention_mask",
            "flex_attention_mask",
            "prepare_padding_mask",
            "sdpa_mask",
        ),
        "modelwright.attention.mask_picture": ("AttentionMask",),
        "modelwright.attention.masks": _MASKS,
        "modelwright.attention.predicates": (
            "and_masks",
            "bidirectional_mask_function",
            "causal_mask_function",
            "chunked_causal_mask_function",
            "chunked_overlay",
            "find_packed_sequence_indices",
            "or_masks",
            "packed_sequence_mask_function",
            "padding_mask_function",
            "sliding_window_causal_mask_function",
            "sliding_window_overlay",
        ),
    },
    "modelwright.modeling_attn_mask_utils": {
        "modelwright.attention.legacy_masks": (
            "AttentionMaskConverter",
            "_create_4d_causal_attention_mask",
            "_prepare_4d_attention_mask",
            "_prepare_4d_attention_mask_for_sdpa",
            "_prepare_4d_causal_attention_mask",
            "_prepare_4d_causal_attention_mask_for_sdpa",
        )
    },
    "modelwright.modeling_layers": {"modelwright.nn.checkpointing": ("GradientCheckpointingLayer",)},
    "modelwright.modeling_outputs": {"modelwright.outputs.model_outputs": _OUTPUTS},
    "modelwright.modeling_rope_utils": {
        "modelwright.attention.rope": ("ROPE_INIT_FUNCTIONS",),
        "modelwright.attention.rope_validation": ("rope_config_validation",),
        "modelwright.attention.rotary": ("dynamic_rope_update",),
    },
    "modelwright.keras_layers": {
        **_KERAS,
        "modelwright.keras_layers.activations": ("get_tf_activation",),
        "modelwright.keras_layers.task_loss": ("TaskLoss",),
        "modelwright.keras_layers.torch_bridge": ("from_torch",),
    },
    "modelwright.modeling_tf_utils": _KERAS,
    "modelwright.modeling_utils": {
        "modelwright.attention.interface": ("ALL_ATTENTION_FUNCTIONS", "AttentionInterface"),
        "modelwright.nn.chunking": ("apply_chunking_to_forward",),
        "modelwright.nn.conv1d": ("Conv1D",),
        "modelwright.nn.pooling": _POOLING,
        "modelwright.nn.pruning": _PRUNING,
        "modelwright.nn.sequence_summary": ("SequenceSummary",),
        "modelwright.pretrained.modeling": ("PreTrainedModel",),
        "modelwright.pretrained.module_utils": ("ModuleUtilsMixin",),
        "modelwright.pretrained.squad_head": _SQUAD,
    },
    "modelwright.models.auto": {
        "modelwright.models.auto.configuration_auto": ("AutoConfig",),
        "modelwright.models.auto.modeling_auto": _AUTO_MODELS,
        "modelwright.models.auto.tokenization_auto": ("AutoTokenizer",),
    },
    "modelwright.models.bert": _BERT,
    "modelwright.models.bert.modeling_bert": {
        home: (*_BERT.get(home, ()), *_BERT_PARTS.get(home, ())) for home in {**_BERT, **_BERT_PARTS}
    },
    "modelwright.models.encoder_decoder": _ENCODER_DECODER,
    "modelwright.models.gpt2": {
        "modelwright.models.gpt2.backbone": _GPT2_BASE,
        "modelwright.models.gpt2.configuration_gpt2": ("GPT2Config",),
        "modelwright.models.gpt2.modeling_gpt2": _GPT2,
    },
    "modelwright.models.llama": {
        "modelwright.models.llama.configuration_llama": ("LlamaConfig",),
        "modelwright.models.llama.modeling_llama": _LLAMA,
    },
    "modelwright.models.prophetnet": _PROPHETNET,
    "modelwright.models.qdqbert": {
        "modelwright.models.qdqbert.configuration_qdqbert": ("QDQBertConfig",),
        "modelwright.models.qdqbert.modeling_qdqbert": _QDQBERT,
    },
    "modelwright.models.reformer": _REFORMER,
    "modelwright.models.t5": _T5,
    "modelwright.pytorch_utils": {
        "modelwright.nn.chunking": ("apply_chunking_to_forward",),
        "modelwright.nn.conv1d": ("Conv1D",),
        "modelwright.nn.pruning": _PRUNING,
    },
    "modelwright.quantization": {
        "modelwright.quantization.descriptor": ("QuantDescriptor",),
        "modelwright.quantization.fake_quant": ("fake_tensor_quant",),
        "modelwright.quantization.int8_linear": ("Int8Linear",),
        "modelwright.quantization.int8_model": ("to_int8",),
        "modelwright.quantization.layers": _QUANT_LAYERS,
        "modelwright.quantization.quantizer": ("TensorQuantizer",),
        "modelwright.quantization.recipe": ("Recipe",),
        "modelwright.quantization.swapping": ("swap",),
        "modelwright.quantization.switches": (
            "calibrating",
            "load_ranges",
            "quantization_disabled",
            "quantizers_of",
            "switches_restored",
        ),
        "modelwright.quantization.weight_calibration": ("calibrate_weights",),
    },
    "modelwright.quantization.calib": {
        "modelwright.quantization.calibrators": ("HistogramCalibrator", "MaxCalibrator"),
        "modelwright.quantization.weight_calibration": ("calibrate_weights",),
    },
    "modelwright.quantization.nn": {
        "modelwright.quantization.layers": (*_QUANT_LAYERS, "Conv1d", "Conv2d", "Linear"),
        "modelwright.quantization.learned_range": ("Clip",),
        "modelwright.quantization.quantizer": ("TensorQuantizer",),
    },
    "modelwright.quantization.nn.modules.tensor_quantizer": {
        "modelwright.quantization.quantizer": ("TensorQuantizer",),
    },
    "modelwright.quantization.quant_modules": {
        "modelwright.quantization.torch_nn_patch": ("deactivate", "initialize"),
    },
    "modelwright.quantization.tensor_quant": {
        "modelwright.quantization.descriptor": _DESCRIPTORS,
        "modelwright.quantization.fake_quant": (
            "fake_affine_tensor_quant",
            "fake_tensor_quant",
            "legacy_fake_tensor_quant",
            "tensor_quant",
        ),
    },
    "modelwright.tf_utils": {"modelwright.keras_layers.tensors": ("shape_list",)},
    "modelwright.tokenization_utils": {
        "modelwright.tokenization.added_token": ("AddedToken",),
        "modelwright.tokenization.batch_encoding": ("BatchEncoding",),
        "modelwright.tokenization.python_tokenizer": ("PreTrainedTokenizer",),
        "modelwright.tokenization.strategies": _STRATEGIES,
    },
    "modelwright.tokenization_utils_fast": {
        "modelwright.tokenization.added_token": ("AddedToken",),
        "modelwright.tokenization.fast_tokenizer": ("PreTrainedTokenizerFast",),
    },
    "modelwright.tokenization_utils_base": {
        "modelwright.tokenization.added_token": ("AddedToken",),
        "modelwright.tokenization.alignment": ("CharSpan", "TokenSpan"),
        "modelwright.tokenization.base": ("PreTrainedTokenizerBase",),
        "modelwright.tokenization.batch_encoding": ("BatchEncoding",),
        "modelwright.tokenization.special_tokens": ("SpecialTokensMixin",),
        "modelwright.tokenization.strategies": _STRATEGIES,
    },
    "modelwright.utils": {
        "modelwright.core.docstrings": _DOCSTRINGS,
        "modelwright.core.optional": _AVAILABLE,
        "modelwright.hub.names": _FILE_NAMES,
        "modelwright.hub.publish": ("PushToHubMixin",),
        "modelwright.outputs.base": ("ModelOutput",),
        "modelwright.tokenization.json_schema": ("get_json_schema",),
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
            "add_handler",
            "disable_default_handler",
            "disable_propagation",
            "enable_default_handler",
            "enable_explicit_format",
            "enable_propagation",
            "get_logger",
            "get_verbosity",
            "remove_handler",
            "reset_format",
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
