"""The document's way to ONNX: the class switch, then the user's own torch.onnx.export with shapes that vary."""

import collections

import pytest
import torch
from torch import nn

from modelwright.quantization import QuantLinear, TensorQuantizer, calibrate_weights, calibrating, load_ranges
from modelwright.quantization.onnx_nodes import export_target

# PyTorch's exporter uses what PyTorch has declared out of date.
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = nn.Sequential(QuantLinear(8, 16), nn.ReLU(), QuantLinear(16, 4)).eval()
    with calibrating(model):
        model(torch.randn(20, 8))
    assert load_ranges(model) == []
    calibrate_weights(model, "max")
    return model


def exported(model):
    rows = torch.export.Dim("rows")
    program = torch.onnx.export(
        model, (torch.randn(3, 8),), dynamic_shapes=({0: rows},), dynamo=True, opset_version=21, verbose=False
    )
    return program.model_proto


@pytest.mark.parametrize(("target", "kind"), [("tensorrt", "INT8"), ("onnxruntime-cpu", "UINT8")])
def test_pairs_of_nodes_with_the_same_numbers(model, monkeypatch, target, kind):
    import onnxruntime as ort
    from onnx import TensorProto

    monkeypatch.setattr(TensorQuantizer, "use_fb_fake_quant", True)
    with export_target(target):
        graph = exported(model)
    count = collections.Counter(node.op_type for node in graph.graph.node)
    assert count["QuantizeLinear"] == count["DequantizeLinear"] == 4
    types = {init.name: init.data_type for init in graph.graph.initializer}
    zeros = [types[node.input[2]] for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros.count(getattr(TensorProto, kind)) >= 2
    session = ort.InferenceSession(graph.SerializeToString())
    first = nn.Sequential(*model[:1])
    x = torch.randn(7, 8)
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    # A number that lies between two codes may fall to either.
    assert (torch.from_numpy(y) - model(x)).abs().max() < 0.02
    assert first(x).shape == (7, 16)


def test_without_a_range_there_is_nothing_to_export():
    with pytest.raises(Exception, match="a quantizer without a range; calibrate it") as caught:
        exported(nn.Sequential(QuantLinear(8, 4)).eval())
    assert "load_calib_amax" in str(caught.value)


def test_unknown_target():
    with (
        pytest.raises(ValueError, match="export: target: expected one of onnxruntime-cpu, tensorrt, got 'cpu'"),
        export_target("cpu"),
    ):
        pass
