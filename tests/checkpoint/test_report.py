"""Keys folded over layers, and summaries from headers."""

import json

import pytest
import torch

from modelwright.checkpoint.inspect import summarise
from modelwright.checkpoint.open import open_checkpoint
from modelwright.checkpoint.report import fold_keys, merge_keys
from modelwright.checkpoint.save import save_checkpoint
from modelwright.hub.local import LocalRepo


@pytest.mark.parametrize(
    ("keys", "merged"),
    [
        ([], []),
        (["a"], ["a"]),
        (["l.0.w", "l.1.w", "l.2.w"], ["l.{0..2}.w"]),
        (["l.1.w"], ["l.1.w"]),
        (["l.0.w", "l.2.w", "l.3.w", "l.7.w"], ["l.{0,2..3,7}.w"]),
        ([f"l.{i}.e.{j}.w" for i in range(12) for j in range(3)], ["l.{0..11}.e.{0..2}.w"]),
        (["l.0.e.0.w", "l.0.e.1.w", "l.1.e.0.w"], ["l.0.e.{0..1}.w", "l.1.e.0.w"]),
        (["l.0.w", "l.1.b", "l.1.w"], ["l.1.b", "l.{0..1}.w"]),
        (["0", "1"], ["{0..1}"]),
        (["w.0", "w.1", "w"], ["w", "w.{0..1}"]),
        (["l.10.w", "l.9.w", "k"], ["k", "l.{9..10}.w"]),
        (["h.2.a", "h.10.b"], ["h.2.a", "h.10.b"]),
    ],
)
def test_merge_keys(keys, merged):
    assert merge_keys(keys) == merged
    assert sorted(name for names in fold_keys(keys).values() for name in names) == sorted(keys)


def test_summary(tmp_path):
    state = {f"layers.{i}.weight": torch.ones(2, 3, dtype=torch.float16) for i in range(4)}
    save_checkpoint({**state, "step": torch.tensor(3)}, tmp_path)
    with open_checkpoint(LocalRepo(tmp_path)) as checkpoint:
        summary = summarise(checkpoint)
    data = json.loads(json.dumps(summary.to_dict()))
    assert data["tensors"] == 5
    assert data["parameters"] == 25
    assert data["bytes"] == 56
    assert data["bytes_by_dtype"] == {"float16": 48, "int64": 8}
    assert data["files"] == {"model.safetensors": (tmp_path / "model.safetensors").stat().st_size}
    layers = next(key for key in data["keys"] if key["count"] == 4)
    assert layers == {"name": "layers.{0..3}.weight", "dtype": "float16", "shape": [2, 3], "count": 4, "nbytes": 48}
    assert "layers.{0..3}.weight  4        float16  2 x 3   48" in str(summary)
    assert str(summary).endswith("25 parameters in 5 tensors, 56 bytes (float16 48, int64 8)")
