"""QDQBERT: its quantizers, calibration that is saved, BERT checkpoints, pruning."""

import pytest
import torch

from modelwright import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForPreTraining,
    QDQBertConfig,
    QDQBertForSequenceClassification,
    QDQBertLayer,
    QDQBertLMHeadModel,
    QDQBertModel,
)
from modelwright.models.qdqbert import modeling_qdqbert
from modelwright.quantization import (
    QuantDescriptor,
    QuantLinear,
    calibrate_weights,
    calibrating,
    load_ranges,
    quantization_disabled,
    quantizers_of,
)

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
    "initializer_range": 0.4,
}
IDS = torch.arange(1, 13).view(2, 6) * 3


def calibrated(model_class, **config):
    torch.manual_seed(0)
    model = model_class(QDQBertConfig(**SIZES, **config)).eval()
    with calibrating(model):
        model(IDS)
    assert load_ranges(model) == []
    calibrate_weights(model, "max")
    return model


def ranges(model):
    return {name: quantizer.amax for name, quantizer in quantizers_of(model).items()}


def test_twenty_quantizers_a_layer():
    own = [
        name.removeprefix("encoder.layer.1.") for name in quantizers_of(QDQBertModel(QDQBertConfig(**SIZES)), "layer.1")
    ]
    linear = [f"attention.self.{name}" for name in ("query", "key", "value")]
    linear += ["attention.output.dense", "intermediate.dense", "output.dense"]
    assert sorted(own) == sorted(
        [f"{name}._{kind}_quantizer" for name in linear for kind in ("input", "weight")]
        + [f"attention.self.matmul_{operand}_input_quantizer" for operand in "qkva"]
        + [
            f"{place}.add_{side}_input_quantizer"
            for place in ("attention.output", "output")
            for side in ("local", "residual")
        ]
    )
    assert list(quantizers_of(QDQBertLayer(QDQBertConfig(**SIZES)))) == own


# The inputs of multiple choice have another axis; its layers are the same.
HEADS = [n for n in vars(modeling_qdqbert) if n.startswith("QDQBertFor") and n != "QDQBertForMultipleChoice"]


@pytest.mark.parametrize("name", ["QDQBertModel", *HEADS])
def test_calibration_survives_saving_and_loading(name, tmp_path):
    model = calibrated(getattr(modeling_qdqbert, name))
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, strict=True)
    before, after = ranges(model), ranges(loaded)
    assert len(before) == 40
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(model(IDS)[0], loaded(IDS)[0])


def test_reloading_does_not_depend_on_the_defaults_in_force(monkeypatch, tmp_path):
    for name in ("default_quant_desc_input", "default_quant_desc_weight"):
        monkeypatch.setattr(QuantLinear, name, getattr(QuantLinear, name))
    QuantLinear.set_default_quant_desc_input(QuantDescriptor(num_bits=6, calib_method="histogram"))
    QuantLinear.set_default_quant_desc_weight(QuantDescriptor(num_bits=5, axis=None))
    model = QDQBertModel(QDQBertConfig(**SIZES))
    model.save_pretrained(tmp_path)
    monkeypatch.undo()
    assert repr(QDQBertModel.from_pretrained(tmp_path)) == repr(model)
    assert "6bit" in repr(model)
    assert repr(QDQBertModel(QDQBertConfig(**SIZES))).count("5bit") == 0


def test_a_bert_checkpoint_loads_and_without_quantizers_is_bert(tmp_path):
    torch.manual_seed(0)
    bert = BertForPreTraining(BertConfig(**SIZES)).eval()
    bert.save_pretrained(tmp_path)
    model, info = QDQBertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == []
    assert all(key.startswith("cls.") for key in info["unexpected_keys"])
    with quantization_disabled(model):
        torch.testing.assert_close(model(IDS).last_hidden_state, bert.bert(IDS).last_hidden_state)
    assert not torch.allclose(model(IDS).last_hidden_state, bert.bert(IDS).last_hidden_state)
    head = QDQBertForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)[1]
    assert head["missing_keys"] == ["classifier.bias", "classifier.weight"] or set(head["missing_keys"]) == {
        "classifier.bias",
        "classifier.weight",
    }


def test_the_auto_class_finds_it(tmp_path):
    calibrated(QDQBertForSequenceClassification).save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(model) is QDQBertForSequenceClassification
    assert type(model.bert) is QDQBertModel
    assert all(quantizer.is_calibrated for quantizer in quantizers_of(model).values())


def test_pruning_keeps_quantizers_and_cuts_ranges(tmp_path):
    model = calibrated(QDQBertModel)
    attention = model.encoder.layer[0].attention
    whole = attention.self.query.weight_quantizer.amax
    mask = torch.ones(2, 4)
    mask[0, 1] = 0
    with quantization_disabled(model):
        expected = model(IDS, head_mask=mask).last_hidden_state
    model.prune_heads({0: [1]})
    assert torch.equal(attention.self.query.weight_quantizer.amax, whole[[*range(4), *range(8, 16)]])
    assert torch.equal(
        attention.output.dense.weight_quantizer.amax,
        model.encoder.layer[0].attention.output.dense.weight_quantizer.amax,
    )
    with quantization_disabled(model):
        torch.testing.assert_close(model(IDS).last_hidden_state, expected)
    model.save_pretrained(tmp_path)
    assert torch.equal(QDQBertModel.from_pretrained(tmp_path, strict=True)(IDS)[0], model(IDS)[0])


def test_a_decoder_with_a_cache_is_one_without():
    model = calibrated(QDQBertLMHeadModel, is_decoder=True)
    whole = model(IDS).logits
    first = model(IDS[:, :4], use_cache=True)
    rest = model(IDS[:, 4:], past_key_values=first.past_key_values, use_cache=True).logits
    torch.testing.assert_close(torch.cat([first.logits, rest], dim=1), whole, atol=1e-4, rtol=1e-4)
    ids = model.generate(IDS[:, :3], max_new_tokens=4, do_sample=False)
    assert torch.equal(ids, model.generate(IDS[:, :3], max_new_tokens=4, do_sample=False, use_cache=False))


def test_a_learned_range_gets_gradients_and_is_saved(tmp_path):
    recipe = {"placement": "linear", "input": {"learn_amax": True, "amax": 2.0}}
    model = QDQBertModel(QDQBertConfig(**SIZES, quantization_recipe=recipe))
    model(IDS).last_hidden_state.square().sum().backward()
    clip = model.encoder.layer[0].output.dense.input_quantizer.clip
    assert clip.clip_value_max.grad.abs() > 0
    clip.clip_value_max.data.fill_(1.5)
    model.save_pretrained(tmp_path)
    assert (
        QDQBertModel.from_pretrained(tmp_path, strict=True)
        .encoder.layer[0]
        .output.dense.input_quantizer.clip.clip_value_max
        == 1.5
    )


def test_a_bad_recipe():
    with pytest.raises(ValueError, match="expected a dictionary"):
        QDQBertConfig(quantization_recipe="full")
    with pytest.raises(TypeError, match="Recipe got an unknown keyword 'placment'. Did you mean 'placement'"):
        QDQBertModel(QDQBertConfig(**SIZES, quantization_recipe={"placment": "full"}))
