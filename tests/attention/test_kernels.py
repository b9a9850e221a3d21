"""The kernels: that they agree, what they make of queries that see nothing, and of wrong input."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.attention.eager import eager_attention_forward
from modelwright.attention.flash import flash_attention_forward
from modelwright.attention.flex import flex_attention_forward
from modelwright.attention.masks import create_causal_mask
from modelwright.attention.sdpa import sdpa_attention_forward
from modelwright.core.errors import InputError, MissingPackageError

KERNELS = {
    "eager": eager_attention_forward,
    "sdpa": sdpa_attention_forward,
    "flex_attention": flex_attention_forward,
}
# On a CPU outside torch.compile, flex_attention runs unfused and says so.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


def qkv(batch=2, heads=4, groups=2, queries=5, keys=5, size=8, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, heads, queries, size), (batch, groups, keys, size), (batch, groups, keys, size))
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6), st.sampled_from([(4, 4), (4, 2), (4, 1)])),
    density=st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    padded=st.booleans(),
)
def test_eager_sdpa_and_flex_agree_on_random_masks(seed, shape, density, padded):
    batch, tokens, (heads, groups) = shape
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.rand(batch, tokens, tokens, generator=generator) < density
    padding = (torch.rand(batch, tokens, generator=generator) < 0.7).long() if padded else None
    module = SimpleNamespace(is_causal=True, training=False)
    outputs, gradients = {}, {}
    for name, kernel in KERNELS.items():
        config = SimpleNamespace(_attn_implementation=name)
        mask = create_causal_mask(
            config,
            torch.zeros(batch, tokens, 4),
            padding,
            or_mask_function=lambda b, h, q, kv: allowed[b, q, kv],
        )
        states = qkv(batch, heads, groups, tokens, tokens, seed=seed)
        outputs[name] = kernel(module, *states, mask)[0]
        states = [tensor.requires_grad_() for tensor in states]
        kernel(module, *states, mask)[0].square().sum().backward()
        gradients[name] = [tensor.grad for tensor in states]
    visible = allowed | torch.ones(tokens, tokens, dtype=torch.bool).tril()
    if padding is not None:
        visible = visible & padding.bool()[:, None]
    blind = ~visible.any(-1)
    for name in KERNELS:
        assert torch.allclose(outputs[name], outputs["eager"], atol=1e-5), name
        assert outputs[name][blind].abs().sum() == 0
        for mine, wanted in zip(gradients[name], gradients["eager"], strict=True):
            assert torch.allclose(mine, wanted, atol=1e-5), name


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("options", [{}, {"is_causal": False}, {"sliding_window": 2}, {"scaling": 0.3}])
@pytest.mark.parametrize("queries", [1, 5])
def test_a_call_without_a_mask_means_what_the_written_out_mask_says(name, options, queries, module):
    q, k, v = qkv(queries=queries)
    out = KERNELS[name](module, q, k, v, None, **options)[0]
    rows = torch.arange(5)[-queries:, None]
    visible = torch.arange(5) <= rows if options.get("is_causal", True) else torch.ones(queries, 5, dtype=torch.bool)
    if "sliding_window" in options:
        visible = visible & (torch.arange(5) > rows - 2)
    k, v = (x.repeat_interleave(2, dim=1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * options.get("scaling", 8**-0.5)
    wanted = scores.masked_fill(~visible, float("-inf")).softmax(-1) @ v
    assert out.shape == (2, queries, 4, 8)
    assert torch.allclose(out, wanted.transpose(1, 2), atol=1e-5)


@pytest.mark.parametrize("name", KERNELS)
def test_a_module_that_is_not_causal_sees_all(name):
    q, k, v = qkv(keys=7)
    module = SimpleNamespace(is_causal=False, training=False)
    out = KERNELS[name](module, q, k, v, None)[0]
    assert torch.allclose(
        out, KERNELS["eager"](module, q, k, v, torch.ones(1, 1, 5, 7, dtype=torch.bool))[0], atol=1e-5
    )


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_left_padding_never_makes_nan(name, dtype, module):
    padding = torch.tensor([[0, 0, 1], [1, 1, 1], [0, 1, 1]])
    config = SimpleNamespace(_attn_implementation=name)
    mask = create_causal_mask(config, torch.zeros(3, 3, 4, dtype=dtype), padding)
    q, k, v = (tensor.requires_grad_() for tensor in qkv(batch=3, queries=3, keys=3, dtype=dtype))
    # Large negative scores: with the lowest fp16 number added, a whole row would be -inf.
    out = KERNELS[name](module, q.abs() * -10, k.abs() * 10, v, mask)[0]
    out.float().sum().backward()
    assert out.isfinite().all() and all(tensor.grad.isfinite().all() for tensor in (q, k, v))
    assert out[0, :2].abs().sum() == 0 and out[0, 2].abs().sum() > 0


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("lowest", [float("-inf"), torch.finfo(torch.float32).min])
def test_additive_masks_with_blind_rows(name, lowest, module):
    q, k, v = qkv()
    mask = torch.randn(1, 4, 5, 5)
    mask[..., 2, :] = mask[..., 3, 1] = lowest
    out = KERNELS[name](module, q, k, v, mask)[0]
    assert out[:, 2].abs().sum() == 0 and out.isfinite().all()
    assert torch.allclose(out, eager_attention_forward(module, q, k, v, mask)[0], atol=1e-5)


def test_half_precision_stays_near_fp32(module):
    wanted = eager_attention_forward(module, *qkv(), None)[0]
    for kernel in (eager_attention_forward, sdpa_attention_forward):
        out = kernel(module, *qkv(dtype=torch.bfloat16), None)[0]
        assert out.dtype == torch.bfloat16 and torch.allclose(out.float(), wanted, atol=3e-2)


@pytest.mark.parametrize("name", KERNELS)
def test_a_head_mask_silences_its_heads(name, module):
    q, k, v = qkv()
    whole = KERNELS[name](module, q, k, v, None)[0]
    for head_mask in (torch.tensor([1.0, 0.0, 0.5, 1.0]), torch.tensor([1.0, 0.0, 0.5, 1.0])[None, :, None, None]):
        out = KERNELS[name](module, q, k, v, None, head_mask=head_mask)[0]
        assert torch.allclose(out, whole * torch.tensor([1.0, 0.0, 0.5, 1.0])[:, None], atol=1e-6)
    with pytest.raises(InputError, match=r"with 4 heads, got \[3\]|with 4 heads, got \[1, 3, 1, 1\]"):
        KERNELS[name](module, q, k, v, None, head_mask=torch.ones(3))


def test_softcap_in_all_kernels(module, said):
    q, k, v = qkv()
    scores = (q @ k.repeat_interleave(2, 1).transpose(-1, -2)) * 8**-0.5
    scores = (2 * torch.tanh(scores / 2)).masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), float("-inf"))
    wanted = (scores.softmax(-1) @ v.repeat_interleave(2, 1)).transpose(1, 2)
    for kernel in KERNELS.values():
        assert torch.allclose(kernel(module, q, k, v, None, softcap=2.0)[0], wanted, atol=1e-5)
    assert [line for line in said() if "cannot cap its scores" in line]


@pytest.mark.parametrize("name", ["sdpa", "flex_attention"])
def test_output_attentions_runs_eager_with_one_warning(name, module, said):
    q, k, v = qkv()
    padding = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    mask = create_causal_mask(SimpleNamespace(_attn_implementation=name), torch.zeros(2, 5, 4), padding)
    for _ in range(2):
        out, weights = KERNELS[name](module, q, k, v, mask, output_attentions=True)
    assert weights.shape == (2, 4, 5, 5) and torch.allclose(weights[1].sum(-1), torch.ones(4, 5))
    assert weights[0, :, :, 0].abs().sum() == 0
    assert torch.allclose(out, KERNELS[name](module, q, k, v, mask)[0], atol=1e-5)
    assert len(said()) == 1 and "runs the eager kernel" in said()[0]


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_dropout_is_for_training_only(name):
    q, k, v = qkv()
    evaluating, training = (SimpleNamespace(is_causal=True, training=flag) for flag in (False, True))
    whole = KERNELS[name](evaluating, q, k, v, None, dropout=0.5)[0]
    assert torch.equal(whole, KERNELS[name](evaluating, q, k, v, None)[0])
    assert not torch.allclose(whole, KERNELS[name](training, q, k, v, None, dropout=0.5)[0])


def test_flex_refuses_dropout_in_training():
    with pytest.raises(InputError, match="flex_attention has no dropout, got dropout=0.5 in training"):
        flex_attention_forward(SimpleNamespace(training=True), *qkv(), None, dropout=0.5)


@pytest.mark.parametrize("name", ["eager", "sdpa", "flex_attention"])
def test_shapes_that_do_not_fit_are_named(name, module):
    q, k, v = qkv(heads=4, groups=3)
    with pytest.raises(InputError, match=r"heads a multiple of key heads, got \[2, 4, 5, 8\], \[2, 3, 5, 8\]"):
        KERNELS[name](module, q, k, v, None)
    q, k, v = qkv()
    wrong = r"broadcasts to \[batch, heads, query tokens, key tokens\] = \[2, 4, 5, 5\], got shape \[2, 1, 5, 6\]"
    with pytest.raises(InputError, match=wrong):
        KERNELS[name](module, q, k, v, torch.ones(2, 1, 5, 6, dtype=torch.bool))
    with pytest.raises(InputError, match=r"got shape \[2, 5\]"):
        KERNELS[name](module, q, k, v, torch.ones(2, 5, dtype=torch.bool))


def test_one_token_copies_no_keys(module, monkeypatch):
    monkeypatch.setattr("modelwright.attention.sdpa.repeat_kv", None)
    q, k, v = qkv(heads=6, groups=2, queries=1, keys=9)
    for mask in (None, torch.rand(2, 1, 1, 9) < 0.7):
        out = sdpa_attention_forward(module, q, k, v, mask)[0]
        assert torch.allclose(out, eager_attention_forward(module, q, k, v, mask)[0], atol=1e-5)


def test_flash_says_how_to_get_it(module, monkeypatch):
    monkeypatch.setattr("modelwright.attention.flash.is_available", lambda package: False)
    with pytest.raises(MissingPackageError, match="needs the package flash-attn, which is not installed: pip install"):
        flash_attention_forward(module, *qkv(), None)


class FakeFlash:
    """The package's function, by the eager kernel in the dtype given: bottom-right causal, windows, no padding."""

    @staticmethod
    def flash_attn_func(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap):
        T, S = q.shape[1], k.shape[1]
        distance = torch.arange(S) - (torch.arange(T)[:, None] + S - T)
        visible = torch.ones(T, S, dtype=torch.bool)
        if causal:
            visible &= distance <= 0
        if window_size[0] >= 0:
            visible &= -distance <= window_size[0]
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return eager_attention_forward(None, q, k, v, visible[None, None], softmax_scale)[0]


