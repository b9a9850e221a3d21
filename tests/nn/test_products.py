import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from modelwright.nn import products
from modelwright.nn.decode_layout import RowLinear
from modelwright.nn.products import is_free, linear

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float64: 1e-12}


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("by_inputs", [False, True])
@pytest.mark.parametrize(("K", "N"), [(16, 24), (9, 7), (8, 7), (1, 6), (6, 1)])
def test_a_product_is_that_of_torch_in_fp64(K, N, by_inputs, dtype, threads):
    torch.manual_seed(0)
    weight, bias = torch.randn(N, K, dtype=dtype), torch.randn(N, dtype=dtype)
    if by_inputs:
        weight = weight.t().contiguous().t()
    with torch.no_grad():
        for shape in ((K,), (1, K), (1, 1, K), (2, K), (2, 3, K), (0, K)):
            x = torch.randn(shape, dtype=dtype)
            for b in (None, bias):
                found = linear(x, weight, b)
                wanted = F.linear(x.double(), weight.double(), None if b is None else b.double())
                assert found.dtype == dtype
                torch.testing.assert_close(found.double(), wanted, rtol=TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])


@torch.no_grad()
def test_parts_of_a_weight_and_rows_that_lie_apart():
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        block, x = torch.randn(8, 12, dtype=dtype), torch.randn(3, 4, 8, dtype=dtype)
        for weight in (block.t()[2:7], block.t()[2:7].contiguous()):
            for rows in (x[:, -1:], x[:1, -1:], x.transpose(0, 1), x[..., ::2].repeat(1, 1, 2)):
                wanted = rows.double() @ weight.double().t()
                torch.testing.assert_close(linear(rows, weight).double(), wanted, rtol=2e-2, atol=5e-2)


def test_the_other_ways_are_taken(monkeypatch):
    taken = []
    monkeypatch.setattr(products, "_times_row", lambda *_: taken.append("row"))
    monkeypatch.setattr(products, "_ONEDNN", lambda *_: taken.append("onednn"))
    x, weight = torch.randn(2, 8), torch.randn(4, 8)
    by_inputs = weight.t().contiguous().t()
    with torch.no_grad():
        linear(x[:1], by_inputs)
        linear(x[:1].half(), by_inputs.half())
        linear(x[:1], weight)
        linear(x, by_inputs)
        assert taken == ["row", "row", "onednn", "onednn"]
        for weight in (by_inputs.double(), by_inputs[1:3], by_inputs.bfloat16()):
            linear(x.to(weight.dtype), weight)
    assert len(taken) == 4


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated:DeprecationWarning")
def test_who_follows_the_operations_finds_those_of_torch():
    x, weight = torch.randn(1, 8), nn.Parameter(torch.randn(4, 8).t().contiguous().t())
    assert not is_free(x, weight)
    assert linear(x, weight).requires_grad
    with torch.no_grad():
        assert is_free(x, weight)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert linear(x, weight).dtype == torch.bfloat16
        with FlopCounterMode(display=False) as counter:
            linear(x, weight)
        assert counter.get_total_flops() == 2 * 4 * 8
        fixed = weight.detach()
        traced = torch.jit.trace(lambda x: linear(x, fixed), x)
        assert "embedding_bag" not in str(traced.graph)
        torch.testing.assert_close(torch.vmap(lambda x: linear(x, weight))(x), F.linear(x, weight))
        torch.testing.assert_close(torch.compile(linear, fullgraph=True, backend="eager")(x, weight), linear(x, weight))
        exported = torch.export.export(RowLinear(8, 4), (x,))
        assert "linear" in str(exported.graph)


@pytest.mark.parametrize("x", [torch.zeros(1, 7), torch.zeros(1, 8, dtype=torch.float64)], ids=["size", "dtype"])
def test_what_does_not_fit_is_an_error_of_torch(x):
    with torch.no_grad(), pytest.raises(RuntimeError, match="shapes|dtype"):
        linear(x, torch.zeros(4, 8))
