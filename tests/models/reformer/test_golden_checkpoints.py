"""Checkpoints that other releases of transformers saved (tools/golden_reformer.py) load whole and compute the same."""

import json
from pathlib import Path

import pytest
import torch

from modelwright import AutoModelForCausalLM, ReformerModelWithLMHead

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(("version", "weights"), [("4.37.2", "pytorch_model.bin"), ("5.23.0", "model.safetensors")])
def test_checkpoint_of_another_release(version, weights, tmp_path):
    folder = GOLDEN / version
    assert json.loads((folder / "config.json").read_text())["transformers_version"] == version
    assert (folder / weights).is_file()
    expected = json.loads((folder / "expected.json").read_text())
    model, info = ReformerModelWithLMHead.from_pretrained(folder, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    ids, logits = torch.tensor(expected["ids"]), torch.tensor(expected["logits"])
    with torch.no_grad():
        assert torch.allclose(model.eval()(ids).logits, logits, atol=1e-4)
        # The recorded logits have the bias, whether or not that release adds it.
        assert expected["bias_was_applied"] == (version != "5.23.0")
        model.lm_head.bias.zero_()
        assert not torch.allclose(model(ids).logits, logits, atol=0.1)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.num_buckets == [2, 2]
    assert model.dtype == torch.float32
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.allclose(ReformerModelWithLMHead.from_pretrained(tmp_path)(ids).logits, logits, atol=1e-4)
