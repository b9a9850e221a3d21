"""Quantizing without training: what a layer costs, which layers stay float, and that the choice survives a save."""

import pytest
import torch

from modelwright.models.bert.configuration_bert import BertConfig
from modelwright.models.bert.modeling_bert import BertForSequenceClassification, BertModel
from modelwright.quantization import Recipe, calibrate_weights, quantization_disabled, quantizers_of, swap
from modelwright.quantization.adjusting import clip_gelu, fuse_qkv, recalibrate_weights
from modelwright.quantization.fidelity import Bar, Fidelity, ScoreBar
from modelwright.quantization.ptq import auto_quantize, calibrate, leave_float, sensitivity
from modelwright.quantization.recording import linear_layers

SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WORST = "encoder.layer.1.output.dense"


def make(kind=BertModel):
    torch.manual_seed(0)
    model = kind(BertConfig(**SIZES, num_labels=4)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
        # A feed-forward with one channel that is far larger than the others: hard to quantize.
        base = getattr(model, "bert", model)
        base.encoder.layer[1].intermediate.dense.bias[3] = 300.0
        base.encoder.layer[1].output.dense.weight[:, 3] *= 0.01
    return model


def runs(model):
    generator = torch.Generator().manual_seed(1)
    seen, other = (torch.randint(0, 60, (n, 12), generator=generator) for n in (24, 12))
    return [lambda ids=ids: model(ids)[0].detach().flatten(1) for ids in (seen, other)]


def test_what_each_layer_costs():
    model = make()
    run, other = runs(model)
    swap(model, Recipe())
    calibrate(model, run)
    before = other()
    costs = sensitivity(model, other)
    assert torch.equal(other(), before)
    assert list(costs) == list(linear_layers(model))
    assert max(costs, key=costs.get) == WORST
    for name, quantizer in quantizers_of(model).items():
        (quantizer.enable if name.startswith(WORST) else quantizer.disable)()
    alone = other()
    with quantization_disabled(model):
        assert costs[WORST] == pytest.approx(1 - Fidelity.of(alone, other()).mean, abs=1e-9)


@pytest.mark.parametrize("kind", [BertModel, BertForSequenceClassification])
def test_the_worst_layers_stay_float_and_a_saved_model_knows(kind, tmp_path):
    model = make(kind)
    run, other = runs(model)
    reference = other()
    told = []
    result = auto_quantize(
        model, run, other, bar=Bar(0.99999), alphas=(0.0,), most_float=0.3, progress=lambda *step: told.append(step)
    )
    name = next(iter(result.float_layers))
    assert name == max(result.sensitivity, key=result.sensitivity.get)
    weights = {name: layer.weight.numel() for name, layer in linear_layers(model).items()}
    share = sum(weights[name] for name in result.float_layers) / sum(weights.values())
    assert result.float_share == pytest.approx(share)
    assert share <= 0.3
    assert result.fidelity.mean > result.tried[0.0].mean
    after = other()
    assert result.fidelity == Fidelity.of(after, reference)
    assert {step[0] for step in told} >= {"searching how to smooth", "measuring what each layer costs"}
    model.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    assert torch.equal(runs(loaded)[1](), after)
    off = [name for name, quantizer in quantizers_of(loaded).items() if not quantizer.is_enabled]
    assert len(off) == 2 * len(result.float_layers)


def test_the_search_takes_the_alpha_that_is_best_on_texts_it_did_not_see():
    model = make()
    run, other = runs(model)
    result = auto_quantize(model, run, other, bar=Bar(0.5), alphas=(0.0, 0.5))
    assert result.alpha == max(result.tried, key=lambda alpha: result.tried[alpha].mean)
    assert result.float_layers == {}
    first = linear_layers(model)["encoder.layer.0.attention.self.query"].input_quantizer
    second = linear_layers(model)["encoder.layer.0.attention.self.key"].input_quantizer
    assert torch.equal(first.pre_quant_scale, second.pre_quant_scale)
    assert torch.equal(first.amax, second.amax)


def test_quantizers_that_saw_nothing_are_named():
    model = make()
    swap(model, Recipe())
    with pytest.raises(
        ValueError, match=r"calibrate: 12 quantizers saw no tensor: encoder.layer.0.attention.self.query"
    ):
        calibrate(model, lambda: None)


def test_bar():
    bar = Bar(0.998)
    assert bar.minimum == pytest.approx(0.995)
    assert bar.shortfall(Fidelity(0.999, 0.995)) == pytest.approx(1.0)
    assert bar.shortfall(Fidelity(0.996, 0.999)) == pytest.approx(2.0)


def test_a_bar_of_a_score():
    bar = ScoreBar(lambda outputs: float(outputs[:, 0].mean()), kept=0.9)
    reference = torch.tensor([[0.8, 0.1], [0.8, 0.2]])
    found = bar.judge(reference - 0.2, reference)
    assert (found.score, found.float_score) == pytest.approx((0.6, 0.8))
    assert found.mean == Fidelity.of(reference - 0.2, reference).mean
    assert bar.shortfall(found) == pytest.approx(0.2 / 0.08)
    assert bar.shortfall(bar.judge(reference + 1, reference)) == 0
    assert bar.shortfall(bar.judge(-reference, -reference)) == 0


def test_a_score_drives_what_stays_float():
    model = make(BertForSequenceClassification)
    run, other = runs(model)
    labels = other().argmax(dim=-1)

    def agreement(outputs):
        return float((outputs.argmax(dim=-1) == labels).float().mean())

    # Any score but the float model's is too low.
    result = auto_quantize(model, run, other, bar=ScoreBar(agreement, 0.999), alphas=(0.0,), most_float=1.0)
    assert result.tried[0.0].score < 1
    assert result.fidelity.score == result.fidelity.float_score == agreement(other()) == 1
    scores = [fidelity.score for fidelity in result.float_layers.values()]
    assert max(scores[:-1], default=0) < 1


def test_quantizers_of_additions_can_stay_float_too(tmp_path):
    model = make()
    run, other = runs(model)
    reference = other()
    swap(model, Recipe("full"))
    calibrate(model, run)
    costs = sensitivity(model, other)
    assert len(costs) == 12 + 2 * 8
    added = [name for name in costs if ".add_" in name]
    assert len(added) == 8
    # Only quantizers that are no linear layers' may become float.
    left = leave_float(model, costs, other, reference, bar=Bar(0.999999), most_float=0.0)
    assert set(left.float_layers) == set(costs) - set(linear_layers(model))
    assert left.float_share == 0
    assert model.config.quantization_recipe["placement"] == "full"
    model.save_pretrained(tmp_path)
    loaded = BertModel.from_pretrained(tmp_path)
    assert torch.equal(runs(loaded)[1](), other())
    assert sum(each.is_enabled for each in quantizers_of(loaded).values()) == 24


def test_symmetric_ranges_are_what_tensorrt_has():
    model = make()
    run, other = runs(model)
    auto_quantize(model, run, other, bar=Bar(0.5), alphas=(0.5,), symmetric=True)
    quantizers = quantizers_of(model, "_input").values()
    assert all(each.amin is None and each.amax > 0 for each in quantizers)


def test_one_range_for_queries_keys_and_values():
    model = make()
    swap(model, Recipe("linear+matmul"))
    calibrate(model, runs(model)[0])
    operands = list(quantizers_of(model, r"layer\.0.*matmul_[qkv]_").values())
    assert len(operands) == 3
    before = [float(each.amax) for each in operands]
    assert fuse_qkv(model) == 2
    assert len(set(before)) == 3
    assert [float(each.amax) for each in operands] == [max(before)] * 3
    with pytest.raises(ValueError, match="fuse_qkv: Sequential has no attention with quantized query"):
        fuse_qkv(torch.nn.Sequential())


def test_a_limit_behind_gelu_and_new_ranges_for_weights():
    model = make()
    swap(model, Recipe())
    calibrate(model, runs(model)[0])
    wide = model.encoder.layer[1].output.dense.input_quantizer
    assert wide.amax > 200
    assert clip_gelu(model, 10.0) == [f"encoder.layer.{i}.output.dense._input_quantizer" for i in (0, 1)]
    assert wide.amax == 10.0
    layer = model.encoder.layer[0].intermediate.dense
    with torch.no_grad():
        layer.weight.mul_(2)
    old = layer.weight_quantizer.amax.clone()
    assert len(recalibrate_weights(model)) == 12
    torch.testing.assert_close(layer.weight_quantizer.amax, 2 * old)
    fresh = layer.weight_quantizer.amax.clone()
    calibrate_weights(model, "max")
    assert torch.equal(layer.weight_quantizer.amax, fresh)
    with pytest.raises(ValueError, match="clip_gelu: no quantizer with a range matches 'nothing'"):
        clip_gelu(model, pattern="nothing")
