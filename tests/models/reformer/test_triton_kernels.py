"""The GPU's attention kernels against the CPU's: on a GPU, or anywhere in Triton's interpreter.

The interpreter has to be chosen before Triton is imported, so a slow test runs this file once more in a process of its
own: `make test-slow` puts Triton into .peers/triton for it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_reformer import LARGE, assert_same_gradients, build, gradients, ids

from modelwright.models.reformer import triton_attention
from modelwright.models.reformer.local_kernel import Windows, local_attention, local_attention_backward
from modelwright.models.reformer.lsh_kernel import lsh_attention, lsh_attention_backward

ROOT = Path(__file__).parents[3]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
here = pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="needs a GPU")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SHAPES = {
    "causal": Windows(4, 1, 0, causal=True),
    "both-sides": Windows(4, 1, 1, causal=False),
    "two-before": Windows(4, 2, 0, causal=True),
    "own-chunk": Windows(4, 0, 0, causal=True),
    "wider-than-the-text": Windows(8, 4, 0, causal=False),
    "no-power-of-two": Windows(3, 1, 2, causal=False),
}
# Whole tiles, parts of tiles, several tiles of a chunk: chunk length, head size, length.
SIZES = [(64, 64, 256), (48, 80, 144), (96, 8, 288), (128, 128, 256), (16, 256, 64)]


def tensors(count, length, size, heads=2, batch=2):
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.randn(batch, length, heads * size, generator=generator) for _ in range(count)]


def masked(length):
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[0, length * 2 // 3 :] = mask[1, : length // 8] = False
    return mask


def orders(rounds, length, batch=2, heads=2):
    generator = torch.Generator().manual_seed(1)
    order = [torch.randperm(length, generator=generator) for _ in range(batch * heads * rounds)]
    return torch.stack(order).view(batch, heads, rounds, length).int()


def there(x, dtype=torch.float32):
    if x is None or not x.is_floating_point():
        return x if x is None else x.to(DEVICE)
    return x.to(DEVICE, dtype)


def assert_near(ours, expected, tolerance):
    """Compare in the norm of each tensor: what is far from zero counts, as rounding is relative to it."""
    for one, other in zip(ours, expected, strict=True):
        assert one.shape == other.shape
        assert (one.cpu().float() - other).norm() <= tolerance * other.norm() + 1e-6


def compare_local(length, size, mask, shape, dtype=torch.float32, tolerance=1e-5):
    q, k, v, grad = (x.to(dtype).float() for x in tensors(4, length, size))
    moved = [there(x, dtype) for x in (q, k, v)]
    out = triton_attention.local_attention(*moved, there(mask), 2, shape)
    grads = triton_attention.local_attention_backward(there(grad, dtype), *moved, there(mask), 2, shape)
    assert {x.dtype for x in (out, *grads)} == {dtype}
    expected = local_attention(q, k, v, mask, 2, shape)
    assert_near([out], [expected], tolerance)
    assert_near(grads, local_attention_backward(grad, q, k, v, mask, 2, shape), tolerance)
    into = moved[0].clone()
    assert triton_attention.local_attention(into, *moved[1:], there(mask), 2, shape, into=into) is into
    assert torch.equal(into, out)


def compare_lsh(length, size, mask, shape, rounds, dtype=torch.float32, tolerance=1e-5):
    qk, v, grad = (x.to(dtype).float() for x in tensors(3, length, size))
    order = orders(rounds, length)
    moved = [there(x, dtype) for x in (qk, v)]
    out, kept = triton_attention.lsh_attention(*moved, there(order), there(mask), shape)
    assert kept.shape == triton_attention.kept_shape(order)
    back = (there(grad, dtype), *moved, there(order), there(mask), out, kept, shape)
    grads = triton_attention.lsh_attention_backward(*back)
    assert {x.dtype for x in (out, *grads)} == {dtype}
    expected, weights = lsh_attention(qk, v, order, mask, shape)
    assert_near([out], [expected], tolerance)
    assert_near(grads, lsh_attention_backward(grad, qk, v, order, mask, expected, weights, shape), tolerance)
    again = triton_attention.lsh_attention_backward(*back)
    assert all(map(torch.equal, grads, again))
    into = torch.full_like(out, float("nan"))
    assert triton_attention.lsh_attention(*moved, there(order), there(mask), shape, into=into)[0] is into
    assert torch.equal(into, out)


@here
@pytest.mark.parametrize("padded", [False, True], ids=["all", "padded"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
class TestAgainstTheProcessor:
    def test_local(self, shape, padded):
        compare_local(24, 8, masked(24) if padded else None, shape)

    @pytest.mark.parametrize("rounds", [1, 3])
    def test_lsh(self, shape, padded, rounds):
        compare_lsh(24, 8, masked(24) if padded else None, shape, rounds)


@here
@pytest.mark.parametrize(("chunk", "size", "length"), SIZES)
def test_sizes(chunk, size, length):
    shape = Windows(chunk, 1, 0, causal=True)
    compare_local(length, size, masked(length), shape)
    compare_lsh(length, size, masked(length), shape, rounds=2)


@on_gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1e-2), (torch.float16, 2e-3)], ids=str)
@pytest.mark.parametrize("rounds", [1, 4])
def test_half_precision(dtype, tolerance, rounds):
    shape = Windows(64, 1, 0, causal=True)
    compare_local(256, 64, masked(256), shape, dtype, tolerance)
    compare_lsh(256, 64, masked(256), shape, rounds, dtype, tolerance)


@here
class TestDropout:
    SHAPE = Windows(4, 1, 1, causal=False, dropout=0.4, seed=7)

    def slope(self, function, inputs, directions, step=1e-2):
        """The derivative of the sum of a function's squares along directions, from two values of it."""
        ends = []
        for sign in (1, -1):
            moved = [x + sign * step * d for x, d in zip(inputs, directions, strict=True)]
            ends.append(function(*moved).double().square().sum().item())
        return (ends[0] - ends[1]) / (2 * step)

    def test_local_gradients_belong_to_what_was_kept(self):
        inputs = [there(x) / 2 for x in tensors(3, 24, 8)]
        directions = [there(x) for x in reversed(tensors(3, 24, 8))]
        mask = there(masked(24))

        def function(*inputs):
            return triton_attention.local_attention(*inputs, mask, 2, self.SHAPE)

        grads = triton_attention.local_attention_backward(2 * function(*inputs), *inputs, mask, 2, self.SHAPE)
        along = sum((g * d).sum().item() for g, d in zip(grads, directions, strict=True))
        assert along == pytest.approx(self.slope(function, inputs, directions), rel=1e-2)

    @pytest.mark.parametrize("rounds", [1, 2])
    def test_lsh_gradients_belong_to_what_was_kept(self, rounds):
        inputs = [there(x) / 2 for x in tensors(2, 24, 8)]
        directions = [there(x) for x in reversed(tensors(2, 24, 8))]
        order = there(orders(rounds, 24))

        def function(*inputs):
            return triton_attention.lsh_attention(*inputs, order, None, self.SHAPE)[0]

        out, kept = triton_attention.lsh_attention(*inputs, order, None, self.SHAPE)
        grads = triton_attention.lsh_attention_backward(2 * out, *inputs, order, None, out, kept, self.SHAPE)
        along = sum((g * d).sum().item() for g, d in zip(grads, directions, strict=True))
        assert along == pytest.approx(self.slope(function, inputs, directions), rel=1e-2)

    def test_it_drops_as_often_as_it_says_and_otherwise_with_another_seed(self):
        # Equal keys and one-hot values: the output counts which of a window's keys were kept.
        shape = Windows(16, 0, 0, causal=False, dropout=0.25, seed=1)
        zeros = there(torch.zeros(4, 64, 32))
        v = there(torch.eye(16).repeat(4, 4, 2))
        out = triton_attention.local_attention(zeros, zeros, v, None, 2, shape) * 16 * 0.75
        assert set(out.round(decimals=4).unique().tolist()) == {0.0, 1.0}
        assert out.mean().item() == pytest.approx(0.75, abs=0.03)
        other = Windows(16, 0, 0, causal=False, dropout=0.25, seed=2)
        again = triton_attention.local_attention(zeros, zeros, v, None, 2, other) * 16 * 0.75
        assert 0.2 < (again - out).abs().mean() < 0.55

    def test_everything_may_be_dropped(self):
        shape = Windows(4, 1, 0, causal=True, dropout=1.0)
        q, k, v = (there(x) for x in tensors(3, 8, 8))
        assert not triton_attention.local_attention(q, k, v, None, 2, shape).any()


