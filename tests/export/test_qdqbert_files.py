"""QDQBERT with every head: saved, loaded, exported for both targets, and run in a fresh process."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import modelwright
from modelwright.export.audit import audit_fusion
from modelwright.export.onnx import export_onnx
from modelwright.export.runtime import OnnxModel
from modelwright.quantization import calibrate_weights, calibrating, load_ranges, quantizers_of

HEADS = ["Model", "LMHeadModel", "ForMaskedLM", "ForNextSentencePrediction", "ForSequenceClassification"]
HEADS += ["ForMultipleChoice", "ForTokenClassification", "ForQuestionAnswering"]
TARGETS = ["onnxruntime-cpu", "tensorrt"]
IDS = torch.arange(1, 31).view(2, 3, 5) * 3

# Runs all files, and the checkpoints as the quantized models that their configs say they are.
RUN = """
import sys
from pathlib import Path
import numpy as np
import torch
import modelwright
from modelwright.export.runtime import OnnxModel
root = Path(sys.argv[1])
ids = torch.from_numpy(np.load(root / "ids.npy"))
found = {}
for folder in filter(Path.is_dir, root.iterdir()):
    own = ids if folder.name == "ForMultipleChoice" else ids[:, 0]
    model = getattr(modelwright, "QDQBert" + folder.name).from_pretrained(folder).eval()
    with torch.inference_mode():
        found[f"{folder.name} torch"] = model(own)[0].numpy()
    for path in folder.glob("*.onnx"):
        found[f"{folder.name} {path.stem}"] = OnnxModel(path, threads=1)(own)[0].numpy()
np.savez(root / "found.npz", **found)
"""


def ids_of(head):
    return IDS if head == "ForMultipleChoice" else IDS[:, 0]


def calibrated(head):
    torch.manual_seed(0)
    config = modelwright.QDQBertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        initializer_range=0.3,
        is_decoder=head == "LMHeadModel",
    )
    model = getattr(modelwright, f"QDQBert{head}")(config).eval()
    with calibrating(model), torch.no_grad():
        model(ids_of(head))
    assert load_ranges(model) == []
    calibrate_weights(model, "max")
    return model


@pytest.fixture(
    scope="module", params=[HEADS[:2], pytest.param(HEADS[2:], marks=pytest.mark.slow)], ids=["two", "rest"]
)
def files(request, tmp_path_factory):
    """The folder of some heads, their models here, and what a fresh process computes of the files."""
    root = tmp_path_factory.mktemp("qdqbert")
    np.save(root / "ids.npy", IDS.numpy())
    models = {}
    for head in request.param:
        models[head] = calibrated(head)
        models[head].save_pretrained(root / head)
        loaded = type(models[head]).from_pretrained(root / head).eval()
        for target in TARGETS:
            export_onnx(loaded, root / head / f"{target}.onnx", target=target)
    subprocess.run([sys.executable, "-c", RUN, str(root)], check=True)
    return root, models, dict(np.load(root / "found.npz"))


def test_a_fresh_process_computes_the_same(files):
    root, models, found = files
    for head, model in models.items():
        with torch.inference_mode():
            expected = model(ids_of(head))[0].numpy()
        np.testing.assert_allclose(found[f"{head} torch"], expected, rtol=1e-5, atol=1e-5)
        for target in TARGETS:
            here = OnnxModel(root / head / f"{target}.onnx", threads=1)(ids_of(head))[0].numpy()
            there = found[f"{head} {target}"]
            assert np.array_equal(there, here), (head, target)
            # A number between two codes may fall to either, and what comes after it goes the other way.
            cosine = np.sum(there * expected) / np.linalg.norm(there) / np.linalg.norm(expected)
            assert cosine > 0.995, (head, target)
        audit_fusion(root / head / "onnxruntime-cpu.onnx").check()


@pytest.mark.parametrize("target", TARGETS)
def test_no_range_is_lost(files, target):
    import onnx

    root, models, _ = files
    for head, model in models.items():
        graph = onnx.load(root / head / f"{target}.onnx").graph
        tensors = list(graph.initializer)
        tensors += [each.t for node in graph.node for each in node.attribute if node.op_type == "Constant"]
        constants = [onnx.numpy_helper.to_array(each) for each in tensors if each.data_type == onnx.TensorProto.FLOAT]
        quantizers = quantizers_of(model)
        assert len(quantizers) == 20
        for name, quantizer in quantizers.items():
            scale = (quantizer.amax / 127).flatten().numpy()
            there = [each for each in constants if each.size == scale.size]
            assert any(np.allclose(each.flatten(), scale, rtol=1e-6, atol=0) for each in there), (head, name)
