"""What we push, transformers 4.57.1 reads from the same hub, and the reverse."""

import pytest
import torch

from modelwright import GPT2Config, GPT2LMHeadModel

pytestmark = pytest.mark.parity

SHAPE = {"vocab_size": 11, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2}
IDS = torch.tensor([[1, 5, 2, 8]])


@pytest.mark.parametrize("size", ["5GB", 4000])
def test_both_read_what_the_other_pushed(hub, tmp_path, size):
    import transformers

    torch.manual_seed(0)
    ours = GPT2LMHeadModel(GPT2Config(**SHAPE, initializer_range=0.3)).eval()
    ours.push_to_hub("org/ours", token="hf_writer", max_shard_size=size)
    theirs = transformers.GPT2LMHeadModel.from_pretrained("org/ours", cache_dir=tmp_path)
    expected = ours(IDS).logits
    torch.testing.assert_close(theirs(IDS).logits, expected)
    theirs.push_to_hub("org/theirs", token="hf_writer", max_shard_size=size)
    back = GPT2LMHeadModel.from_pretrained("org/theirs", cache_dir=tmp_path)
    assert torch.equal(back(IDS).logits, expected)
    assert back.load_report.missing_keys == back.load_report.unexpected_keys == []
