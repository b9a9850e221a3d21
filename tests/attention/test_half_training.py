"""Training in half precision attends as torch's kernel does; its gradients are those of fp32."""

import pytest
import torch
from torch.nn import functional as F

from modelwright.attention import sdpa
from modelwright.attention.half_training import attend_half_training, suits_half_training

B, H, T, S, D = 3, 2, 21, 37, 8


def states(dtype=torch.bfloat16, queries=T):
    torch.manual_seed(0)
    draw = lambda tokens: torch.randn(B, tokens, H, D).to(dtype).transpose(1, 2).requires_grad_()  # noqa: E731
    return draw(queries), draw(S), draw(S)


def masks():
    torch.manual_seed(0)
    rows = torch.rand(B, 1, 1, S) < 0.5
    rows[1] = False  # nothing may be seen
    whole = torch.rand(B, H, T, S) < 0.5
    whole[..., 0] = True
    added = torch.where(whole, torch.randn(B, H, T, S), -torch.inf)
    return {"none": None, "of rows": rows, "of queries": whole, "added": added.bfloat16(), "causal": None}


@pytest.mark.parametrize("kind", list(masks()))
@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, None), (torch.float16, 0.7)])
def test_values_are_torchs_and_gradients_those_of_fp32(dtype, scale, kind):
    tensors, mask, causal = states(dtype), masks()[kind], kind == "causal"
    mask = mask.to(dtype) if kind == "added" else mask
    assert suits_half_training(*tensors, mask)
    found = attend_half_training(*tensors, mask, scale, causal)
    wanted = F.scaled_dot_product_attention(*tensors, attn_mask=mask, scale=scale, is_causal=causal)
    assert torch.equal(found, wanted)
    doubles = [each.detach().double().requires_grad_() for each in tensors]
    added = mask.double() if kind == "added" else mask
    exact = F.scaled_dot_product_attention(*doubles, attn_mask=added, scale=scale, is_causal=causal)
    grad = torch.randn_like(found)
    true = torch.autograd.grad(exact, doubles, grad.double())
    error = 1.5 * torch.finfo(dtype).eps
    for left, right in zip(torch.autograd.grad(found, tensors, grad), true, strict=True):
        assert left.dtype == dtype
        right = right.nan_to_num(0.0)
        assert (left - right).norm() < error * right.norm()
        if kind == "of rows":
            assert not left[1].any()


def test_what_is_left_to_torch(monkeypatch):
    called = []
    monkeypatch.setattr(sdpa, "attend_half_training", lambda *args: called.append(1) or attend_half_training(*args))

    class Layer:
        training = True

    def uses(query, key, value, mask=None, **options):
        called.clear()
        output, _ = sdpa.sdpa_attention_forward(Layer(), query, key, value, mask, is_causal=False, **options)
        assert output.shape == (query.shape[0], query.shape[2], query.shape[1], value.shape[3])
        return bool(called)

    query, key, value = states()
    assert uses(query, key, value)
    assert not uses(query, key, value, dropout=0.5)
    assert not uses(*states(torch.float32))
    assert not uses(*states(queries=600))
    assert not uses(*(each.detach() for each in (query, key, value)))
    assert not uses(query, key, value, torch.zeros(1, 1, T, S, dtype=torch.bfloat16, requires_grad=True))
    assert not uses(query, key[:, :1], value[:, :1])
    assert not uses(query, key, torch.cat([value, value], dim=-1))
    with torch.no_grad():
        assert not uses(query, key, value)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert not uses(query, key, value)
