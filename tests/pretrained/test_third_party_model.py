"""A full model file written for 4.x (third_party_model.py) does all that it did there."""

import pytest
import torch
from torch import nn

from modelwright.pretrained.tying import tied_groups

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
IMAGE = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1))
CLEAN = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}


@pytest.fixture
def lm(third_party):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = third_party.CaptionLMHeadModel(third_party.CaptionConfig())
        nn.init.normal_(model.cls.bias)
    return model.eval()


@pytest.fixture
def fused(lm):
    def call(model=lm, **keywords):
        with torch.no_grad():
            return model(IDS, encoder_hidden_states=IMAGE, **keywords)

    return call


def test_three_modes(lm, fused):
    text = lm.bert(IDS, mode="text").last_hidden_state
    fusion = lm.bert(IDS, encoder_hidden_states=IMAGE, mode="fusion").last_hidden_state
    decoded = lm.bert(IDS, encoder_hidden_states=IMAGE, mode="fusion", is_decoder=True).last_hidden_state
    assert not torch.allclose(text, fusion, atol=0.01)
    assert not torch.allclose(fusion[:, 0], decoded[:, 0], atol=0.01), "a decoder's first token sees itself only"
    changed = IDS.clone()
    changed[:, -1] = 3
    again = lm.bert(changed, encoder_hidden_states=IMAGE, mode="fusion", is_decoder=True).last_hidden_state
    torch.testing.assert_close(again[:, :-1], decoded[:, :-1])
    with pytest.raises(ValueError, match="encoder_hidden_states must be given"):
        lm(IDS)


def test_it_is_saved_and_loaded_with_its_ties(lm, third_party, fused, tmp_path):
    lm.save_pretrained(tmp_path, max_shard_size=3000)
    loaded, info = third_party.CaptionLMHeadModel.from_pretrained(tmp_path, output_loading_info=True, strict=True)
    assert info == CLEAN
    assert tied_groups(loaded) == tied_groups(lm) == [
        ["cls.bias", "cls.decoder.bias"],
        ["bert.embeddings.word_embeddings.weight", "cls.decoder.weight"],
    ]  # fmt: skip
    assert torch.equal(fused(loaded).logits, fused().logits)
    base, info = third_party.CaptionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == ["pooler.weight", "pooler.bias"]
    assert torch.equal(base(IDS, mode="text")[0], lm.bert(IDS, mode="text")[0])
    base.save_pretrained(tmp_path / "base")
    _, info = third_party.CaptionLMHeadModel.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert info["unexpected_keys"] == []
    assert sorted(info["missing_keys"]) == ["cls.bias", "cls.transform.bias", "cls.transform.weight"]


def test_files_of_4x_with_buffers_and_tensorflow_names(lm, third_party, fused, tmp_path):
    weights = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in lm.state_dict().items()
        if "position_ids" not in name
    }
    torch.save(weights, tmp_path / "pytorch_model.bin")
    lm.config.save_pretrained(tmp_path)
    loaded, info = third_party.CaptionLMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info == CLEAN
    assert torch.equal(fused(loaded).logits, fused().logits)


def test_in_half_precision(lm, third_party, fused, tmp_path):
    lm.save_pretrained(tmp_path)
    half = third_party.CaptionLMHeadModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    with torch.no_grad():
        scores = half(IDS, encoder_hidden_states=IMAGE.bfloat16()).logits
    assert scores.dtype == torch.bfloat16
    torch.testing.assert_close(scores.float(), fused().logits, rtol=0.1, atol=0.5)


def test_pruned_heads_are_gone_and_stay_gone(lm, third_party, fused, tmp_path):
    mask = torch.ones(3, 4)
    mask[0, 1] = mask[2, 0] = mask[2, 3] = 0
    # Cross attention takes the same mask and is not pruned, so the equality is one of text.
    expected = lm(IDS, mode="text", head_mask=mask).logits
    lm.prune_heads({0: [1], 2: [0]})
    lm.prune_heads({2: [3]})
    torch.testing.assert_close(lm(IDS, mode="text").logits, expected)
    assert lm.config.pruned_heads == {0: [1], 2: [0, 3]}
    assert lm.bert.encoder.layer[2].attention.self.query.out_features == 8
    lm.save_pretrained(tmp_path)
    loaded = third_party.CaptionLMHeadModel.from_pretrained(tmp_path, strict=True)
    assert torch.equal(fused(loaded).logits, fused().logits)


def test_checkpointing_by_the_old_hook_changes_no_gradient(lm):
    lm.train()

    def gradients():
        lm.zero_grad()
        lm(IDS, encoder_hidden_states=IMAGE, labels=IDS).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in lm.named_parameters()}

    plain = gradients()
    lm.gradient_checkpointing_enable()
    assert lm.bert.encoder.gradient_checkpointing
    assert lm.is_gradient_checkpointing
    calls = []
    hook = lm.bert.encoder.layer[0].register_forward_pre_hook(lambda *_: calls.append(1))
    recomputed = gradients()
    hook.remove()
    assert len(calls) == 2, "the layer ran once in the forward and once in the backward"
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)
    lm.gradient_checkpointing_disable()
    assert not lm.bert.encoder.gradient_checkpointing


