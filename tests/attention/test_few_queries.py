"""A few queries, written out, attend as torch's kernel lets them, and others are left to it."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from modelwright.attention import sdpa
from modelwright.attention.few_queries import attend_few, suits_few

B, H, D = 3, 16, 8


def states(queries=2, keys=9, size=D):
    """Queries, keys and values as layers hand them on: of a projection, of a cache with room to spare."""
    torch.manual_seed(0)
    query = torch.randn(B, queries, H, D).transpose(1, 2)
    key, value = (torch.randn(B, H, keys + 5, size)[:, :, :keys] for size in (D, size))
    return query, key, value


def masks(queries, keys):
    rows = torch.rand(B, 1, 1, keys) < 0.5
    rows[1] = False  # nothing may be seen
    return {"none": None, "of rows": rows, "of queries": torch.rand(B, 1, queries, keys) < 0.5}


@pytest.mark.parametrize("kind", ["none", "of rows", "of queries"])
@pytest.mark.parametrize(("queries", "scale"), [(1, None), (2, 0.3), (16, 1.0)])
@torch.no_grad()
def test_it_is_torchs_attention(queries, scale, kind):
    query, key, value = states(queries, 130, size=6)
    mask = masks(queries, 130)[kind]
    assert suits_few(query, key, value, mask)
    before = [each.clone() for each in (query, key, value)]
    found = attend_few(query, key, value, mask, scale)
    # Torch's written-out kernel, because values are of another size; of nothing it makes zeros too.
    wanted = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    torch.testing.assert_close(found, wanted)
    assert all(map(torch.equal, before, (query, key, value)))
    if kind == "of rows":
        assert not found[1].any()


@torch.no_grad()
def test_a_number_that_is_none_is_not_hidden():
    query, key, value = states()
    query[0, 0, 0, 0] = torch.nan
    found = attend_few(query, key, value, masks(2, 9)["of queries"], None)
    assert found[0, 0, 0].isnan().all() and found.isnan().sum() == D


@torch.no_grad()
def test_what_is_left_to_the_fused_kernel(monkeypatch):
    called = []
    monkeypatch.setattr(sdpa, "attend_few", lambda *args: called.append(1) or attend_few(*args))

    def run(query, key, value, mask=None, **options):
        called.clear()
        sdpa.sdpa_attention_forward(None, query, key, value, mask, is_causal=False, **options)
        return bool(called)

    assert run(*states())
    assert run(*states(), mask=torch.ones(1, 1, 1, 9, dtype=torch.bool))
    assert not run(*states(queries=17)) and not run(*states(queries=1)) and run(*states(queries=1, keys=128))
    assert not run(*(each[:1] for each in states()))
    assert not run(*states(), mask=torch.zeros(1, 1, 1, 9))
    assert not run(*(each.double() for each in states()))
    query, key, value = states()
    assert not run(query, key.transpose(1, 2).contiguous().transpose(1, 2), value)
    with torch.enable_grad():
        assert not run(*states())
    with FlopCounterMode(display=False):
        assert not run(*states())
    with torch.autocast("cpu", torch.bfloat16):
        assert not run(*states())
