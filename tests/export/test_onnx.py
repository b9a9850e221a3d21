"""Exported models: every head in float equals PyTorch's, quantized ones layer by layer."""

import collections

import numpy as np
import pytest
import torch

import modelwright
from modelwright.export.audit import audit_fusion
from modelwright.export.check import compare_layers
from modelwright.export.onnx import export_onnx
from modelwright.export.runtime import OnnxModel
from modelwright.quantization import QuantDescriptor, Recipe, quantizers_of
from modelwright.quantization.recording import record_inputs
from modelwright.quantization.smoothing import smooth

HEADS = ["ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"]
HEADS += ["ForMultipleChoice", "ForNextSentencePrediction", "LMHeadModel", "ForPreTraining"]
ASYMMETRIC = QuantDescriptor(asymmetric=True)


def arrays(batch):
    return {name: value.numpy() for name, value in batch.items()}


@pytest.mark.parametrize("head", HEADS)
def test_every_head_in_float_with_other_sizes_than_the_example(head, batch, tmp_path, sizes, enlarge):
    torch.manual_seed(0)
    decoder = {"is_decoder": True} if head == "LMHeadModel" else {}
    config = modelwright.BertConfig(**{**sizes, "num_hidden_layers": 1}, **decoder)
    model = enlarge(getattr(modelwright, f"Bert{head}")(config)).train()
    if head == "ForMultipleChoice":
        batch = {name: torch.stack([value, value.flip(0)], dim=1) for name, value in batch.items()}
    path = export_onnx(model, tmp_path / "model.onnx")
    assert model.training
    model.eval()
    assert (model.config._attn_implementation, model.config.use_cache) == ("sdpa", True)
    with torch.no_grad():
        expected = model(**batch, use_cache=False) if head == "LMHeadModel" else model(**batch)
    exported = OnnxModel(path)(**batch)
    assert type(exported) is type(expected)
    assert list(exported) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(exported[name], value, atol=2e-5, rtol=1e-4)
    short = {name: value[:1, ..., :5] for name, value in batch.items()}
    if "attention_mask" in short:
        with torch.no_grad():
            value = model(**short)[0]
        torch.testing.assert_close(OnnxModel(path)(**short)[0], value, atol=2e-5, rtol=1e-4)


def test_rows_of_nothing_but_padding_give_numbers(bert, batch, tmp_path):
    batch["attention_mask"][2] = 0
    exported = OnnxModel(export_onnx(bert, tmp_path / "a.onnx"))(**batch)
    with torch.no_grad():
        torch.testing.assert_close(exported[0], bert(**batch)[0], atol=2e-5, rtol=1e-4)


def test_attention_is_one_node_that_has_a_mask_only_where_there_is_padding(bert, batch, tmp_path):
    import onnx

    path = export_onnx(bert, tmp_path / "a.onnx")
    graph = onnx.load(path).graph
    choices = [node for node in graph.node if node.op_type == "If"]
    assert len(choices) == bert.config.num_hidden_layers
    for node in choices:
        branches = {each.name: each.g.node for each in node.attribute}
        assert [len(each.input) for each in branches["then_branch"]] == [3]
        assert [each.op_type for each in branches["else_branch"]] == ["MultiHeadAttention", "Mul"]
    assert not {"Transpose", "Reshape", "Softmax"} & {node.op_type for node in graph.node}
    model = OnnxModel(path)
    some_padding, none = batch["attention_mask"].clone(), torch.ones_like(batch["attention_mask"])
    some_padding[0, 3:], some_padding[1] = 0, 0
    for mask in (some_padding, none):
        inputs = {**batch, "attention_mask": mask}
        with torch.no_grad():
            expected = bert(**inputs)[0]
        torch.testing.assert_close(model(**inputs)[0], expected, atol=2e-5, rtol=1e-4)
    standard = onnx.load(export_onnx(bert, tmp_path / "b.onnx", target="tensorrt"))
    assert {node.domain for node in standard.graph.node} == {""}


