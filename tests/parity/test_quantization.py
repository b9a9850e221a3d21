"""Fake quantization, calibration and quantized layers against pytorch-quantization 2.1.3, to the bit."""

import itertools
import warnings

import pytest
import torch

from modelwright.quantization import calibrators, descriptor, fake_quant, layers, quantizer, weight_calibration

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def oracle():
    """The toolkit, without its log."""
    from absl import logging

    logging.set_verbosity(logging.FATAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.script, at its import
        import pytorch_quantization
        import pytorch_quantization.calib
        import pytorch_quantization.nn
        import pytorch_quantization.tensor_quant
    return pytorch_quantization


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    # The toolkit moves to CUDA what it should leave where it is.
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    torch.manual_seed(0)


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
@pytest.mark.parametrize(
    ("bits", "unsigned", "narrow", "dtype"),
    list(itertools.product((2, 4, 8, 16), (False, True), (False, True), (torch.float32, torch.float16))),
)
def test_values_and_gradients(oracle, bits, unsigned, narrow, dtype):
    x = torch.randn(300, 7) * 3
    x = x.abs() if unsigned else x
    for amax in (torch.tensor(2.3), x.abs().amax(dim=0, keepdim=True) * 0.7, torch.tensor(0.0)):
        ours, theirs = x.to(dtype).requires_grad_(), x.to(dtype).requires_grad_()
        settings = (bits, unsigned, narrow)
        result = fake_quant.fake_tensor_quant(ours, amax, *settings)
        expected = oracle.tensor_quant.fake_tensor_quant(theirs, amax, *settings)
        assert torch.equal(result, expected)
        gradient = torch.randn_like(expected)
        result.backward(gradient), expected.backward(gradient)
        assert torch.equal(ours.grad, theirs.grad)
        if dtype == torch.float32:
            integers, scale = fake_quant.tensor_quant(ours, amax, *settings)
            expected_integers, expected_scale = oracle.tensor_quant.tensor_quant(theirs, amax, *settings)
            assert torch.equal(integers, expected_integers)
            assert torch.equal(scale, expected_scale)


def test_affine(oracle):
    x = torch.randn(500)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    limits = torch.tensor(-1.1), torch.tensor(1.9)
    result = fake_quant.fake_affine_tensor_quant(ours, *limits, 6)
    expected = oracle.tensor_quant.fake_affine_tensor_quant(theirs, *limits, 6)
    assert torch.equal(result, expected)
    result.sum().backward(), expected.sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


TENSORS = {
    "normal": lambda j: torch.randn(500, 8),
    "growing": lambda j: torch.randn(500, 8) * (1 + j),
    "gelu": lambda j: torch.nn.functional.gelu(torch.randn(500, 8) * (1 + j)),
    "peaked": lambda j: torch.rand(4000) ** 8,
    "sparse": lambda j: torch.relu(torch.randn(600) - 2) * 10,
}


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("kind", TENSORS)
def test_histogram_ranges(oracle, kind, unsigned, bits):
    theirs = oracle.calib.HistogramCalibrator(bits, None, unsigned, num_bins=512)
    ours = calibrators.HistogramCalibrator(bits, None, unsigned, num_bins=512)
    for j in range(2):
        x = TENSORS[kind](j)
        theirs.collect(x), ours.collect(x)
    assert torch.equal(ours._calib_bin_edges, theirs._calib_bin_edges)
    assert torch.equal(ours._calib_hist, theirs._calib_hist.long())
    for method, more in (("percentile", {"percentile": 99.9}), ("percentile", {}), ("mse", {}), ("entropy", {})):
        settings = {"stride": 7, **more} if method != "percentile" else more
        expected = theirs.compute_amax(method, **settings)
        assert torch.equal(ours.compute_amax(method, **settings), expected), method


@pytest.mark.parametrize("outputs", [12, 1])
def test_linear_layer_and_weight_ranges(oracle, outputs):
    theirs, ours = oracle.nn.QuantLinear(20, outputs), layers.QuantLinear(20, outputs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(5, 20)
    assert torch.equal(ours(x), theirs(x))
    for method in ("max", "percentile", "mse"):
        oracle.calib.calibrate_weights(theirs, method, num_bins=256)
        weight_calibration.calibrate_weights(ours, method, num_bins=256)
        assert torch.equal(ours.weight_quantizer.amax, theirs.weight_quantizer.amax), method
        assert torch.equal(ours(x), theirs(x))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())


DESCRIPTORS = [
    {},
    {"axis": 0},
    {"axis": (0,)},
    {"unsigned": True},
    {"learn_amax": True},
    {"learn_amax": True, "amax": 2.0},
    {"amax": 3.0, "narrow_range": True},
    {"amax": [1.0, 2.0], "axis": 0},
    {"calib_method": "histogram", "scale_amax": 0.5},
    {"fake_quant": False},
    {"num_bits": 4, "name": "weights"},
]


@pytest.mark.parametrize("settings", DESCRIPTORS, ids=str)
def test_descriptor_text(oracle, settings):
    assert str(descriptor.QuantDescriptor(**settings)) == str(oracle.tensor_quant.QuantDescriptor(**settings))


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
@pytest.mark.parametrize("settings", [s for s in DESCRIPTORS if s.get("amax") != [1.0, 2.0]], ids=str)
def test_quantizer_through_calibration(oracle, settings):
    theirs = oracle.nn.TensorQuantizer(oracle.tensor_quant.QuantDescriptor(**settings))
    ours = quantizer.TensorQuantizer(descriptor.QuantDescriptor(**settings))
    x = torch.randn(8, 9).abs()

    def same():
        assert repr(ours) == repr(theirs)
        assert torch.equal(ours(x), theirs(x))
        state, expected = ours.state_dict(), theirs.state_dict()
        assert list(state) == list(expected)
        assert all(torch.equal(state[name], expected[name]) for name in state)

    same()
    for each in (ours, theirs):
        each.enable_calib(), each.disable_quant(), each(x)
    same()
    for each in (ours, theirs):
        each.load_calib_amax(*(["mse"] if "calib_method" in settings else []))
        each.enable_quant(), each.disable_calib()
    same()
    if settings.get("learn_amax"):
        grads = []
        for each in (ours, theirs):
            each.init_learn_amax()
            each.clip.clip_value_max.data *= 0.5
            y = x.clone().requires_grad_()
            (each(y) * torch.arange(9.0)).sum().backward()
            grads.append((y.grad, each.clip.clip_value_max.grad, each.clip.clip_value_min.grad))
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


QDQ = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
    "initializer_range": 0.3,
    "hidden_act": "gelu",
}


