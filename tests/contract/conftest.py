"""The table of models, one row per model class, and the fixtures that make a model of a row."""

import importlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from modelwright import _public


def _toys() -> Any:
    """The models made up for tests (pytest's importlib mode puts no test folder on the path)."""
    path = Path(__file__).parent.parent / "pretrained" / "toy_models.py"
    spec = importlib.util.spec_from_file_location("modelwright_tests_toys", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Row:
    """A model class by its public name, and a small configuration of it with nothing random in evaluation."""

    model: str
    config: dict[str, Any] = field(default_factory=dict)

    def model_class(self) -> Any:
        home = _public.find(self.model)
        module = _toys() if home is None else importlib.import_module(home)
        return getattr(module, self.model)

    def make(self, **config: Any) -> Any:
        model_class = self.model_class()
        return model_class(model_class.config_class(**{**self.config, **config}))

    def make_settled(self) -> Any:
        """A model in evaluation mode, the same each time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.make().eval()

    def refuses_placement(self) -> bool:
        """Whether the class says why it cannot be spread (a model of two parts asks them, for each model)."""
        return isinstance(self.model_class()._placement_refusal, str)


REFORMER = {
    "attention_head_size": 8,
    "attn_layers": ["local", "lsh"],
    "axial_pos_embds_dim": [4, 12],
    "axial_pos_shape": [4, 16],
    "feed_forward_size": 32,
    "hash_seed": 0,
    "hidden_size": 16,
    "is_decoder": True,
    "max_position_embeddings": 64,
    "num_attention_heads": 2,
    "num_buckets": 4,
    "vocab_size": 64,
}
GPT2 = {"vocab_size": 11, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2, "pad_token_id": 0}
LLAMA = {
    "vocab_size": 11,
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8,
    "pad_token_id": 0,
}
BERT = {
    "vocab_size": 11,
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 8,
    "num_labels": 3,
}
BERT_DECODER = {**BERT, "is_decoder": True, "add_cross_attention": True}

T5 = {
    "vocab_size": 11,
    "d_model": 8,
    "d_kv": 3,
    "d_ff": 12,
    "num_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 6,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
T5_GATED = {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 1}

PROPHETNET = {
    "vocab_size": 11,
    "hidden_size": 8,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 10,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_encoder_attention_heads": 2,
    "num_decoder_attention_heads": 2,
    "max_position_embeddings": 16,
    "num_buckets": 8,
    "relative_max_distance": 12,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}
PAIR = {"encoder": {"model_type": "bert", **BERT}, "decoder": {"model_type": "bert", **BERT_DECODER}}
# Of another width, so that the states are projected.
TO_GPT2 = {**PAIR, "decoder": {"model_type": "gpt2", **GPT2, "is_decoder": True, "add_cross_attention": True}}
TO_PROPHETNET = {**PAIR, "decoder": {"model_type": "prophetnet", **PROPHETNET, "is_decoder": True}}
STARTS = {"decoder_start_token_id": 1, "pad_token_id": 0}

ROWS = [
    Row("ReformerModel", REFORMER),
    Row("ReformerModelWithLMHead", REFORMER),
    Row("ReformerModelWithLMHead", {**REFORMER, "pruned_heads": {0: [1]}}),
    Row("ReformerForMaskedLM", {**REFORMER, "is_decoder": False}),
    Row("ReformerForSequenceClassification", {**REFORMER, "is_decoder": False, "num_labels": 3}),
    Row("ReformerForQuestionAnswering", {**REFORMER, "is_decoder": False}),
    Row("ToyModel"),
    Row("ToyForCausalLM"),
    Row("ToyForCausalLM", {"tie_word_embeddings": False}),
    Row("ToyForClassification", {"num_labels": 3}),
    Row("GPT2Model", GPT2),
    Row("GPT2LMHeadModel", GPT2),
    Row("GPT2LMHeadModel", {**GPT2, "add_cross_attention": True, "pruned_heads": {0: [1]}}),
    Row("GPT2DoubleHeadsModel", GPT2),
    Row("GPT2ForSequenceClassification", {**GPT2, "num_labels": 3}),
    Row("GPT2ForTokenClassification", {**GPT2, "num_labels": 3}),
    Row("GPT2ForQuestionAnswering", GPT2),
    Row("LlamaModel", LLAMA),
    Row("LlamaForCausalLM", LLAMA),
    Row("LlamaForCausalLM", {**LLAMA, "tie_word_embeddings": True, "num_key_value_heads": 4}),
    Row("LlamaForSequenceClassification", {**LLAMA, "num_labels": 3}),
    Row("LlamaForTokenClassification", {**LLAMA, "num_labels": 3}),
    Row("LlamaForQuestionAnswering", LLAMA),
    Row("BertModel", BERT),
    Row("BertModel", {**BERT, "position_embedding_type": "relative_key_query", "pruned_heads": {0: [1]}}),
    Row("BertForPreTraining", BERT),
    Row("BertLMHeadModel", BERT_DECODER),
    Row("BertForMaskedLM", BERT),
    Row("BertForMaskedLM", {**BERT, "tie_word_embeddings": False}),
    Row("BertForNextSentencePrediction", BERT),
    Row("BertForSequenceClassification", BERT),
    Row("BertForMultipleChoice", BERT),
    Row("BertForTokenClassification", BERT),
    Row("BertForQuestionAnswering", BERT),
    Row("T5Model", T5),
    Row("T5ForConditionalGeneration", T5),
    Row("T5ForConditionalGeneration", T5_GATED),
    # A head of the encoder, one of the decoder's own attention and one of its attention to the encoder.
    Row("T5ForConditionalGeneration", {**T5, "pruned_heads": {0: [1], 2: [0], 5: [1]}}),
    Row("T5EncoderModel", T5),
    Row("T5ForSequenceClassification", {**T5, "num_labels": 3}),
    Row("T5ForTokenClassification", {**T5_GATED, "num_labels": 3}),
    Row("T5ForQuestionAnswering", T5),
    Row("EncoderDecoderModel", {**PAIR, **STARTS}),
    Row("EncoderDecoderModel", {**PAIR, **STARTS, "tie_encoder_decoder": True}),
    Row("EncoderDecoderModel", {**TO_GPT2, **STARTS}),
    Row("EncoderDecoderModel", {**TO_PROPHETNET, **STARTS}),
    Row("ProphetNetModel", PROPHETNET),
    Row("ProphetNetEncoder", PROPHETNET),
    Row("ProphetNetDecoder", {**PROPHETNET, "is_encoder_decoder": False, "is_decoder": True}),
    Row("ProphetNetForConditionalGeneration", PROPHETNET),
    Row("ProphetNetForConditionalGeneration", {**PROPHETNET, "pruned_heads": {0: [1], 2: [0], 5: [1]}}),
    Row("ProphetNetForConditionalGeneration", {**PROPHETNET, "tie_word_embeddings": False, "ngram": 1}),
    Row("ProphetNetForCausalLM", PROPHETNET),
    Row("ProphetNetForCausalLM", {**PROPHETNET, "add_cross_attention": False, "pruned_heads": {1: [0]}}),
    Row("QDQBertModel", BERT),
    Row("QDQBertLMHeadModel", BERT_DECODER),
    Row("QDQBertForMaskedLM", BERT),
    Row("QDQBertForNextSentencePrediction", BERT),
    Row("QDQBertForSequenceClassification", BERT),
    Row("QDQBertForMultipleChoice", BERT),
    Row("QDQBertForTokenClassification", BERT),
    Row("QDQBertForQuestionAnswering", BERT),
    Row("LegacyModel"),
    Row("LegacyForMaskedLM"),
]


@pytest.fixture(params=ROWS, ids=lambda row: row.model)
def row(request) -> Row:
    """Every row of the table in turn."""
    return request.param


@pytest.fixture(params=[row for row in ROWS if _public.find(row.model)], ids=lambda row: row.model)
def public_row(request) -> Row:
    """Every row whose class can be imported from modelwright."""
    return request.param


@pytest.fixture(params=[row for row in ROWS if not row.model.startswith("QDQ")], ids=lambda row: row.model)
def transformable(request) -> Any:
    """A row of a model for `torch.func`: quantizers have backwards of their own, which its transforms do not know."""
    return request.param


@pytest.fixture
def model(row) -> Any:
    """A model of the row, in evaluation mode, the same each time."""
    return row.make_settled()


@pytest.fixture(params=[row for row in ROWS if not row.refuses_placement()], ids=lambda row: row.model)
def placeable(request) -> Any:
    """A model of every row that can be spread over devices."""
    return request.param.make_settled()


@pytest.fixture(params=[row for row in ROWS if row.refuses_placement()], ids=lambda row: row.model)
def unplaceable(request) -> Any:
    """A model of every row that cannot be spread over devices."""
    return request.param.make_settled()


@pytest.fixture
def folder(model, tmp_path) -> Path:
    """A folder that the model was saved in."""
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"
