"""Reformer on a GPU: training, precision, memory, decoding, compilation."""

import pytest
import torch
from small_reformer import LARGE, build, gradients, ids

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

WIDE = {
    **LARGE,
    "attention_head_size": 64,
    "axial_pos_embds_dim": [64, 192],
    "axial_pos_shape": [16, 64],
    "feed_forward_size": 512,
    "hidden_size": 256,
    "initializer_range": 0.02,
    "local_attn_chunk_length": 64,
    "lsh_attn_chunk_length": 64,
    "max_position_embeddings": 1024,
    "num_attention_heads": 4,
    "num_buckets": 32,
}


def test_the_same_seed_is_the_same_run():
    model = build().train().cuda()
    runs = [gradients(model, ids().cuda(), seed=seed) for seed in (5, 5, 6)]
    assert runs[0][0] == runs[1][0] != runs[2][0]
    # Those of embeddings are added up in no fixed order, by torch itself.
    layers = [name for name in runs[0][1] if "layers." in name]
    assert layers
    assert [name for name in layers if not torch.equal(runs[0][1][name], runs[1][1][name])] == []


def test_the_reversible_stack_is_the_ordinary_one_dropout_included():
    model = build().train().cuda()
    tokens = ids().cuda()
    loss, reversible = gradients(model, tokens)
    plain_loss, plain = gradients(model, tokens, output_hidden_states=True)
    assert loss.item() == pytest.approx(plain_loss.item(), rel=1e-6)
    for name, grad in plain.items():
        assert (grad - reversible[name]).norm() <= 1e-4 * grad.norm() + 1e-7, name


def test_a_forward_leaves_the_generators_of_both_devices():
    model = build(hash_seed=None).eval().cuda()
    tokens = ids().cuda()
    torch.manual_seed(3)
    with torch.no_grad():
        before = torch.cuda.get_rng_state()
        model(tokens)
    assert torch.equal(before, torch.cuda.get_rng_state())


def test_autocast_gradients_of_twelve_layers():
    model = build(**WIDE, attn_layers=["local", "lsh"] * 6).train().cuda()
    tokens = ids(2, 1024).cuda()
    _, full = gradients(model, tokens)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        _, cast = gradients(model, tokens)
    total = sum(grad.square().sum() for grad in full.values()).sqrt()
    apart = sum((grad - cast[name]).square().sum() for name, grad in full.items()).sqrt()
    assert apart <= 0.02 * total


def test_memory_does_not_grow_with_layers():
    peaks = []
    for layers in (1, 4):
        model = build(**{**WIDE, "recompute_attention": True, "attn_layers": ["local", "lsh"] * layers}).train().cuda()
        tokens = ids(8, 1024).cuda()
        gradients(model, tokens)
        model.zero_grad()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        gradients(model, tokens)
        weights = sum(p.nbytes for p in model.parameters())
        peaks.append(torch.cuda.max_memory_allocated() - before - weights)
    stream = 8 * 1024 * 256 * 4
    assert peaks[1] - peaks[0] < stream


@pytest.mark.parametrize("beams", [1, 3])
def test_cached_decoding(beams):
    # One LSH layer behind local ones: with more, old tokens keep what they saw when they were new.
    model = build(**LARGE, attn_layers=["local", "lsh"]).eval().cuda()
    tokens = ids(2, 20).cuda()
    mask = torch.ones_like(tokens)
    mask[0, :5] = 0
    settings = {"max_new_tokens": 12, "do_sample": False, "num_beams": beams, "pad_token_id": 0, "eos_token_id": None}
    together = model.generate(tokens, attention_mask=mask, **settings)[:, 20:]
    for index, row in enumerate((tokens[:1, 5:], tokens[1:])):
        alone = model.generate(row, **settings)
        assert torch.equal(together[index], alone[0, row.shape[1] :])
        assert torch.equal(alone, model.generate(row, **settings, use_cache=False))


def test_it_compiles():
    model = build(**LARGE).eval().cuda()
    tokens = ids().cuda()
    with torch.no_grad():
        expected = model(tokens, use_cache=False).logits
        compiled = torch.compile(model)(tokens, use_cache=False).logits
    assert (compiled - expected).abs().max() <= 1e-3
