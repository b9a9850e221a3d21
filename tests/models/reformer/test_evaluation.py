"""Evaluation without gradients: in parts of the text, and equal to evaluation with gradients, which is not."""

import pytest
import torch
from small_reformer import LARGE, build, ids
from torch.profiler import profile

from modelwright.core.errors import InputError
from modelwright.models.reformer import reversible
from modelwright.models.reformer.modeling_reformer import ReformerForMaskedLM, ReformerModelWithLMHead

BOTH_SIDES = {"is_decoder": False, "local_num_chunks_after": 1, "lsh_num_chunks_after": 1}
KINDS = {
    "causal": (ReformerModelWithLMHead, {}),
    "one-hash": (ReformerModelWithLMHead, {"num_hashes": 1}),
    "two-chunks-before": (ReformerModelWithLMHead, {"local_num_chunks_before": 2}),
    "both-sides": (ReformerForMaskedLM, BOTH_SIDES),
    "one-table-of-positions": (ReformerModelWithLMHead, {"axial_pos_embds": False}),
}


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of few tokens."""
    for place in ("local_attention.BLOCK_TOKENS", "local_kernel.BLOCK_TOKENS", "layer.SLICE_TOKENS"):
        monkeypatch.setattr(f"modelwright.models.reformer.{place}", 16)
    # Else so many that what is projected again is little.
    monkeypatch.setattr("modelwright.models.reformer.local_attention.FEW", 1)


def calls(module):
    """Count the calls of a module and the tokens that they are given, without being a hook."""
    found = []
    project = module.project

    def watched(x):
        found.append(x.shape[1])
        return project(x)

    module.project = watched
    return found


def scores(model, tokens, **arguments):
    """The scores with and without gradients."""
    with torch.no_grad():
        lean = model(tokens, use_cache=False, **arguments) if model.config.is_decoder else model(tokens, **arguments)
    return lean.logits, model(tokens, **arguments).logits.detach()


@pytest.mark.usefixtures("small_parts")
def test_places_of_all_rows_at_once():
    model = build(ReformerForMaskedLM, **{**LARGE, **BOTH_SIDES}).eval()
    tokens, places = ids(length=50), torch.arange(50)
    expected = scores(model, tokens)[0]
    for position_ids in (places, places[None], places.expand(len(tokens), -1)):
        for found in scores(model, tokens, position_ids=position_ids):
            torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("places", [20, 9, 70])
def test_places_of_another_length_are_refused_in_parts_too(places):
    model = build(**LARGE).eval()
    with torch.no_grad(), pytest.raises(InputError, match=r"position_ids of the shape of the tokens, \(2, 64\)"):
        model(ids(), position_ids=torch.arange(places)[None] % 64, use_cache=False)


@pytest.mark.usefixtures("small_parts")
def test_one_place_for_all_tokens():
    model = build(**LARGE).eval()
    torch.testing.assert_close(*scores(model, ids(), position_ids=torch.zeros(1, 1, dtype=torch.long)))


@pytest.mark.parametrize("shape", [(2, 0), (0, 8)])
def test_nothing_to_evaluate_is_refused(shape):
    model = build(**LARGE).eval()
    with torch.no_grad(), pytest.raises(InputError, match="at least one row and one token in input_ids"):
        model(ids(*shape), use_cache=False)


@pytest.mark.usefixtures("small_parts")
def test_dropout_of_places_alone_is_drawn_once():
    model = build(**LARGE, axial_pos_embds=True).eval()
    places = model.reformer.embeddings.position_embeddings
    places.dropout = 0.5
    places.train()
    with torch.no_grad():
        streams = model.reformer._streams(ids(), None, None)
        dropped = (streams[:, :, 0] == model.reformer.embeddings.word_embeddings(ids())).all(dim=-1)
    # Whole columns: the tokens that share a place on the last axis, which has 8.
    rows = dropped.view(2, 8, 8)
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert 0 < int(dropped.sum()) < dropped.numel()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("length", [64, 50, 8, 5])
@pytest.mark.parametrize(("cls", "changes"), KINDS.values(), ids=KINDS)
class TestParts:
    def test_are_the_whole(self, cls, changes, length):
        model = build(cls, **LARGE, **changes).eval()
        parts = calls(model.reformer.encoder.layers[0].attention.self_attention)
        torch.testing.assert_close(*scores(model, ids(length=length)))
        # The last call is the one with gradients.
        assert len(parts) > 2 if length > 16 else len(parts) >= 2

    def test_with_masks_and_positions(self, cls, changes, length):
        model = build(cls, **LARGE, **changes).eval()
        model.prune_heads({0: [1]})
        mask = torch.arange(length) < torch.tensor([[max(1, length - 3)], [length]])
        positions = torch.arange(length).flip(0).expand(2, -1)
        heads = torch.tensor([0.5, 2.0])
        lean, plain = scores(
            model, ids(length=length), attention_mask=mask.long(), position_ids=positions, head_mask=heads
        )
        # What masked tokens see is nobody's, and depends on rounding.
        torch.testing.assert_close(lean[mask], plain[mask])

    def test_of_a_model_under_autocast(self, cls, changes, length):
        model = build(cls, **LARGE, **changes).eval()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            lean, plain = scores(model, ids(length=length))
        assert (lean - plain).abs().mean() <= 0.02 * plain.abs().mean()


@pytest.mark.usefixtures("small_parts")
def test_who_watches_a_projection_sees_each_token_once():
    model = build(**LARGE).eval()
    attention = model.reformer.encoder.layers[0].attention
    wanted = scores(model, ids())[0]
    for watched in (attention.self_attention.key, attention.layer_norm, model.reformer.embeddings.word_embeddings):
        seen = []
        hook = watched.register_forward_hook(lambda _module, _inputs, output, seen=seen: seen.append(output.shape[1]))
        with torch.no_grad():
            torch.testing.assert_close(model(ids(), use_cache=False).logits, wanted)
        hook.remove()
        assert sum(seen) == 64


@pytest.mark.usefixtures("small_parts")
def test_embeddings_given_by_the_caller_are_left_alone():
    model = build(**LARGE).eval()
    embeds = model.get_input_embeddings()(ids()).detach()
    before = embeds.clone()
    with torch.no_grad():
        lean = model(inputs_embeds=embeds, use_cache=False).logits
    assert torch.equal(embeds, before)
    torch.testing.assert_close(lean, scores(model, ids())[1])


@pytest.mark.parametrize("hashes", [1, 2])
def test_nothing_but_streams_queries_and_values_is_of_full_length(hashes, monkeypatch):
    taken = set()
    take = reversible._Scratch.take

    def watched(scratch, slot, *arguments):
        taken.add(slot)
        return take(scratch, slot, *arguments)

    monkeypatch.setattr(reversible._Scratch, "take", watched)
    length, width = 16384, 128
    sizes = {
        "attention_head_size": 16,
        "axial_pos_embds_dim": [32, 96],
        "axial_pos_shape": [128, 128],
        "feed_forward_size": 128,
        "hidden_size": width,
        "local_attn_chunk_length": 64,
        "lsh_attn_chunk_length": 64,
        "max_position_embeddings": length,
        "num_attention_heads": 8,
        "num_buckets": 256,
        "num_hashes": hashes,
    }
    model = build(**{**LARGE, **sizes}).eval()
    tokens = ids(1, length)
    with torch.no_grad(), profile(profile_memory=True) as prof:
        model(tokens, use_cache=False)
    allocated = [event.nbytes() for event in prof.profiler.kineto_results.events() if event.name() == "[memory]"]
    whole = 4 * length * width
    # Two streams in one block, and in each layer with LSH attention the room of four tensors, of which two are used.
    assert sorted(each for each in allocated if each > whole / 2) == [2 * whole, 4 * whole]
    assert taken == {0, 1}
