"""Why public names of transformers 4.x, within scope, are not here: patterns of "module.name", each with its reason."""

# ruff: noqa: E501 - a table, in which a line is an entry

NAMES = {
    # Other frameworks and tasks.
    r".*\.(Flax|FLAX_)\w+|.*flax.*": "Flax is not supported",
    r".*\.(TF_|TF[A-Z])\w+|.*modeling_tf_.*|.*_tf\..*|modeling_tf_utils\..*|tf_utils\..*": "TensorFlow models are not "
    "supported; the Keras layers are",
    r".*\.\w*(Image|Audio|Video|Vision|Visual|Speech|Depth|Object|Keypoint|Document|Table|Semantic|Instance|Universal|"
    r"Mask(ed)?Generation|CTC|TimeSeries|Spectrogram|Waveform|Backbone|FeatureExtractor|FEATURE_EXTRACTOR|IMAGE|VIDEO|"
    r"PROCESSOR|Processor|ZeroShot)\w*": "only text",
    r".*\.AutoProcessor|models\.auto\.(feature|image|processing|video)\w*\..*": "only text",
    r"modeling_outputs\.(\w*(MoE|Moe|TS|XVector|Wav2Vec2|SemanticSegmenter|Depth)\w*|BaseModelOutputWithPooling\w+)": ""
    "no model of ours returns it",
    r".*\.(Onnx|ONNX)\w*|.*\.\w*OnnxConfig\w*": "the ONNX export has no config classes",
    r".*\.AutoModel(WithLMHead|ForTextEncoding)": "no model of ours is registered for it",
    # Data of upstream, its own documents and its own machinery.
    r".*\.\w*(_ARCHIVE_\w+|_DOCSTRING|_DOC|VOCAB_FILES_NAMES|PRETRAINED_\w+|_IMPORT_ERROR|_MIN_VERSION|_WARNING)": "a "
    "list or a text of upstream's own",
    r".*\.(load_tf_weights\w*|PT_\w+)": "only PyTorch checkpoints are read",
    r"models\.auto\..*|.*\.get_values": "models are registered through AutoModel.register; the tables behind are our own",
    r"utils\.import_utils\..*": "asks for a package that we do not use, or is upstream's import machinery",
    r"utils\.generic\..*": "a helper of upstream's own code",
    r"utils\.logging\.(EmptyTqdm|tqdm|\w*progress_bar\w*|warning_\w+|info_once|captureWarnings|log_levels|"
    r"get_log_levels_dict)": "loading shows no progress bar; the once-methods are on the logger",
    r"configuration_utils\.\w+": "a helper of upstream's own code",
    r"modeling_utils\.\w+": "a helper of upstream's own loading, which is not how we load",
    r"modeling_layers\.Generic\w+": "heads are classes of their own here",
    r"pytorch_utils\.\w+": "supports versions of torch that we do not, or devices that we do not test",
    r"tokenization_utils\w*\.\w+": "a constant, a type or a helper of upstream's own code",
    r"activations\.\w+": "activations are reached by their names: ACT2FN, get_activation",
    r"masking_utils\.\w+": "a constant or a helper of upstream's own code",
    r"modeling_rope_utils\.\w+": "the checks are reached by rope_config_validation",
    # Parts of generation that are not built.
    r".*\.(\w*Constraint\w*|BeamScorer|\w*SearchScorer)": "beam search has no scorer classes; constraints are not built",
    r".*\.\w*(Watermark|SynthID|BayesianDetector|ClassifierFreeGuidance|AlternatingCodebooks|Dia|Bark|Whisper)\w*": "not built",
    r".*\.(ForceTokensLogitsProcessor|LogitsWarper|top_k_top_p_filtering|AsyncTextIteratorStreamer|CompileConfig)": ""
    "removed in later 4.x, or not built",
    r"generation\.(configuration_utils|utils|stopping_criteria)\.\w+": "not built, or a helper of upstream's own code",
    r"cache_utils\.\w+": "dynamic, static and sliding caches are; quantized and offloaded ones are not built",
    r"data\.data_collator\.\w+": "not built: collators of other tasks, and those that are a function",
    # Models.
    r"models\.reformer\.(\w+\.)?ReformerFor\w+": "the heads are not built",
    r"models\.reformer\.Reformer(Attention|Layer)": "a part of a model that has another interface here",
    r"models\.\w+\.(\w+\.)?(BasicTokenizer|WordpieceTokenizer)": "the words of a text are split by other classes here",
    # Not so for the classes that users make: whole models, configs, tokenizers.
    r"models\.\w+\.(modeling|tokenization)_\w+\.(?!\w*(Model|For[A-Z]\w+|Config|Tokenizer(Fast)?)$)\w+": "a part of a model or a tokenizer that has another interface here",
}

