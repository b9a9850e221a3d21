# Made by tools/make_doors.py from _public.py; change the table, not this file.

from modelwright import activations as activations
from modelwright import activations_tf as activations_tf
from modelwright import attention as attention
from modelwright import cache_utils as cache_utils
from modelwright import checkpoint as checkpoint
from modelwright import config as config
from modelwright import configuration_utils as configuration_utils
from modelwright import core as core
from modelwright import export as export
from modelwright import file_utils as file_utils
from modelwright import generation as generation
from modelwright import hub as hub
from modelwright import keras_layers as keras_layers
from modelwright import masking_utils as masking_utils
from modelwright import modeling_attn_mask_utils as modeling_attn_mask_utils
from modelwright import modeling_layers as modeling_layers
from modelwright import modeling_outputs as modeling_outputs
from modelwright import modeling_rope_utils as modeling_rope_utils
from modelwright import modeling_tf_utils as modeling_tf_utils
from modelwright import modeling_utils as modeling_utils
from modelwright import models as models
from modelwright import nn as nn
from modelwright import outputs as outputs
from modelwright import pretrained as pretrained
from modelwright import pytorch_utils as pytorch_utils
from modelwright import quantization as quantization
from modelwright import tf_utils as tf_utils
from modelwright import tokenization as tokenization
from modelwright import tokenization_utils as tokenization_utils
from modelwright import tokenization_utils_base as tokenization_utils_base
from modelwright import tokenization_utils_fast as tokenization_utils_fast
from modelwright import training as training
from modelwright import utils as utils
from modelwright.attention.cache_layers import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    StaticLayer,
    StaticSlidingWindowLayer,
)
from modelwright.attention.caches import Cache, DynamicCache, EncoderDecoderCache, StaticCache
from modelwright.attention.interface import AttentionInterface
from modelwright.attention.mask_interface import AttentionMaskInterface
from modelwright.attention.rope import ROPE_INIT_FUNCTIONS
from modelwright.attention.rotary import dynamic_rope_update
from modelwright.checkpoint.plan import LoadPlan
from modelwright.checkpoint.report import LoadReport
from modelwright.config.configuration import PreTrainedConfig, PretrainedConfig
from modelwright.core import logging
from modelwright.core.docstrings import add_end_docstrings, add_start_docstrings
from modelwright.core.errors import (
    CheckpointError,
    CheckpointMismatchError,
    ConfigError,
    GatedRepoError,
    HubError,
    HubOfflineError,
    InputError,
    MissingPackageError,
    ModelwrightError,
    PlacementError,
    RepoError,
    RepoNotFoundError,
    UnknownArgumentError,
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
from modelwright.export.onnx import export_onnx
from modelwright.export.runtime import OnnxModel
from modelwright.export.session import make_session
from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.logits_bias import (
    NoBadWordsLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
from modelwright.generation.logits_ends import (
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
)
from modelwright.generation.logits_process import (
    HammingDiversityLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)
from modelwright.generation.logits_source import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
)
from modelwright.generation.logits_warpers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
from modelwright.generation.mixin import GenerationMixin
from modelwright.generation.stopping_criteria import (
    EosTokenCriteria,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)
from modelwright.generation.streamers import TextIteratorStreamer, TextStreamer
from modelwright.hub.names import (
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)
from modelwright.keras_layers.conv1d import TFConv1D
from modelwright.keras_layers.initializers import get_initializer
from modelwright.keras_layers.losses import (
    TFCausalLanguageModelingLoss,
    TFMaskedLanguageModelingLoss,
    TFMultipleChoiceLoss,
    TFNextSentencePredictionLoss,
    TFQuestionAnsweringLoss,
    TFSequenceClassificationLoss,
    TFTokenClassificationLoss,
)
from modelwright.keras_layers.sequence_summary import TFSequenceSummary
from modelwright.keras_layers.serialization import keras_serializable
from modelwright.keras_layers.shared_embeddings import TFSharedEmbeddings
from modelwright.keras_layers.tensors import shape_list
from modelwright.models.auto.configuration_auto import AutoConfig
from modelwright.models.auto.modeling_auto import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from modelwright.models.auto.tokenization_auto import AutoTokenizer
from modelwright.models.bert.backbone import BertModel, BertPreTrainedModel
from modelwright.models.bert.configuration_bert import BertConfig
from modelwright.models.bert.layers import BertLayer
from modelwright.models.bert.lm_heads import (
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertLMHeadModel,
)
from modelwright.models.bert.task_heads import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from modelwright.models.bert.tokenization_bert import BertTokenizer
from modelwright.models.bert.tokenization_bert_fast import BertTokenizerFast
from modelwright.models.encoder_decoder.configuration_encoder_decoder import EncoderDecoderConfig
from modelwright.models.encoder_decoder.modeling_encoder_decoder import EncoderDecoderModel
from modelwright.models.gpt2.backbone import GPT2Model, GPT2PreTrainedModel
from modelwright.models.gpt2.configuration_gpt2 import GPT2Config
from modelwright.models.gpt2.modeling_gpt2 import (
    GPT2DoubleHeadsModel,
    GPT2ForQuestionAnswering,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
)
from modelwright.models.gpt2.tokenization_gpt2 import GPT2Tokenizer
from modelwright.models.gpt2.tokenization_gpt2_fast import GPT2TokenizerFast
from modelwright.models.llama.configuration_llama import LlamaConfig
from modelwright.models.llama.modeling_llama import (
    LlamaForCausalLM,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
    LlamaPreTrainedModel,
)
from modelwright.models.llama.tokenization_llama import LlamaTokenizer
from modelwright.models.llama.tokenization_llama_fast import LlamaTokenizerFast
from modelwright.models.prophetnet.backbone import ProphetNetModel
from modelwright.models.prophetnet.base import ProphetNetPreTrainedModel
from modelwright.models.prophetnet.configuration_prophetnet import ProphetNetConfig
from modelwright.models.prophetnet.decoder import ProphetNetDecoder
from modelwright.models.prophetnet.encoder import ProphetNetEncoder
from modelwright.models.prophetnet.modeling_prophetnet import ProphetNetForCausalLM, ProphetNetForConditionalGeneration
from modelwright.models.prophetnet.tokenization_prophetnet import ProphetNetTokenizer
from modelwright.models.qdqbert.configuration_qdqbert import QDQBertConfig
from modelwright.models.qdqbert.modeling_qdqbert import (
    QDQBertForMaskedLM,
    QDQBertForMultipleChoice,
    QDQBertForNextSentencePrediction,
    QDQBertForQuestionAnswering,
    QDQBertForSequenceClassification,
    QDQBertForTokenClassification,
    QDQBertLayer,
    QDQBertLMHeadModel,
    QDQBertModel,
    QDQBertPreTrainedModel,
)
from modelwright.models.reformer.attention_maps import dense_attentions
from modelwright.models.reformer.backbone import ReformerModel, ReformerPreTrainedModel
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.modeling_reformer import (
    ReformerForMaskedLM,
    ReformerForQuestionAnswering,
    ReformerForSequenceClassification,
    ReformerModelWithLMHead,
)
from modelwright.models.reformer.tokenization_reformer import ReformerTokenizer
from modelwright.models.reformer.tokenization_reformer_fast import ReformerTokenizerFast
from modelwright.models.t5.backbone import T5EncoderModel, T5Model
from modelwright.models.t5.configuration_t5 import T5Config
from modelwright.models.t5.heads import T5ForQuestionAnswering, T5ForSequenceClassification, T5ForTokenClassification
from modelwright.models.t5.modeling_t5 import T5ForConditionalGeneration
from modelwright.models.t5.stack import T5PreTrainedModel
from modelwright.models.t5.tokenization_t5 import T5Tokenizer
from modelwright.models.t5.tokenization_t5_fast import T5TokenizerFast
from modelwright.nn.activations import ACT2FN
from modelwright.nn.checkpointing import GradientCheckpointingLayer
from modelwright.nn.chunking import apply_chunking_to_forward
from modelwright.nn.conv1d import Conv1D
from modelwright.nn.pooling import PoolerAnswerClass, PoolerEndLogits, PoolerStartLogits
from modelwright.nn.pruning import prune_layer
from modelwright.nn.sequence_summary import SequenceSummary
from modelwright.outputs.base import ModelOutput
from modelwright.outputs.model_outputs import (
    BaseModelOutput,
    BaseModelOutputWithCrossAttentions,
    BaseModelOutputWithNoAttention,
    BaseModelOutputWithPast,
    BaseModelOutputWithPastAndCrossAttentions,
    BaseModelOutputWithPooling,
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutput,
    CausalLMOutputWithCrossAttentions,
    CausalLMOutputWithPast,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    NextSentencePredictorOutput,
    QuestionAnsweringModelOutput,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
    Seq2SeqQuestionAnsweringModelOutput,
    Seq2SeqSequenceClassifierOutput,
    SequenceClassifierOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from modelwright.pretrained.modeling import PreTrainedModel
from modelwright.pretrained.module_utils import ModuleUtilsMixin
from modelwright.pretrained.squad_head import SQuADHead, SquadHeadOutput
from modelwright.tokenization.added_token import AddedToken
from modelwright.tokenization.alignment import CharSpan, TokenSpan
from modelwright.tokenization.base import PreTrainedTokenizerBase
from modelwright.tokenization.batch_encoding import BatchEncoding
from modelwright.tokenization.byte_tokenizer import ByteTokenizer
from modelwright.tokenization.fast_tokenizer import PreTrainedTokenizerFast
from modelwright.tokenization.python_tokenizer import PreTrainedTokenizer
from modelwright.tokenization.special_tokens import SpecialTokensMixin
from modelwright.tokenization.strategies import PaddingStrategy, TensorType, TruncationStrategy
from modelwright.training.collators import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorForWholeWordMask,
    DataCollatorWithPadding,
)

__version__: str

__all__ = [
    "ACT2FN",
    "CONFIG_NAME",
    "GENERATION_CONFIG_NAME",
    "ROPE_INIT_FUNCTIONS",
    "SAFE_WEIGHTS_INDEX_NAME",
    "SAFE_WEIGHTS_NAME",
    "WEIGHTS_INDEX_NAME",
    "WEIGHTS_NAME",
    "AddedToken",
    "AttentionInterface",
    "AttentionMaskInterface",
    "AutoConfig",
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
    "AutoTokenizer",
    "BaseModelOutput",
    "BaseModelOutputWithCrossAttentions",
    "BaseModelOutputWithNoAttention",
    "BaseModelOutputWithPast",
    "BaseModelOutputWithPastAndCrossAttentions",
    "BaseModelOutputWithPooling",
    "BaseModelOutputWithPoolingAndCrossAttentions",
    "BatchEncoding",
    "BertConfig",
    "BertForMaskedLM",
    "BertForMultipleChoice",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertLMHeadModel",
    "BertLayer",
    "BertModel",
    "BertPreTrainedModel",
    "BertTokenizer",
    "BertTokenizerFast",
    "ByteTokenizer",
    "Cache",
    "CausalLMOutput",
    "CausalLMOutputWithCrossAttentions",
    "CausalLMOutputWithPast",
    "CharSpan",
    "CheckpointError",
    "CheckpointMismatchError",
    "ConfigError",
    "Conv1D",
    "DataCollatorForLanguageModeling",
    "DataCollatorForSeq2Seq",
    "DataCollatorForTokenClassification",
    "DataCollatorForWholeWordMask",
    "DataCollatorWithPadding",
    "DynamicCache",
    "DynamicLayer",
    "DynamicSlidingWindowLayer",
    "EncoderDecoderCache",
    "EncoderDecoderConfig",
    "EncoderDecoderModel",
    "EncoderNoRepeatNGramLogitsProcessor",
    "EncoderRepetitionPenaltyLogitsProcessor",
    "EosTokenCriteria",
    "EpsilonLogitsWarper",
    "EtaLogitsWarper",
    "ExponentialDecayLengthPenalty",
    "ForcedBOSTokenLogitsProcessor",
    "ForcedEOSTokenLogitsProcessor",
    "GPT2Config",
    "GPT2DoubleHeadsModel",
    "GPT2ForQuestionAnswering",
    "GPT2ForSequenceClassification",
    "GPT2ForTokenClassification",
    "GPT2LMHeadModel",
    "GPT2Model",
    "GPT2PreTrainedModel",
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "GatedRepoError",
    "GenerationConfig",
    "GenerationMixin",
    "GradientCheckpointingLayer",
    "HammingDiversityLogitsProcessor",
    "HubError",
    "HubOfflineError",
    "InfNanRemoveLogitsProcessor",
    "InputError",
    "LlamaConfig",
    "LlamaForCausalLM",
    "LlamaForQuestionAnswering",
    "LlamaForSequenceClassification",
    "LlamaForTokenClassification",
    "LlamaModel",
    "LlamaPreTrainedModel",
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "LoadPlan",
    "LoadReport",
    "LogitNormalization",
    "LogitsProcessor",
    "LogitsProcessorList",
    "MaskedLMOutput",
    "MaxLengthCriteria",
    "MaxTimeCriteria",
    "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor",
    "MinPLogitsWarper",
    "MissingPackageError",
    "ModelOutput",
    "ModelwrightError",
    "ModuleUtilsMixin",
    "MultipleChoiceModelOutput",
    "NextSentencePredictorOutput",
    "NoBadWordsLogitsProcessor",
    "NoRepeatNGramLogitsProcessor",
    "OnnxModel",
    "PaddingStrategy",
    "PlacementError",
    "PoolerAnswerClass",
    "PoolerEndLogits",
    "PoolerStartLogits",
    "PreTrainedConfig",
    "PreTrainedModel",
    "PreTrainedTokenizer",
    "PreTrainedTokenizerBase",
    "PreTrainedTokenizerFast",
    "PrefixConstrainedLogitsProcessor",
    "PretrainedConfig",
    "ProphetNetConfig",
    "ProphetNetDecoder",
    "ProphetNetEncoder",
    "ProphetNetForCausalLM",
    "ProphetNetForConditionalGeneration",
    "ProphetNetModel",
    "ProphetNetPreTrainedModel",
    "ProphetNetTokenizer",
    "QDQBertConfig",
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
    "QuestionAnsweringModelOutput",
    "ReformerConfig",
    "ReformerForMaskedLM",
    "ReformerForQuestionAnswering",
    "ReformerForSequenceClassification",
    "ReformerModel",
    "ReformerModelWithLMHead",
    "ReformerPreTrainedModel",
    "ReformerTokenizer",
    "ReformerTokenizerFast",
    "RepetitionPenaltyLogitsProcessor",
    "RepoError",
    "RepoNotFoundError",
    "SQuADHead",
    "Seq2SeqLMOutput",
    "Seq2SeqModelOutput",
    "Seq2SeqQuestionAnsweringModelOutput",
    "Seq2SeqSequenceClassifierOutput",
    "SequenceBiasLogitsProcessor",
    "SequenceClassifierOutput",
    "SequenceClassifierOutputWithPast",
    "SequenceSummary",
    "SpecialTokensMixin",
    "SquadHeadOutput",
    "StaticCache",
    "StaticLayer",
    "StaticSlidingWindowLayer",
    "StopStringCriteria",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "SuppressTokensAtBeginLogitsProcessor",
    "SuppressTokensLogitsProcessor",
    "T5Config",
    "T5EncoderModel",
    "T5ForConditionalGeneration",
    "T5ForQuestionAnswering",
    "T5ForSequenceClassification",
    "T5ForTokenClassification",
    "T5Model",
    "T5PreTrainedModel",
    "T5Tokenizer",
    "T5TokenizerFast",
    "TFCausalLanguageModelingLoss",
    "TFConv1D",
    "TFMaskedLanguageModelingLoss",
    "TFMultipleChoiceLoss",
    "TFNextSentencePredictionLoss",
    "TFQuestionAnsweringLoss",
    "TFSequenceClassificationLoss",
    "TFSequenceSummary",
    "TFSharedEmbeddings",
    "TFTokenClassificationLoss",
    "TemperatureLogitsWarper",
    "TensorType",
    "TextIteratorStreamer",
    "TextStreamer",
    "TokenClassifierOutput",
    "TokenSpan",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "TruncationStrategy",
    "TypicalLogitsWarper",
    "UnknownArgumentError",
    "__version__",
    "add_end_docstrings",
    "add_start_docstrings",
    "apply_chunking_to_forward",
    "dense_attentions",
    "dynamic_rope_update",
    "export_onnx",
    "get_initializer",
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
    "keras_serializable",
    "logging",
    "make_session",
    "prune_layer",
    "shape_list",
]
