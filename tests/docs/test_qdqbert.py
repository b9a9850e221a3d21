"""The examples of the document on QDQBERT (spec 004): its lines in its order, with the imports replaced."""

import collections

import pytest
import torch

# PyTorch's exporter uses what PyTorch has declared out of date.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning", "ignore:# The axis name.:UserWarning"
)
WORDS = ["hello", ",", "my", "dog", "is", "cute"]
SIZES = {
    "vocab_size": 11,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}


@pytest.fixture
def checkpoint(tmp_path):
    """A folder in the place of bert-base-uncased."""
    from modelwright import BertConfig, BertForPreTraining, BertTokenizerFast

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    torch.manual_seed(0)
    BertForPreTraining(BertConfig(**SIZES)).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.fixture
def defaults(monkeypatch):
    """Let what the document sets be as before after a test."""
    import modelwright.quantization.nn as quant_nn

    for name in ("default_quant_desc_input", "default_quant_desc_weight"):
        monkeypatch.setattr(quant_nn.QuantLinear, name, getattr(quant_nn.QuantLinear, name))
    monkeypatch.setattr(quant_nn.TensorQuantizer, "use_fb_fake_quant", False)


def test_set_defaults_calibrate_and_export(checkpoint, defaults):
    import modelwright.quantization.nn as quant_nn
    from modelwright.quantization.tensor_quant import QuantDescriptor

    # The default tensor quantizer is set to use Max calibration method
    input_desc = QuantDescriptor(num_bits=8, calib_method="max")
    # The default tensor quantizer is set to be per-channel quantization for weights
    weight_desc = QuantDescriptor(num_bits=8, axis=((0,)))
    quant_nn.QuantLinear.set_default_quant_desc_input(input_desc)
    quant_nn.QuantLinear.set_default_quant_desc_weight(weight_desc)

    from modelwright import AutoTokenizer, QDQBertModel

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = QDQBertModel.from_pretrained(checkpoint)
    x = tokenizer("Hello, my dog is cute", return_tensors="pt").input_ids
    # Find the TensorQuantizer and enable calibration
    for name, module in model.named_modules():
        if name.endswith("_input_quantizer"):
            module.enable_calib()
            module.disable_quant()  # Use full precision data to calibrate
    # Feeding data samples
    model(x)
    # Finalize calibration
    for name, module in model.named_modules():
        if name.endswith("_input_quantizer"):
            module.load_calib_amax()
            module.enable_quant()
    # Keep running the quantized model
    expected = model(x)
    ranges = [module.amax for name, module in model.named_modules() if name.endswith("_input_quantizer")]
    assert len(ranges) == 2 * 14
    assert all(amax is not None for amax in ranges)

    from modelwright.quantization.nn import TensorQuantizer

    TensorQuantizer.use_fb_fake_quant = True
    # ONNX export
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=24)
    program = torch.onnx.export(
        model, (x.repeat(2, 1),), dynamic_shapes={"input_ids": {0: batch, 1: length}}, dynamo=True, verbose=False
    )
    count = collections.Counter(node.op_type for node in program.model_proto.graph.node)
    # Of a layer's 20 quantizers those of one tensor are one pair: queries, keys, values and the addition after them
    # share the layer's input, the intermediate layer and the addition after it the attention's output.
    assert count["QuantizeLinear"] == count["DequantizeLinear"] == 2 * (20 - 3 - 1)
    import onnxruntime

    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    found, *_ = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    # A number that lies between two codes may fall to either.
    assert torch.cosine_similarity(torch.from_numpy(found), expected[0], dim=-1).min() > 0.999
    longer = session.run(None, {session.get_inputs()[0].name: x.repeat(3, 2).numpy()})[0]
    assert longer.shape == (3, 16, 16)


def test_a_configuration_and_a_model_of_it(defaults):
    from modelwright import QDQBertConfig, QDQBertModel

    # Initializing a QDQBERT bert-base-uncased style configuration
    configuration = QDQBertConfig()
    assert (configuration.vocab_size, configuration.hidden_size, configuration.num_hidden_layers) == (30522, 768, 12)
    assert (configuration.pad_token_id, configuration.bos_token_id, configuration.eos_token_id) == (1, 0, 2)
    # Initializing a model from the configuration
    model = QDQBertModel(QDQBertConfig(**SIZES))
    # Accessing the model configuration
    configuration = model.config
    assert configuration.hidden_size == 16
    assert not QDQBertModel(configuration, add_pooling_layer=False).state_dict().keys() >= {"pooler.dense.weight"}


def test_last_hidden_states(checkpoint, defaults):
    from modelwright import AutoTokenizer, QDQBertModel

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = QDQBertModel.from_pretrained(checkpoint)
    inputs = tokenizer("Hello, my dog is cute", return_tensors="pt")
    outputs = model(**inputs)
    last_hidden_states = outputs.last_hidden_state
    assert last_hidden_states.shape == (1, 8, 16)