def test_chunks_of_the_feed_forward_change_nothing(lm, third_party, fused):
    chunked = third_party.CaptionLMHeadModel(third_party.CaptionConfig(chunk_size_feed_forward=2)).eval()
    chunked.load_state_dict(lm.state_dict())
    torch.testing.assert_close(fused(chunked).logits, fused().logits)


def test_a_vocabulary_that_grows(lm, fused):
    before = fused().logits
    lm.resize_token_embeddings(30)
    assert lm.cls.decoder.bias is lm.cls.bias
    assert lm.cls.decoder.weight is lm.bert.embeddings.word_embeddings.weight
    torch.testing.assert_close(fused().logits[..., :23], before)
    assert lm(IDS + 15, encoder_hidden_states=IMAGE, labels=IDS + 15).loss.isfinite()


def test_cached_steps_are_the_whole(fused, lm):
    whole = fused(use_cache=False).logits
    past, steps = None, []
    for step in range(IDS.shape[1]):
        output = lm(
            IDS[:, step : step + 1], encoder_hidden_states=IMAGE, past_key_values=past, use_cache=True,
            attention_mask=torch.ones(2, step + 1),
        )  # fmt: skip
        past = output.past_key_values
        steps.append(output.logits)
    assert isinstance(past, tuple)
    assert [len(layer) for layer in past] == [2, 4, 4], "keys and values, and from layer 1 on those of the image"
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)


@pytest.mark.parametrize("mode", ["fusion", "text"])
def test_greedy_generation_with_tuple_caches(lm, mode):
    lengths = []
    hook = lm.bert.register_forward_pre_hook(lambda _module, args: lengths.append(args[0].shape[1]))
    keywords = {"encoder_hidden_states": IMAGE, "mode": mode, "max_new_tokens": 8, "do_sample": False}
    cached = lm.generate(IDS, **keywords)
    hook.remove()
    assert lengths == [4] + [1] * 7, "later steps read one token each"
    assert torch.equal(cached, lm.generate(IDS, use_cache=False, **keywords))
    by_hand = IDS
    for _ in range(8):
        scores = lm(by_hand, encoder_hidden_states=IMAGE, mode=mode).logits[:, -1]
        by_hand = torch.cat([by_hand, scores.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(cached, by_hand)


def test_several_texts_for_one_picture_are_drawn_with_the_cache(lm):
    def draw(**keywords):
        torch.manual_seed(3)
        return lm.generate(
            IDS, encoder_hidden_states=IMAGE, do_sample=True, num_return_sequences=3, max_new_tokens=5, **keywords
        )

    assert draw().shape == (6, 9)
    assert torch.equal(draw(), draw(use_cache=False))
    assert len(draw().unique(dim=0)) > 2


def test_its_cache_is_reordered_by_its_own_rule(lm):
    past = lm(IDS, encoder_hidden_states=IMAGE, use_cache=True).past_key_values
    swapped = lm._reorder_cache(past, torch.tensor([1, 0]))
    assert torch.equal(swapped[2][3][0], past[2][3][1])


def test_tuples_instead_of_outputs(lm, fused):
    asked = {"output_hidden_states": True, "output_attentions": True, "return_dict": False}
    loss, scores, *others = lm(IDS, encoder_hidden_states=IMAGE, labels=IDS, **asked)
    assert loss.ndim == 0
    assert torch.equal(scores, fused().logits)
    assert [len(other) for other in others] == [4, 3, 2], "hidden states, own attention, that to the image; no cache"


def test_beams_reorder_the_tuple_cache_by_the_models_own_rule(lm, monkeypatch):
    keywords = {"encoder_hidden_states": IMAGE, "num_beams": 4, "max_new_tokens": 8, "do_sample": False}
    orders = []
    own = type(lm)._reorder_cache

    def reorder(self, past_key_values, beam_idx):
        orders.append(beam_idx.tolist())
        return own(self, past_key_values, beam_idx)

    monkeypatch.setattr(type(lm), "_reorder_cache", reorder)
    cached = lm.generate(IDS, **keywords)
    assert any(order != sorted(order) or len(set(order)) < len(order) for order in orders), "beams changed places"
    assert torch.equal(cached, lm.generate(IDS, use_cache=False, **keywords))

    def score(ids):
        log_p = lm(ids, encoder_hidden_states=IMAGE).logits.log_softmax(-1)[:, 3:-1]
        return log_p.gather(-1, ids[:, 4:, None]).sum((1, 2))

    greedy = lm.generate(IDS, encoder_hidden_states=IMAGE, max_new_tokens=8, do_sample=False)
    assert (score(cached) >= score(greedy) - 1e-4).all()
    assert (score(cached) > score(greedy) + 1e-3).any(), "no row shows that beams find more"
