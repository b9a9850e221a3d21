"""Packing: the real tokens in one row give what each sequence gives alone, wherever its padding is."""

import pytest
import torch

from modelwright.attention.eager import eager_attention_forward
from modelwright.attention.packing import Packing, Unpaddable, leaving_out_padding, packing_of
from modelwright.attention.sdpa import sdpa_attention_forward

MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0]])


def test_unpack_is_the_way_back():
    x = torch.randn(5, 5, 3, requires_grad=True)
    packing = Packing.of_mask(MASK)
    packed = packing.pack(x)
    assert packed.shape == (1, 14, 3) and packing.lengths == [3, 3, 5, 3, 0]
    back = packing.unpack(packed)
    assert torch.equal(back, x * MASK[..., None])
    back.sum().backward()
    assert torch.equal(x.grad, MASK[..., None].expand(5, 5, 3).float())


@pytest.mark.parametrize("kernel", [eager_attention_forward, sdpa_attention_forward])
@pytest.mark.parametrize("biased", [False, True])
def test_attention_equals_the_masked_one(kernel, biased):
    q, k, v = torch.randn(3, 5, 2, 5, 4).unbind(0)
    bias = torch.randn(1, 2, 5, 5) if biased else None
    scores = torch.where(MASK[:, None, None].bool(), 0.0 if bias is None else bias, -torch.inf)
    wanted = sdpa_attention_forward(None, q, k, v, scores.expand(5, 2, 5, 5), is_causal=False)[0]
    packing = Packing.of_mask(MASK)
    packed = (packing.pack(x.transpose(1, 2).flatten(2)).unflatten(2, (2, 4)).transpose(1, 2) for x in (q, k, v))
    found = packing.attend(kernel, None, *packed, bias=bias)
    torch.testing.assert_close(packing.unpack(found.flatten(2)), wanted.flatten(2) * MASK[..., None])


def test_only_a_padding_mask_of_an_unpadded_encoder_is_packed():
    encoder = Unpaddable()
    assert packing_of(encoder, MASK) is None
    encoder.unpadded = True
    assert packing_of(encoder, MASK).lengths == [3, 3, 5, 3, 0]
    for other in (None, torch.ones(2, 3), torch.zeros(2, 3), MASK[:, None, None].bool()):
        assert packing_of(encoder, other) is None


def test_a_caller_who_looks_at_no_padding_lets_encoders_leave_it_out_where_it_pays():
    encoder, stack = Unpaddable(), Unpaddable()
    stack.can_unpad = False
    short, long = torch.ones(2, 32), torch.ones(2, 32)
    short[0, 1:], long[0, 2:] = 0, 0  # 31 and 30 tokens of padding in two rows.
    with leaving_out_padding():
        assert packing_of(encoder, short) is None and packing_of(stack, short) is None
        short[1, 31:] = 0
        assert packing_of(encoder, short).lengths == [1, 31]
        assert packing_of(encoder, long) is None and packing_of(stack, short) is None
    assert packing_of(encoder, short) is None