def test_t5_encoder_with_other_sizes_than_the_example(batch, tmp_path, enlarge):
    torch.manual_seed(0)
    config = modelwright.T5Config(vocab_size=99, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    model = enlarge(modelwright.T5EncoderModel(config))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    exported = OnnxModel(export_onnx(model, tmp_path / "a.onnx"))
    for call in (inputs, {name: value[:1, :5] for name, value in inputs.items()}):
        with torch.no_grad():
            expected = model(**call)[0]
        torch.testing.assert_close(exported(**call)[0], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["GPT2", "Llama"])
def test_causal_models_with_padding(batch, tmp_path, enlarge, name):
    torch.manual_seed(0)
    sizes = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    more = {"GPT2": {"n_positions": 40}, "Llama": {"intermediate_size": 48, "num_key_value_heads": 2}}[name]
    config = getattr(modelwright, f"{name}Config")(**sizes, **more)
    kind = {"GPT2": "GPT2LMHeadModel", "Llama": "LlamaForCausalLM"}[name]
    model = enlarge(getattr(modelwright, kind)(config))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    inputs["attention_mask"][2, :4] = 0
    exported = OnnxModel(export_onnx(model, tmp_path / "a.onnx", inputs=list(inputs)))
    for call in (inputs, {name: value[:1, :5] for name, value in inputs.items()}):
        with torch.no_grad():
            expected = model(**call, use_cache=False)[0]
        torch.testing.assert_close(exported(**call)[0], expected, atol=5e-5, rtol=1e-4)


def test_a_model_of_16_bit_numbers_has_no_node_that_knows_32_only(bert, batch, tmp_path):
    batch["attention_mask"][2] = 0
    exported = OnnxModel(export_onnx(bert.half(), tmp_path / "a.onnx"))(**batch)
    with torch.no_grad():
        expected = bert(**batch)[0]
    assert exported[0].dtype == torch.float16
    torch.testing.assert_close(exported[0], expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(input=ASYMMETRIC),
        Recipe(input=QuantDescriptor(per_token=True)),
        Recipe("linear+matmul", input=ASYMMETRIC),
        Recipe("full"),
        Recipe(rules=(("disable", r"layer\.1\.output"),)),
    ],
    ids=["symmetric", "asymmetric", "per-token", "linear+matmul", "full", "with a float layer"],
)
def test_quantized_layers_are_those_of_torch_and_run_with_integers(quantized, recipe, batch, tmp_path):
    model = quantized(recipe)
    path = export_onnx(model, tmp_path / "a.onnx")
    audit = audit_fusion(path)
    audit.check()
    layers = 12 - len(recipe.rules)
    products = layers + (4 if recipe.slots else 0)
    assert (audit.expected, len(audit.integer)) == (products, products)
    differences = compare_layers(model, path, arrays(batch))
    assert len(differences) == layers
    # A number between two codes may fall to either; one of 20 such in a layer's input is far below this.
    assert max(differences.values()) < 2e-3


def test_smoothed_layers(quantized, calibrate, batch, tmp_path):
    model = quantized(Recipe(input=ASYMMETRIC))
    before = export_onnx(model, tmp_path / "before.onnx")
    with torch.no_grad():
        smooth(model, record_inputs(model, lambda: model(**batch)), 0.5)
    for quantizer in quantizers_of(model).values():
        quantizer.reset_amax()
        quantizer.calibrator.reset()
    model = calibrate(model, Recipe(input=ASYMMETRIC))
    after = export_onnx(model, tmp_path / "after.onnx")
    assert max(compare_layers(model, after, arrays(batch)).values()) < 2e-3
    audit_fusion(after).check()
    count = [audit_fusion(path).operations.get("Mul", 0) for path in (before, after)]
    assert count[1] > count[0]


def test_integers_are_stored_and_shared(quantized, tmp_path):
    import onnx

    model = quantized()
    graph = onnx.load(export_onnx(model, tmp_path / "a.onnx")).graph
    weights = {each.name: each for each in graph.initializer if each.name.endswith("weight_int8")}
    assert len(weights) == 12
    first = weights["encoder.layer.0.intermediate.dense.weight_int8"]
    assert list(first.dims) == [32, 64]
    layer = model.encoder.layer[0].intermediate.dense
    scale = (layer.weight_quantizer.amax / 127).detach()
    expected = torch.round(layer.weight.detach() / scale).T
    assert np.abs(onnx.numpy_helper.to_array(first) - expected.numpy()).max() <= 1
    assert sum(each.data_type == onnx.TensorProto.FLOAT and len(each.dims) == 2 for each in graph.initializer) == 4
    # One node for each layer, with its bias; the additions are those of the residuals, the embeddings and the mask.
    count = collections.Counter(node.op_type for node in graph.node)
    assert count["MatMulIntegerToFloat"] == 12
    assert all(len(node.input) == 7 for node in graph.node if node.op_type == "MatMulIntegerToFloat")
    assert count["DequantizeLinear"] == 0
    # Queries, keys and values of a layer are made of one tensor, quantized once.
    assert count["QuantizeLinear"] == 8
    assert not any(node.metadata_props for node in graph.node)


