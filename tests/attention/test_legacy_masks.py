"""The 4.x mask helpers, against the builders and written-out rules."""

import pytest
import torch

from modelwright.attention.masks import create_causal_mask, create_sliding_window_causal_mask
from modelwright.core.errors import InputError
from modelwright.modeling_attn_mask_utils import (
    AttentionMaskConverter,
    _create_4d_causal_attention_mask,
    _prepare_4d_attention_mask,
    _prepare_4d_attention_mask_for_sdpa,
    _prepare_4d_causal_attention_mask,
    _prepare_4d_causal_attention_mask_for_sdpa,
)

PADDING = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
LOWEST = torch.finfo(torch.float32).min


def test_the_helpers_equal_the_builders(config, embeds):
    eager = config(_attn_implementation="eager", sliding_window=2)
    full, sliding = (
        build(eager, embeds(2, 5), PADDING) for build in (create_causal_mask, create_sliding_window_causal_mask)
    )
    assert torch.equal(_prepare_4d_causal_attention_mask(PADDING, (2, 5), embeds(2, 5), 0), full)
    assert torch.equal(_prepare_4d_causal_attention_mask(PADDING, (2, 5), embeds(2, 5), 0, sliding_window=2), sliding)
    assert torch.equal(_prepare_4d_causal_attention_mask(PADDING, (2, 2), embeds(2, 2), 3), full[:, :, 3:])
    assert torch.equal(_prepare_4d_causal_attention_mask(PADDING, (2, 1), embeds(2, 1), 4), full[:, :, 4:])
    assert torch.equal(_prepare_4d_causal_attention_mask(None, (1, 5), embeds(1, 5), 0), full[1:])
    ready = (full == 0).long()
    assert torch.equal(_prepare_4d_causal_attention_mask(ready, (2, 5), embeds(2, 5), 0), full)
    assert torch.equal(_create_4d_causal_attention_mask((1, 2), torch.float32, "cpu", 3), full[1:, :, 3:])
    assert _create_4d_causal_attention_mask((1, 1), torch.float32, "cpu", 3) is None


def test_sdpa_variants_leave_out_and_unmask(embeds):
    ones = torch.ones(2, 5)
    assert _prepare_4d_causal_attention_mask_for_sdpa(ones, (2, 5), embeds(2, 5), 0) is None
    assert _prepare_4d_causal_attention_mask_for_sdpa(None, (2, 1), embeds(2, 1), 4) is None
    assert _prepare_4d_causal_attention_mask_for_sdpa(None, (2, 2), embeds(2, 2), 3) is not None
    mask = _prepare_4d_causal_attention_mask_for_sdpa(PADDING, (2, 5), embeds(2, 5), 0)
    assert (mask[0, 0, :2] == 0).all() and (mask[0, 0, 2] == torch.tensor([LOWEST, LOWEST, 0, LOWEST, LOWEST])).all()
    assert _prepare_4d_attention_mask_for_sdpa(ones, torch.float32) is None
    wide = _prepare_4d_attention_mask(PADDING, torch.float32, tgt_len=3)
    assert wide.shape == (2, 1, 3, 5) and torch.equal(wide[:, 0, 1] == 0, PADDING.bool())
    assert torch.equal(_prepare_4d_attention_mask_for_sdpa(PADDING, torch.float32, 3), wide)


def test_unmask_unattended_on_the_documented_example():
    padding = torch.tensor([[0, 0, 1], [1, 1, 1], [0, 1, 1]])
    mask = AttentionMaskConverter(is_causal=True).to_4d(padding, 3, torch.float32, key_value_length=3)
    found = AttentionMaskConverter._unmask_unattended(mask, LOWEST) == 0
    assert found[:, 0].int().tolist() == [
        [[1, 1, 1], [1, 1, 1], [0, 0, 1]],
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
        [[1, 1, 1], [0, 1, 0], [0, 1, 1]],
    ]
    with pytest.raises(InputError, match="expected an additive mask, got booleans"):
        AttentionMaskConverter._unmask_unattended(mask == 0, LOWEST)


def test_a_window_of_w_sees_w_tokens():
    mask = AttentionMaskConverter(is_causal=True, sliding_window=2).to_causal_4d(1, 5, 5, torch.float32)
    assert (mask == 0).sum(-1).flatten().tolist() == [1, 2, 2, 2, 2]


def test_wrong_calls(embeds):
    with pytest.raises(InputError, match="expected sliding_window to be positive or None, got 0"):
        AttentionMaskConverter(is_causal=True, sliding_window=0)
    with pytest.raises(InputError, match="made with is_causal=False"):
        AttentionMaskConverter(is_causal=False).to_causal_4d(1, 2, 2, torch.float32)
    with pytest.raises(InputError, match="a causal converter needs key_value_length"):
        AttentionMaskConverter(is_causal=True).to_4d(PADDING, 5, torch.float32)
    with pytest.raises(InputError, match="expected a padding mask of 6 tokens, got 5"):
        AttentionMaskConverter(is_causal=True).to_4d(PADDING, 5, torch.float32, key_value_length=6)
    with pytest.raises(NotImplementedError, match="a sliding window needs is_causal=True"):
        AttentionMaskConverter(is_causal=False, sliding_window=2).to_4d(PADDING, 5, torch.float32)
    with pytest.raises(InputError, match=r"4D attention_mask shape: \(2, 1, 4, 5\); expected: \(2, 1, 5, 5\)"):
        _prepare_4d_causal_attention_mask(torch.ones(2, 1, 4, 5), (2, 5), embeds(2, 5), 0)
