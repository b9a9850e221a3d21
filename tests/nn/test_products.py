"""Products by every way are torch's, with their gradients, and torch's own calls where others look."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from modelwright.nn import products
from modelwright.nn.decode_layout import RowLinear
from modelwright.nn.products import add_product_, is_free, linear, onednn_is_faster, works_in_halves

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float64: 1e-12}
# Forced where the processor would not choose it; every build of torch for x86 has it.
has_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture(params=[False, pytest.param(True, marks=has_onednn)], ids=["BLAS", "oneDNN"])
def onednn(request, monkeypatch):
    monkeypatch.setattr(products, "onednn_is_faster", lambda: request.param)
    monkeypatch.setattr(products, "_LARGE", 1)
    return request.param


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("by_inputs", [False, True])
@pytest.mark.parametrize(("K", "N"), [(16, 24), (9, 7), (8, 7), (1, 6), (6, 1)])
def test_a_product_is_that_of_torch_in_fp64(K, N, by_inputs, dtype, threads, onednn):
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
def test_parts_of_a_weight_and_rows_that_lie_apart(onednn):
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        block, x = torch.randn(8, 12, dtype=dtype), torch.randn(3, 4, 8, dtype=dtype)
        for weight in (block.t()[2:7], block.t()[2:7].contiguous()):
            for rows in (x[:, -1:], x[:1, -1:], x.transpose(0, 1), x[..., ::2].repeat(1, 1, 2)):
                wanted = rows.double() @ weight.double().t()
                torch.testing.assert_close(linear(rows, weight).double(), wanted, rtol=2e-2, atol=5e-2)


@torch.no_grad()
def test_which_way_is_taken(onednn, monkeypatch):
    taken = []
    for name, way in (("_times_row", "row"), ("_by_onednn", "oneDNN")):
        monkeypatch.setattr(products, name, lambda *_, way=way: taken.append(way))
    x, weight = torch.randn(2, 8), torch.randn(4, 8)
    by_inputs = weight.t().contiguous().t()
    for rows in (x[:1], x[:1].half(), x[:1].bfloat16()):
        linear(rows, by_inputs.to(rows.dtype))
    assert taken == ["row"] * 3
    for rows, each in ((x[:1], weight), (x, by_inputs), (x, weight)):
        linear(rows, each)
    assert taken[3:] == ["oneDNN"] * 3 * onednn
    for each in (by_inputs.double(), by_inputs[1:3], by_inputs.bfloat16()):
        linear(x.to(each.dtype), each)
    assert len(taken) == 3 + 3 * onednn


@pytest.mark.parametrize(("onednn", "taken"), [(False, [2, 4, 8]), (True, [2, 4])])
@pytest.mark.parametrize("bias", [False, True])
def test_few_rows_are_multiplied_by_the_weight_from_the_left(onednn, taken, bias, monkeypatch):
    monkeypatch.setattr(products, "onednn_is_faster", lambda: onednn)
    layer, hidden = nn.Linear(512, 128, bias=bias), torch.randn(9, 1, 512)
    expected = layer(hidden).detach()
    ways = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.mm.default:
                ways.append(args[0].shape)
            return function(*args, **(kwargs or {}))

    def is_from_the_left(rows):
        ways.clear()
        # A dispatch mode is one who looks, so the way behind that question is watched.
        with Products():
            found = products._product(hidden[:rows], layer.weight, layer.bias)
        torch.testing.assert_close(found, expected[:rows])
        return ways == [layer.weight.shape]

    with torch.no_grad():
        assert [rows for rows in (1, 2, 4, 8, 9) if is_from_the_left(rows)] == taken


@pytest.mark.parametrize("shape", [(70, 130), (2, 35, 130), (0, 130)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_linear_has_torchs_gradients(shape, transposed, biased, onednn):
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(130, 90).t() if transposed else torch.randn(90, 130)
    weight.requires_grad_()
    bias = torch.randn(90, requires_grad=True) if biased else None
    inputs = [x, weight, *([bias] if biased else [])]
    found, expected = linear(x, weight, bias), F.linear(x, weight, bias)
    assert type(found.grad_fn).__name__.startswith("_Linear") == (onednn and x.numel() > 0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    grad = torch.randn_like(found)
    wanted = torch.autograd.grad(expected, inputs, grad)
    for left, right in zip(torch.autograd.grad(found, inputs, grad), wanted, strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-5)


def test_second_derivatives(onednn):
    def penalty(function):
        torch.manual_seed(0)
        x, weight = torch.randn(6, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
        (first,) = torch.autograd.grad(function(x, weight).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), (x, weight))

    for left, right in zip(penalty(linear), penalty(F.linear), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.torch.jit.(trace|script). is deprecated:DeprecationWarning")
def test_torch_is_called_where_others_look(onednn):
    x, weight = torch.randn(1, 8), nn.Parameter(torch.randn(4, 8).t().contiguous().t())
    assert not is_free(x, weight)
    assert linear(x, weight).requires_grad
    with torch.no_grad():
        assert is_free(x, weight)
        expected = F.linear(x, weight)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert linear(x, weight).dtype == torch.bfloat16
        with FlopCounterMode(display=False) as counter:
            linear(x, weight)
        assert counter.get_total_flops() == 2 * 4 * 8
        fixed = weight.detach()
        traced = torch.jit.trace(lambda x: linear(x, fixed), x)
        assert "embedding_bag" not in str(traced.graph)
        torch.testing.assert_close(torch.vmap(lambda x: linear(x, weight))(x), expected)
        _, tangent = torch.func.jvp(lambda each: linear(each, weight), (x,), (torch.ones_like(x),))
        torch.testing.assert_close(tangent, F.linear(torch.ones_like(x), weight))
        torch.testing.assert_close(torch.compile(linear, fullgraph=True, backend="eager")(x, weight), expected)
        exported = torch.export.export(RowLinear(8, 4), (x,))
        assert "linear" in str(exported.graph)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_added_in_parts(dtype, onednn, monkeypatch):
    monkeypatch.setattr(products, "_PART", 7)
    left, right, total = torch.randn(6, 20).to(dtype), torch.randn(6, 5).to(dtype), torch.randn(20, 5)
    expected = total + (left.t() @ right).float()
    add_product_(total, left.t(), right)
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-5)
    unset = torch.full_like(total, float("nan"))
    add_product_(unset, left.t(), right, beta=0)
    torch.testing.assert_close(unset, (left.t() @ right).float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "capability", "answer"),
    [("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False), ("GenuineIntel", "AVX512", False)],
)
@has_onednn
def test_which_processors(text, capability, answer, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    file = tmp_path / "cpuinfo"
    file.write_text(f"vendor_id : {text}\n")
    assert onednn_is_faster(str(file)) is answer
    assert onednn_is_faster(str(tmp_path / "none")) is False


def test_a_processor_that_works_in_halves(tmp_path):
    file = tmp_path / "cpuinfo"
    for family, answer in ((25, True), (26, False)):
        file.write_text(f"vendor_id : AuthenticAMD\ncpu family\t: {family}\nmodel : 25\n")
        assert works_in_halves(str(file)) is answer
        works_in_halves.cache_clear()
    assert works_in_halves(str(tmp_path / "none")) is False


@torch.no_grad()
def test_there_transposed_inputs_are_not_copied_for_less_than_it_saves(onednn, monkeypatch):
    taken = []
    by_onednn = products._by_onednn
    monkeypatch.setattr(products, "_by_onednn", lambda *call: taken.append(call[0].shape) or by_onednn(*call))
    monkeypatch.setattr(products, "works_in_halves", lambda: True)
    monkeypatch.setattr(products, "_FEW", 0)
    torch.manual_seed(0)
    rows, few, many = torch.randn(7, 6), torch.randn(7, 3), torch.randn(7, 9)
    for grad in (few, rows, many):
        torch.testing.assert_close(linear(grad.t(), rows.t()), grad.t() @ rows)
    assert taken == [(3, 7)] * onednn


@pytest.mark.parametrize(
    ("x", "bias"),
    [(torch.zeros(2, 7), None), (torch.zeros(2, 8, dtype=torch.float64), None), (torch.zeros(2, 8), torch.zeros(3))],
    ids=["size", "dtype", "bias"],
)
def test_what_does_not_fit_is_an_error(x, bias, onednn):
    with torch.no_grad(), pytest.raises(RuntimeError):
        linear(x, torch.zeros(4, 8), bias)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    "bias",
    [torch.randn(1, 1).expand(90, 1)[:, 0], torch.randn(180)[::2], torch.tensor(1.5), torch.tensor([1.5])],
    ids=["expanded", "strided", "number", "one"],
)
def test_a_bias_may_lie_apart_and_be_broadcast(bias, grad, onednn):
    x, weight = torch.randn(70, 130), torch.randn(90, 130)
    x.requires_grad_(grad)
    bias = bias.detach().requires_grad_(grad)
    found, expected = linear(x, weight, bias), F.linear(x, weight, bias)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    if grad:
        left, right = (torch.autograd.grad(each.square().sum(), bias)[0] for each in (found, expected))
        torch.testing.assert_close(left, right, atol=1e-2, rtol=1e-4)


def test_frozen_weights_keep_no_inputs(onednn):
    kept = []
    x, weight = torch.randn(70, 130), torch.randn(90, 130)
    for one, other in ((x.clone().requires_grad_(), weight), (x, weight.clone().requires_grad_())):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda each: kept.append(each.numel()) or each, lambda each: each
        ):
            found = linear(one, other)
        assert kept == [weight.numel() if one.requires_grad else x.numel()]
        found.sum().backward()


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_onednn_is_not_used_where_it_is_switched_off(onednn, monkeypatch):
    monkeypatch.setattr(products, "_by_onednn", lambda *_: pytest.fail("oneDNN is off"))
    with torch.backends.mkldnn.flags(enabled=False):
        linear(torch.randn(70, 130), torch.randn(90, 130, requires_grad=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_row_prepares_no_gradient(mode):
    weight = nn.Parameter(torch.randn(6, 4).t())
    row, bias = torch.randn(1, 6), nn.Parameter(torch.randn(4))
    with mode(), profile() as prof:
        result = linear(row, weight, bias)
    names = {event.name for event in prof.events()}
    assert "aten::_embedding_bag_forward_only" in names
    assert "aten::_embedding_bag" not in names
    torch.testing.assert_close(result.clone(), (row @ weight.t() + bias).detach())