def test_embeddings_as_integers(batch, tmp_path, sizes, enlarge):
    bert = enlarge(modelwright.BertModel(modelwright.BertConfig(**{**sizes, "vocab_size": 400})))
    exact, small = (export_onnx(bert, tmp_path / f"{small}.onnx", quantize_embeddings=small) for small in (False, True))
    assert small.stat().st_size < exact.stat().st_size - 2.8 * 400 * 32
    one, other = (OnnxModel(path)(**batch).last_hidden_state for path in (exact, small))
    assert 0 < (one - other).abs().max() < 0.2
    assert torch.nn.functional.cosine_similarity(one, other, dim=-1).min() > 0.999


def test_tensorrt_gets_signed_integers_and_the_audit_says_what_that_costs_here(quantized, tmp_path):
    import onnx

    path = export_onnx(quantized(), tmp_path / "a.onnx", target="tensorrt")
    zeros = {
        each.data_type: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer if not each.dims
    }
    assert onnx.TensorProto.UINT8 not in zeros
    assert zeros[onnx.TensorProto.INT8] == 0
    audit = audit_fusion(path)
    assert "encoder.layer.0.attention.self.query/MatMul" in audit.stayed_float
    with pytest.raises(RuntimeError, match=r"of 12 quantized products with integers; in float: encoder.layer.0.*query"):
        audit.check()


def test_quantizers_that_cannot_be_exported_are_named_before_anything_is(quantized, bert, tmp_path):
    from modelwright.quantization import swap

    swap(bert, Recipe())
    with pytest.raises(ValueError, match=r"24 quantizers without a range; calibrate it.*layer.1.output.dense._weight"):
        export_onnx(bert, tmp_path / "a.onnx")
    model = quantized(Recipe(input=ASYMMETRIC))
    for name, quantizer in quantizers_of(model, "_input").items():
        quantizer._asymmetric = True
        quantizer.set_amax(torch.tensor(1.0), torch.tensor(-1.0))
        assert name
    with pytest.raises(ValueError, match=r"12 quantizers with a zero point or a range for each token, which TensorRT"):
        export_onnx(model, tmp_path / "a.onnx", target="tensorrt")
    quantizer = model.encoder.layer[1].output.dense.input_quantizer
    quantizer.reset_amax()
    quantizer.amax = [1.0, 2.0]
    with pytest.raises(ValueError, match=r"1 quantizers with a range for each channel of an activation, .*axis=None"):
        export_onnx(model, tmp_path / "a.onnx")
    next(iter(quantizers_of(model).values())).num_bits = 4
    with pytest.raises(ValueError, match="1 quantizers with 4 bits and fake_quant=True, expected 8 bits"):
        export_onnx(model, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_inputs_and_outputs_by_name(bert, batch, tmp_path):
    path = export_onnx(
        bert, tmp_path / "a.onnx", inputs=["inputs_embeds", "attention_mask"], outputs=["last_hidden_state"]
    )
    exported = OnnxModel(path)
    embeds = bert.embeddings.word_embeddings(batch["input_ids"]).detach()
    output = exported(inputs_embeds=embeds, attention_mask=batch["attention_mask"])
    assert list(output) == ["last_hidden_state"]
    with torch.no_grad():
        expected = bert(inputs_embeds=embeds, attention_mask=batch["attention_mask"])[0]
    torch.testing.assert_close(output[0], expected, atol=2e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"BertModel has no input 'ids'; it has input_ids"):
        export_onnx(bert, tmp_path / "a.onnx", inputs=["ids"])
    with pytest.raises(ValueError, match="returns no tensor 'logits'; it returns last_hidden_state, pooler_output"):
        export_onnx(bert, tmp_path / "a.onnx", outputs=["logits"])
    with pytest.raises(ValueError, match="export: target: expected one of onnxruntime-cpu, tensorrt, got 'gpu'"):
        export_onnx(bert, tmp_path / "a.onnx", target="gpu")


def test_nothing_is_printed(bert, tmp_path, capfd):
    export_onnx(bert, tmp_path / "a.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_model_of_operators_that_onnx_lacks(tmp_path):
    config = modelwright.ReformerConfig(is_decoder=True, attn_layers=["local", "lsh"], hash_seed=0)
    model = modelwright.ReformerModelWithLMHead(config)
    with pytest.raises(
        ValueError, match="ReformerModelWithLMHead cannot become an ONNX file: its attention is operators"
    ):
        export_onnx(model, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