# Patterns of "name.method.parameter" ("name..parameter" for a function): parameters of upstream that ours does not have,
# so that Python refuses them by name.
PARAMETERS = {
    r".*\.__init__\.(n_sequences|layer_class_to_replicate|offload\w+)": "is found by the object itself, or not built",
    r"(QDQ)?BertLayer\.forward\.past_key_value": "a layer gets the whole cache, as past_key_values",
    r"\w+\.get_mask_sizes\.cache_position": "takes the length of the query, as 5.x does",
    r"DataCollatorForSeq2Seq\.__call__\.return_tensors": "is given to the constructor",
    r"\w+\.(crop\.maximum_length|set_input_embeddings\.new_embeddings)": "given by position",
    r"\w+\.prepare_inputs_for_generation\.(decoder_input_ids|inputs_embeds|past_key_values|use_cache)": "part of the state that it is given",
    r"GenerationConfig\.(to_json_string\.ignore_metadata|validate\.(is_init|strict))": "only valid settings are kept",
    r"PreTrainedTokenizer(Base|Fast)\.tokenize\.(add_special_tokens|pair)": "tokenize is about one text",
    r"RepetitionPenaltyLogitsProcessor\.__init__\.prompt_ignore_length": "not built",
    r"StaticSlidingWindowLayer\.__init__\.max_cache_len": "the window is the length",
    r"get_activation\.\.activation_string": "given by position",
    r"is_accelerate_available\.\.min_version": "our packages have a lowest version",
    r"prepare_padding_mask\.\._slice": "private",
}

# Patterns of "name.method": public methods of upstream's classes that ours do not have.
METHODS = {
    r"BatchEncoding\.words|\w+\.(de)?parallelize|\w+\.default_chat_template": "out of date before 4.37, and removed later",
    r"\w*Cache\.\w+|\w+Layer\.\w+": "out of date, or a part of upstream's machinery of caches",
    r"DataCollator\w+\.((torch|numpy|tf)_\w+|create_rng|get_generator)": "the call does it, for PyTorch; no other framework",
    r"GenerationMixin\.\w+": "generate does it; the modes that it lacks are refused there",
    r"(GPT2Tokenizer\.bpe|\w+Tokenizer\w*\.(do_lower_case|decoder|get_spm_processor|unk_token_length|can_save_slow_tokenizer|"
    r"set_truncation_and_padding|clean_up_tokenization|convert_added_tokens|convert_tokens_to_string|save_chat_templates|"
    r"prepare_seq2seq_batch))": "out of date, on the concrete classes only, or a part of upstream's machinery",
    r"SpecialTokensMixin\.\w+": "on the tokenizers; sanitize_special_tokens is out of date",
    r"(PretrainedConfig|PreTrainedConfig|GenerationConfig)\.\w+": "no config of ours has sub-configs of images or sounds; "
    "a helper of upstream's own code, or not built",
    r"PreTrainedModel\.\w+|LlamaForCausalLM\.[gs]et_decoder": "a part of upstream's loading, kernels or parallelism, or not built",
    r"ProphetNetDecoder\.\w+": "parts of the masks and biases, which are functions here",
    r"StopStringCriteria\.clean_\w+|RepetitionPenalty\w+\.\w+": "a part of upstream's machinery",
}