@pytest.fixture
def both_models(oracle):
    """QDQBERT of transformers 4.57.1 on the toolkit, calibrated, and ours with its state."""
    from transformers.models.deprecated.qdqbert import configuration_qdqbert, modeling_qdqbert

    from modelwright import QDQBertConfig, QDQBertModel

    oracle.nn.QuantLinear.set_default_quant_desc_weight(oracle.tensor_quant.QuantDescriptor(axis=0))
    theirs = modeling_qdqbert.QDQBertModel(configuration_qdqbert.QDQBertConfig(**QDQ)).eval()
    ids = torch.arange(1, 13).view(2, 6) * 3
    quantizers = [module for module in theirs.modules() if isinstance(module, oracle.nn.TensorQuantizer)]
    for each in quantizers:
        each.enable_calib(), each.disable_quant()
    theirs(ids)
    for each in quantizers:
        each.load_calib_amax(), each.enable_quant(), each.disable_calib()
    ours = QDQBertModel(QDQBertConfig(**QDQ)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs, ids


def test_qdqbert_layer_by_layer(both_models):
    """Each of our layers gets what theirs got: a model with rounding in it spreads the smallest difference."""
    ours, theirs, ids = both_models
    mask = torch.ones(2, 6)
    mask[1, 4:] = 0
    expected = theirs(ids, attention_mask=mask, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(ours.embeddings(ids), expected.hidden_states[0], atol=1e-6, rtol=0)
    extended = theirs.get_extended_attention_mask(mask, ids.shape)
    for layer, inputs, outputs in zip(
        ours.encoder.layer, expected.hidden_states, expected.hidden_states[1:], strict=False
    ):
        result = layer(inputs, extended)[0]
        torch.testing.assert_close(result, outputs, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.pooler(expected.last_hidden_state), expected.pooler_output, atol=1e-6, rtol=0)
    assert repr(ours.encoder.layer[0].output.dense) == repr(theirs.encoder.layer[0].output.dense)


def test_their_calibrated_checkpoint_loads_from_a_folder(both_models, tmp_path):
    from modelwright import QDQBertModel
    from modelwright.quantization import quantizers_of

    ours, theirs, ids = both_models
    theirs.save_pretrained(tmp_path)
    loaded = QDQBertModel.from_pretrained(tmp_path, strict=True)
    assert all(quantizer.is_calibrated for quantizer in quantizers_of(loaded).values())
    assert torch.equal(loaded(ids)[0], ours(ids)[0])


@pytest.mark.parametrize(
    "name",
    ["Model", "LMHeadModel", "ForMaskedLM", "ForNextSentencePrediction", "ForSequenceClassification",
     "ForMultipleChoice", "ForTokenClassification", "ForQuestionAnswering"],
)  # fmt: skip
def test_qdqbert_names_and_signatures(oracle, name):
    import inspect

    from transformers.models.deprecated.qdqbert import configuration_qdqbert, modeling_qdqbert

    import modelwright

    settings = {**QDQ, "is_decoder": name == "LMHeadModel"}
    theirs_class, ours_class = (getattr(module, f"QDQBert{name}") for module in (modeling_qdqbert, modelwright))
    theirs = theirs_class(configuration_qdqbert.QDQBertConfig(**settings))
    ours = ours_class(modelwright.QDQBertConfig(**settings))
    assert set(ours.state_dict()) == set(theirs.state_dict())
    expected = list(inspect.signature(theirs_class.forward).parameters)
    assert list(inspect.signature(ours_class.forward).parameters)[: len(expected)] == expected