@here
@pytest.mark.usefixtures("rotations_of_the_processor")
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_a_training_step_is_the_processors(monkeypatch, recompute):
    plain = gradients(build(**LARGE, recompute_attention=recompute).train(), ids())
    if INTERPRETED:
        monkeypatch.setattr(triton_attention, "can_run", lambda *_: True)
    model = build(**LARGE, recompute_attention=recompute).train().to(DEVICE)
    loss, ours = gradients(model, ids().to(DEVICE))
    assert loss.item() == pytest.approx(plain[0].item(), rel=1e-5)
    assert_same_gradients(plain[1], {name: grad.cpu() for name, grad in ours.items()}, 2e-4)


def test_which_tensors_they_take():
    cpu = torch.empty(1, 4, 512)
    assert not triton_attention.can_run(cpu, 2)
    if torch.cuda.is_available():
        assert triton_attention.can_run(cpu.cuda(), 2)
        assert not triton_attention.can_run(cpu.cuda(), 1)
        assert not triton_attention.can_run(cpu.cuda().double(), 2)


@pytest.mark.parametrize(("capability", "takes"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_which_gpus_they_run_on(monkeypatch, capability, takes):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(triton_attention, "_has_triton", lambda: True)
    monkeypatch.setattr(triton_attention, "_is_old", triton_attention._is_old.__wrapped__)
    x = SimpleNamespace(is_cuda=True, dtype=torch.float32, shape=(1, 4, 8), device=torch.device("cuda", 0))
    assert triton_attention.can_run(x, 2) is takes


def test_how_fp32_products_are_taken(monkeypatch):
    assert triton_attention._precision() == "tf32x3"
    # Since torch 2.9 the older name raises where the newer one was set; before, there is no newer one.
    for matmul in ({"fp32_precision": "tf32"}, {"allow_tf32": True}):
        monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(**matmul))
        assert triton_attention._precision() == "tf32"
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(fp32_precision="ieee"))
    assert triton_attention._precision() == "tf32x3"


