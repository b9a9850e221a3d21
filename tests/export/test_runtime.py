"""Sessions, and the model around one."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from modelwright.core import optional
from modelwright.export import session as sessions
from modelwright.export.onnx import export_onnx
from modelwright.export.runtime import OnnxModel
from modelwright.quantization import Recipe, quantizers_of

LOAD = """
import json, sys
from modelwright.export.runtime import OnnxModel
model = OnnxModel.from_pretrained(sys.argv[1])
output = model([[1, 2, 3]])
print(json.dumps([type(output).__name__, model.config.hidden_size, output[0].tolist()]))
"""


@pytest.fixture
def folder(quantized, tmp_path):
    model = quantized(Recipe())
    model.save_pretrained(tmp_path)
    export_onnx(model, tmp_path / "model.onnx")
    return tmp_path


def test_a_fresh_process_gives_the_same_and_no_range_is_lost(folder, bert):
    model = OnnxModel.from_pretrained(folder)
    here = model([[1, 2, 3]])
    code = subprocess.run([sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, check=True)
    name, width, values = json.loads(code.stdout)
    assert (name, width) == (type(here).__name__, 32)
    assert torch.equal(torch.tensor(values), here[0])
    loaded = type(bert).from_pretrained(folder)
    ranges, expected = (
        {name: quantizer.amax for name, quantizer in quantizers_of(each).items()} for each in (loaded, bert)
    )
    assert len(ranges) == 24
    for name, value in expected.items():
        assert torch.equal(ranges[name], value)
    again = OnnxModel(export_onnx(loaded, folder / "again.onnx"))
    assert torch.equal(again([[1, 2, 3]])[0], here[0])


def test_calls(folder):
    model = OnnxModel(folder / "model.onnx", threads=1)
    ids = torch.tensor([[1, 2, 3]])
    full = model(ids, attention_mask=torch.ones_like(ids), token_type_ids=np.zeros((1, 3), dtype=np.int64))
    assert torch.equal(full[0], model(input_ids=ids)[0])
    assert isinstance(model(ids, return_dict=False), tuple)
    with pytest.raises(TypeError, match=r"OnnxModel got an unknown keyword 'attention_maks'. Did you mean"):
        model(ids, attention_maks=ids)
    with pytest.raises(ValueError, match="OnnxModel: expected input_ids, got attention_mask"):
        model(attention_mask=ids)


def test_inputs_of_other_types_are_cast_where_that_keeps_their_values(folder):
    model = OnnxModel(folder / "model.onnx", threads=1)
    ids, mask = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 1, 0]])
    wanted = model(ids, attention_mask=mask)[0]
    for dtype in (torch.bool, torch.int32, torch.float32, torch.bfloat16, torch.float64):
        assert torch.equal(model(ids.int(), attention_mask=mask.to(dtype))[0], wanted)
    assert torch.equal(model(ids.tolist(), attention_mask=mask.bool().tolist())[0], wanted)
    with pytest.raises(
        ValueError, match="whole numbers of int64 for attention_mask, got float32 with others, such as -i"
    ):
        model(ids, attention_mask=(1 - mask.float()) * torch.finfo(torch.float32).min * 2)
    with pytest.raises(ValueError, match="whole numbers of int64 for input_ids, got float32 with others, such as 1.5"):
        model(ids + 0.5)


def test_bad_files_and_missing_packages(tmp_path, monkeypatch):
    with pytest.raises(OSError, match=r"make_session: expected an ONNX file, there is none at .*a\.onnx"):
        sessions.make_session(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(sessions._product(8, integers=False))
    with pytest.raises(ValueError, match="expected at least 1 thread, got 0"):
        sessions.make_session(tmp_path / "b.onnx", 0)
    with pytest.raises(OSError, match=r"b\.onnx: expected an ONNX file written by export_onnx"):
        OnnxModel(tmp_path / "b.onnx")
    monkeypatch.setattr(optional, "is_available", lambda name: name != "onnxruntime")
    with pytest.raises(ImportError, match=r"'onnxruntime', which is not installed: pip install 'modelwright\[onnx\]'"):
        sessions.make_session(tmp_path / "b.onnx")


def test_a_processor_without_integer_instructions_is_told(monkeypatch, folder, caplog):
    assert sessions.int8_speedup(size=64, tokens=8, repeats=2) > 0
    monkeypatch.setattr(sessions, "has_int8_instructions", lambda: False)
    monkeypatch.setattr(sessions, "int8_speedup", lambda: 0.75)
    said = []
    monkeypatch.setattr(sessions.logger, "warning_once", said.append)
    OnnxModel(folder / "model.onnx")
    assert len(said) == 1
    assert "at 0.8 times the speed of float ones here (measured)" in said[0]
