"""The heads of the Reformer, and what they refuse."""

import pytest
import torch
from small_reformer import LARGE, QUIET, SMALL, build, ids

from modelwright.core.errors import ConfigError
from modelwright.models.auto.modeling_auto import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
)
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.modeling_reformer import (
    ReformerForMaskedLM,
    ReformerForQuestionAnswering,
    ReformerForSequenceClassification,
    ReformerModelWithLMHead,
    ReformerModelWithLMHeadOutput,
)
from modelwright.outputs.model_outputs import CausalLMOutput

BOTH_SIDES = {**QUIET, "is_decoder": False}


def test_prose_names_read_and_write_the_real_fields(tmp_path):
    config = ReformerConfig(local_chunk_length=8, lsh_chunk_length=16, max_embedding_size=128, attn_layers=["lsh"])
    assert (config.local_attn_chunk_length, config.lsh_attn_chunk_length, config.max_position_embeddings) == (
        8,
        16,
        128,
    )
    assert config.n_layers == config.num_hidden_layers == 1
    config.lsh_chunk_length = 32
    config.save_pretrained(tmp_path)
    assert "lsh_chunk_length" not in (tmp_path / "config.json").read_text()
    assert ReformerConfig.from_pretrained(tmp_path).lsh_attn_chunk_length == 32


def test_language_model_output_is_a_causal_lm_output_in_the_documented_order():
    output = ReformerModelWithLMHeadOutput(torch.ones(()), torch.ones(1), (), (), past_buckets_states="cache")
    assert isinstance(output, CausalLMOutput)
    assert list(output) == ["loss", "logits", "past_buckets_states", "hidden_states", "attentions"]
    assert output[2] == "cache"


@pytest.mark.parametrize("length", [5, 21, 64])
def test_masked_tokens_are_scored_from_both_sides(length):
    model = build(ReformerForMaskedLM, **BOTH_SIDES).eval()
    tokens = ids(2, length)
    labels = torch.where(torch.arange(length) == 2, tokens, -100)
    with torch.no_grad():
        output = model(tokens, labels=labels)
        changed = model(tokens.index_fill(1, torch.tensor([length - 1]), 7)).logits
    assert output.logits.shape == (2, length, 50)
    assert torch.allclose(output.loss, torch.nn.functional.cross_entropy(output.logits[:, 2], tokens[:, 2]))
    assert not torch.allclose(output.logits[:, length - 2], changed[:, length - 2])


def test_classification_by_the_first_token():
    model = build(ReformerForSequenceClassification, **BOTH_SIDES, num_labels=3).eval()
    labels = torch.tensor([0, 2])
    loss, logits = model(ids(2, 21), labels=labels, return_dict=False)
    assert logits.shape == (2, 3)
    assert torch.allclose(loss, torch.nn.functional.cross_entropy(logits, labels))
    base = model.reformer(ids(2, 21)).last_hidden_state[:, 0]
    head = model.classifier
    assert torch.allclose(logits, head.out_proj(torch.tanh(head.dense(base))), atol=1e-6)


def test_classifier_dropout_is_its_own():
    own = build(ReformerForSequenceClassification, **BOTH_SIDES, classifier_dropout=0.7)
    assert own.classifier.dropout.p == 0.7
    assert build(ReformerForSequenceClassification, is_decoder=False).classifier.dropout.p == 0.2


def test_spans():
    model = build(ReformerForQuestionAnswering, **BOTH_SIDES).eval()
    output = model(ids(2, 21), start_positions=torch.tensor([3, 4]), end_positions=torch.tensor([5, 90]))
    assert output.start_logits.shape == output.end_logits.shape == (2, 21)
    start = torch.nn.functional.cross_entropy(output.start_logits, torch.tensor([3, 4]))
    end = torch.nn.functional.cross_entropy(output.end_logits[:1], torch.tensor([5]))  # 90 is behind the end
    assert torch.allclose(output.loss, (start + end) / 2)


def test_wrong_side_is_refused_or_said():
    with pytest.raises(ConfigError, match="ReformerForMaskedLM: expected a config with is_decoder=False, got True"):
        build(ReformerForMaskedLM)
    with pytest.raises(ConfigError, match="ReformerModelWithLMHead: expected a config with is_decoder=True, got False"):
        build(is_decoder=False)


@pytest.mark.parametrize(
    ("auto", "own"),
    [
        (AutoModelForMaskedLM, ReformerForMaskedLM),
        (AutoModelForQuestionAnswering, ReformerForQuestionAnswering),
        (AutoModelForSequenceClassification, ReformerForSequenceClassification),
    ],
)
def test_auto_classes(auto, own):
    assert type(auto.from_config(ReformerConfig(**{**SMALL, "is_decoder": False}))) is own


@pytest.mark.parametrize("cls", [ReformerModelWithLMHead, ReformerForMaskedLM])
@pytest.mark.parametrize("chunk", [0, 16])
def test_the_bias_of_the_scores_counts(cls, chunk):
    model = build(cls, **LARGE, is_decoder=cls is ReformerModelWithLMHead, chunk_size_lm_head=chunk)
    bias = torch.randn(50)
    with torch.no_grad():
        before = model.eval()(ids()).logits
        model.lm_head.bias.add_(bias)
        assert torch.allclose(model(ids()).logits, before + bias, atol=1e-5)
    model.train()(ids(), labels=ids()).loss.backward()
    assert model.lm_head.bias.grad.abs().max() > 0
