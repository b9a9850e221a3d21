"""The attention kernels against the plain form that stores its probabilities, and their gradients against numbers."""

import pytest
import torch

from modelwright.models.reformer import window_kernel
from modelwright.models.reformer.local_attention import local_attention_with_probabilities
from modelwright.models.reformer.local_kernel import Part, Windows, local_attention, local_attention_backward
from modelwright.models.reformer.lsh_attention import lsh_attention_with_probabilities
from modelwright.models.reformer.lsh_kernel import lsh_attention, lsh_attention_backward
from modelwright.models.reformer.operators import hash_order, local_attention_op, lsh_attention_op
from modelwright.models.reformer.window_kernel import ring_slice
from modelwright.models.reformer.windows import merge_heads, split_heads

HEADS, SIZE = 2, 4
SHAPES = {
    "causal": Windows(4, 1, 0, causal=True),
    "both-sides": Windows(4, 1, 1, causal=False),
    "two-before": Windows(4, 2, 0, causal=True),
    "own-chunk": Windows(4, 0, 0, causal=True),
    "wider-than-the-text": Windows(8, 4, 0, causal=False),
}


def tensors(count, batch=2, length=16, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [
        2 * torch.randn(batch, length, HEADS * SIZE, generator=generator, dtype=dtype).requires_grad_()
        for _ in range(count)
    ]


def masks(length=16):
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[0, 11:] = mask[1, :3] = False
    return {"all": None, "padded": mask}


def orders(rounds, batch=2, length=16):
    generator = torch.Generator().manual_seed(1)
    order = [torch.randperm(length, generator=generator) for _ in range(batch * HEADS * rounds)]
    return torch.stack(order).view(batch, HEADS, rounds, length).int()


@pytest.fixture(params=[8, 16, 4096], ids="block-of-{}".format)
def small_blocks(request, monkeypatch):
    """Blocks of part of a row, of a row, and of all rows."""
    for module in ("window_kernel", "local_kernel", "lsh_kernel"):
        monkeypatch.setattr(f"modelwright.models.reformer.{module}.BLOCK_TOKENS", request.param)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("mask", ["all", "padded"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
class TestAgainstThePlainForm:
    def test_local(self, shape, mask):
        q, k, v = tensors(3)
        mask = masks()[mask]
        plain = merge_heads(
            local_attention_with_probabilities(*(split_heads(x, HEADS) for x in (q, k, v)), mask, shape)[0]
        )
        grad = torch.randn_like(plain)
        with torch.no_grad():
            assert torch.allclose(local_attention(q, k, v, mask, HEADS, shape), plain)
            found = local_attention_backward(grad, q, k, v, mask, HEADS, shape)
        for ours, expected in zip(found, torch.autograd.grad(plain, (q, k, v), grad), strict=True):
            assert torch.allclose(ours, expected)

    @pytest.mark.parametrize("rounds", [1, 3])
    def test_lsh(self, shape, mask, rounds):
        qk, v = tensors(2)
        mask, order = masks()[mask], orders(rounds)
        plain = merge_heads(
            lsh_attention_with_probabilities(split_heads(qk, HEADS), split_heads(v, HEADS), order, mask, shape)[0]
        )
        grad = torch.randn_like(plain)
        expected = torch.autograd.grad(plain, (qk, v), grad)
        with torch.no_grad():
            out, weights = lsh_attention(qk, v, order, mask, shape)
            assert torch.allclose(out, plain)
            found = lsh_attention_backward(grad, qk, v, order, mask, out, weights, shape)
            scratch = qk.clone(), v.clone()
            in_place = lsh_attention_backward(grad, *scratch, order, mask, out, weights, shape, in_place=True)
        for index in range(2):
            assert torch.allclose(found[index], expected[index])
            assert torch.equal(in_place[index], found[index])
            assert in_place[index] is scratch[index]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
class TestGradcheck:
    def test_local(self, dropout):
        # Where a query sees masked keys only, -1e9 swallows the digits that numeric differences need.
        mask = masks()["padded"].index_fill(1, torch.arange(3), True)

        def attend(*qkv):
            return local_attention_op(*qkv, mask, HEADS, 4, 1, 0, True, dropout, 5)

        assert torch.autograd.gradcheck(attend, tensors(3))

    @pytest.mark.parametrize("rounds", [1, 3])
    def test_lsh(self, dropout, rounds):
        def attend(qk, v):
            return lsh_attention_op(qk, v, orders(rounds), masks()["padded"], 4, 1, 0, True, dropout, 5)[0]

        assert torch.autograd.gradcheck(attend, tensors(2))


def test_operators_are_sound_for_compilers():
    q, k, v = tensors(3, dtype=torch.float32)
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(local_attention_op, (q, k, v, None, HEADS, 4, 1, 0, True, 0.0, 5), test_utils=checks)
    torch.library.opcheck(lsh_attention_op, (q, v, orders(2), None, 4, 1, 0, True, 0.0, 5), test_utils=checks)
    torch.library.opcheck(hash_order, (q.detach(), None, [True] * HEADS, 2, [4], 5), test_utils=checks[:2])


def test_dropout_keeps_the_mean_and_follows_its_seed():
    q, k, v = tensors(3, length=64, dtype=torch.float32)
    outs = []
    with torch.no_grad():
        whole = local_attention(q, k, v, None, HEADS, Windows(4, 1, 0, causal=True))
        for seed in (*range(400), 0):
            shape = Windows(4, 1, 0, causal=True, dropout=0.3, seed=seed)
            outs.append(local_attention(q, k, v, None, HEADS, shape))
    assert torch.equal(outs[0], outs[-1])
    assert not torch.equal(outs[0], outs[1])
    assert (torch.stack(outs[:-1]).mean(dim=0) - whole).abs().mean() < 0.1 * whole.abs().mean()


def test_scores_of_all_tokens_are_never_stored(monkeypatch):
    largest = []
    softmax = torch.softmax

    def watched(scores, **arguments):
        largest.append(scores.numel())
        return softmax(scores, **arguments)

    monkeypatch.setattr(torch, "softmax", watched)
    q, k, v = tensors(3, batch=1, length=8192, dtype=torch.float32)
    with torch.no_grad():
        local_attention(q, k, v, None, HEADS, Windows(64, 1, 0, causal=True))
    assert max(largest) == window_kernel.BLOCK_TOKENS * 128
    assert sum(largest) == HEADS * 8192 * 128


def test_vectors_of_all_tokens_are_never_gathered(monkeypatch):
    gathered = []
    index_select = torch.Tensor.index_select

    def watched(x, dim, index):
        if x.shape[-1] > 1:  # Scales of vectors are gathered at once: they are few numbers.
            gathered.append(len(index))
        return index_select(x, dim, index)

    monkeypatch.setattr(torch.Tensor, "index_select", watched)
    qk, v, grad = tensors(3, batch=1, length=8192, dtype=torch.float32)
    order, shape = orders(1, batch=1, length=8192), Windows(64, 1, 0, causal=True)
    with torch.no_grad():
        out, weights = lsh_attention(qk, v, order, None, shape)
        lsh_attention_backward(grad, qk, v, order, None, out, weights, shape)
    block, blocks = window_kernel.BLOCK_TOKENS, HEADS * 8192 // window_kernel.BLOCK_TOKENS
    # Two tensors forward, three backward; queries need no chunk before.
    assert max(gathered) == block + 64
    assert sum(gathered) == blocks * (4 * (block + 64) + block)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("mask", ["all", "padded"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_the_output_goes_where_it_is_asked_to_and_may_go_to_the_queries(shape, mask):
    q, k, v = tensors(3)
    mask = masks()[mask]
    into = q.clone()
    assert local_attention(into, k, v, mask, HEADS, shape, into=into) is into
    assert torch.equal(into, local_attention(q, k, v, mask, HEADS, shape))
    for rounds in (1, 3):
        into = torch.full_like(v, torch.nan)
        wanted = lsh_attention(q, v, orders(rounds), mask, shape)
        out, weights = lsh_attention(q, v, orders(rounds), mask, shape, into=into)
        assert out is into
        assert torch.equal(out, wanted[0])
        assert torch.equal(weights, wanted[1])
        over = q.clone()
        out, weights = lsh_attention(over, v, orders(rounds), mask, shape, into=over)
        assert out is over
        assert torch.equal(out, wanted[0])
        assert torch.equal(weights, wanted[1])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("mask", ["all", "padded"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_a_part_is_attended_to_as_in_the_whole(shape, mask):
    q, k, v = tensors(3)
    mask = masks()[mask]
    whole = local_attention(q, k, v, mask, HEADS, shape)
    for first, last in ((0, 8), (8, 16), (0, 16)):
        seen = [ring_slice(x, *shape.span(first, last)) for x in (k, v)]
        out = local_attention(q[:, first:last], *seen, mask, HEADS, shape, part=Part(first, 16))
        torch.testing.assert_close(out, whole[:, first:last])
