"""Why public names of transformers 4.x, within scope, are not here: patterns of "module.name", each with its reason."""

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
    r"models\.(prophetnet|encoder_decoder)\.(\w+\.)?(ProphetNet|EncoderDecoder)\w+": "the models are built in another change",
    r"models\.reformer\.(\w+\.)?ReformerFor\w+": "the heads are built in another change",
    r"models\.reformer\.Reformer(Attention|Layer)": "a part of a model that has another interface here",
    r"models\.\w+\.(\w+\.)?(BasicTokenizer|WordpieceTokenizer)": "the words of a text are split by other classes here",
    # Not so for the classes that users make: whole models, configs, tokenizers.
    r"models\.\w+\.(modeling|tokenization)_\w+\.(?!\w*(Model|For[A-Z]\w+|Config|Tokenizer(Fast)?)$)\w+": "a part of a model or a tokenizer that has another interface here",
}

# "name" or "name.method" -> parameters that ours neither takes nor refuses by a message of its own: Python's TypeError
# names them. Each with its reason.
PARAMETERS: dict[str, tuple[tuple[str, ...], str]] = {}