@pytest.mark.parametrize("padding", [None, [[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]])
@pytest.mark.parametrize("options", [{}, {"sliding_window": 2}])
def test_flash_takes_out_padding_and_passes_the_pattern(padding, options, module, monkeypatch):
    monkeypatch.setattr("modelwright.attention.flash._package", lambda: FakeFlash)
    q, k, v = qkv(queries=4, keys=6, dtype=torch.bfloat16)
    keep = None if padding is None else torch.tensor(padding)
    out = flash_attention_forward(module, q, k, v, keep, **options)[0]
    rows = torch.arange(4)[:, None] + 2
    visible = torch.arange(6) <= rows
    if options:
        visible = visible & (torch.arange(6) > rows - 2)
    mask = visible[None, None].expand(2, 1, 4, 6)
    if keep is not None:
        mask = mask & keep.bool()[:, None, None]
    assert torch.allclose(out.float(), sdpa_attention_forward(module, q, k, v, mask)[0].float(), atol=2e-2)


def test_flash_refuses_fp32(module, monkeypatch):
    monkeypatch.setattr("modelwright.attention.flash._package", lambda: FakeFlash)
    with pytest.raises(
        InputError, match=r"computes in fp16 or bf16, got torch.float32; load with dtype=torch.bfloat16"
    ):
        flash_attention_forward(module, *qkv(), None)


@pytest.mark.parametrize("kind", ["none", "boolean", "additive"])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_one_query_in_half_precision_stays_near_fp32(kind, key_heads, module):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        2 * torch.randn(2, heads, tokens, 16, generator=generator)
        for heads, tokens in ((4, 1), (key_heads, 90), (key_heads, 90))
    )
    visible = torch.rand(2, 1, 1, 90, generator=generator) < 0.5
    masks = {"none": None, "boolean": visible, "additive": torch.where(visible, 0.0, torch.finfo(torch.bfloat16).min)}
    with torch.no_grad():
        exact, _ = sdpa_attention_forward(module, query, key, value, masks[kind])
        half = (states.bfloat16() for states in (query, key, value))
        mask = masks[kind] if kind != "additive" else masks[kind].bfloat16()
        found, _ = sdpa_attention_forward(module, *half, mask)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0.03, atol=0.03)