@on_gpu
def test_more_sequences_than_a_grid_has_in_its_second_dimension():
    shape = Windows(4, 1, 0, causal=True)
    q, k, v = (x.to("cuda") for x in tensors(3, 4, 8, batch=33000))
    out = triton_attention.local_attention(q, k, v, None, 2, shape)
    last = [x[-2:].cpu() for x in (q, k, v)]
    assert_near([out[-2:]], [local_attention(*last, None, 2, shape)], 1e-5)


@on_gpu
def test_no_scores_are_stored():
    length, shape = 65536, Windows(64, 1, 0, causal=True)
    qk, v = (torch.randn(1, length, 256, device="cuda") for _ in range(2))
    order = torch.randperm(length, device="cuda").int().expand(1, 4, 1, length)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out, kept = triton_attention.lsh_attention(qk, v, order, None, shape)
    triton_attention.lsh_attention_backward(out, qk, v, order, None, out, kept, shape)
    # The output, two gradients, and a few numbers a token and head; scores would be 32 times this.
    assert torch.cuda.max_memory_allocated() - before < 3.3 * out.nbytes + order.numel() * 4


def with_triton(*arguments, **environment):
    """Run Python in a process of its own, with the Triton of .peers; return what it prints."""
    paths = os.pathsep.join([str(ROOT / ".peers" / "triton"), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    command = [sys.executable, *map(str, arguments)]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.slow
def test_in_tritons_interpreter():
    pytest_run = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", __file__)
    assert "passed" in with_triton(*pytest_run, TRITON_INTERPRET="1")


@pytest.mark.slow
def test_what_is_compiled_compares_every_pair_of_positions(tmp_path):
    # Triton 3.6 compared one of 16 neighbours for all of them, where it thought that it knew.
    printed = with_triton(Path(__file__).with_name("compile_kernels.py"), TRITON_CACHE_DIR=str(tmp_path))
    kernels = [json.loads(line) for line in printed.splitlines()]
    assert len(kernels) == 32
    assert [kernel for kernel in kernels if kernel["comparisons"] < kernel["least"]] == []
