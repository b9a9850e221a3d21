"""GPT-2 against transformers 4.57.1: logits, gradients, heads, generation and checkpoints written by either side."""

import pytest
import torch

from modelwright.core import logging
from modelwright.models.gpt2 import modeling_gpt2 as ours
from modelwright.models.gpt2.configuration_gpt2 import GPT2Config

pytestmark = pytest.mark.parity

SMALL = {
    "vocab_size": 50,
    "n_positions": 32,
    "n_embd": 16,
    "n_layer": 3,
    "n_head": 4,
    # Large weights: attention must be far from uniform, or a wrong mask would hardly show.
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "summary_first_dropout": 0.0,
}
VARIANTS = {
    "plain": {},
    "unscaled": {"scale_attn_weights": False},
    "scaled-by-layer": {"scale_attn_by_inverse_layer_idx": True},
    "upcast": {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
    "narrow-relu": {"n_inner": 24, "activation_function": "relu"},
}
IDS = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(0))
PADDED = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9])


def pair(name, **config):
    """Their model and ours with its weights."""
    import transformers

    config = {**SMALL, **config}
    torch.manual_seed(1)
    theirs = getattr(transformers, name)(transformers.GPT2Config(**config, attn_implementation="eager"))
    mine = getattr(ours, name)(GPT2Config(**config))
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.eval(), mine.eval()


def assert_close(left, right, **tolerance):
    torch.testing.assert_close(left, right, **{"rtol": 1e-4, "atol": 1e-5, **tolerance})


def assert_same_gradients(theirs, mine):
    expected = dict(theirs.named_parameters())
    for name, parameter in mine.named_parameters():
        if expected[name].grad is None:
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        assert_close(parameter.grad, expected[name].grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients(variant, kernel):
    theirs, mine = pair("GPT2LMHeadModel", **VARIANTS[variant])
    mine.set_attn_implementation(kernel)
    a, b = (model(IDS, labels=IDS) for model in (theirs, mine))
    assert_close(b.logits, a.logits)
    assert_close(b.loss, a.loss)
    a.loss.backward(), b.loss.backward()
    assert_same_gradients(theirs, mine)


def test_left_padding_head_masks_types_and_all_outputs():
    theirs, mine = pair("GPT2Model")
    head_mask = torch.tensor([[1.0, 0, 1, 0.5], [0, 1, 1, 1], [1, 1, 1, 1]])
    keywords = {
        "attention_mask": PADDED,
        "head_mask": head_mask,
        "token_type_ids": IDS.flip(0),
        "position_ids": (PADDED.cumsum(-1) - 1).clamp(min=0),
        "output_attentions": True,
        "output_hidden_states": True,
    }
    logging.set_verbosity_error()
    a, b = (model(IDS, **keywords) for model in (theirs, mine))
    logging.set_verbosity_warning()
    seen = PADDED.bool()
    assert_close(b.last_hidden_state[seen], a.last_hidden_state[seen])
    for left, right in zip(b.hidden_states, a.hidden_states, strict=True):
        assert_close(left[seen], right[seen])
    for left, right in zip(b.attentions, a.attentions, strict=True):
        assert_close(left.transpose(1, 2)[seen], right.transpose(1, 2)[seen])
    assert b.to_tuple()[1].get_seq_length() == 9


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_cross_attention_with_a_cache(kernel):
    theirs, mine = pair("GPT2LMHeadModel", add_cross_attention=True)
    mine.set_attn_implementation(kernel)
    states = torch.randn(2, 5, 16)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1] * 5])
    keywords = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
    expected = theirs(IDS, **keywords, use_cache=False).logits
    assert_close(mine(IDS, **keywords).logits, expected)
    first = mine(IDS[:, :4], **keywords)
    assert first.past_key_values.is_updated == {0: True, 1: True, 2: True}
    # What the cache holds of the encoder is not computed again.
    keywords["encoder_hidden_states"] = torch.full_like(states, float("nan"))
    second = mine(IDS[:, 4:], **keywords, past_key_values=first.past_key_values.to_legacy_cache())
    assert_close(second.logits, expected[:, 4:])


HEADS = {
    "GPT2ForSequenceClassification": {"labels": torch.tensor([2, 0])},
    "GPT2ForTokenClassification": {"labels": IDS % 3},
    "GPT2ForQuestionAnswering": {"start_positions": torch.tensor([1, 4]), "end_positions": torch.tensor([3, 30])},
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(name):
    theirs, mine = pair(name, num_labels=3 if "labels" in HEADS[name] else 2)
    ids = torch.where(PADDED.flip(1).bool(), IDS, 0)
    keywords = {key: value.clone() for key, value in HEADS[name].items()}
    a, b = theirs(ids, **keywords), mine(ids, **HEADS[name])
    assert list(a) == list(b)
    assert_close(b.loss, a.loss)
    assert_close(b[1], a[1])
    a.loss.backward(), b.loss.backward()
    assert_same_gradients(theirs, mine)


def test_double_heads():
    theirs, mine = pair("GPT2DoubleHeadsModel")
    ids = torch.stack([IDS, IDS.flip(1), IDS.flip(0)], dim=1)
    keywords = {
        "mc_token_ids": torch.tensor([[8, 3, 4], [2, 8, 8]]),
        "mc_labels": torch.tensor([2, 0]),
        "labels": ids,
        "attention_mask": torch.ones_like(ids),
    }
    a, b = theirs(ids, **keywords), mine(ids, **keywords)
    for name in ("logits", "mc_logits", "loss", "mc_loss"):
        assert_close(b[name], a[name])
    (a.loss + a.mc_loss).backward(), (b.loss + b.mc_loss).backward()
    assert_same_gradients(theirs, mine)


def test_greedy_generation_token_for_token():
    theirs, mine = pair("GPT2LMHeadModel")
    keywords = {"attention_mask": PADDED, "max_new_tokens": 12, "do_sample": False}
    expected = theirs.generate(IDS, **keywords)
    assert torch.equal(mine.generate(IDS, **keywords), expected)
    assert torch.equal(mine.generate(IDS, **keywords, use_cache=False), expected)


def test_pruned_like_theirs():
    theirs, mine = pair("GPT2LMHeadModel")
    for heads in ({0: [1], 2: [0, 3]}, {0: [3]}):
        theirs.prune_heads(heads)
        mine.prune_heads(heads)
    assert_close(mine(IDS).logits, theirs(IDS).logits)
    assert {k: sorted(v) for k, v in theirs.config.pruned_heads.items()} == mine.config.pruned_heads


@pytest.mark.parametrize("pruned", [False, True])
def test_checkpoints_cross_both_ways(tmp_path, pruned):
    import transformers

    theirs, mine = pair("GPT2LMHeadModel")
    if pruned:
        theirs.prune_heads({1: [0, 2]})
        mine.prune_heads({1: [0, 2]})
    expected = theirs(IDS).logits
    theirs.save_pretrained(tmp_path / "theirs")
    mine.save_pretrained(tmp_path / "mine")
    loaded, info = ours.GPT2LMHeadModel.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_close(loaded(IDS).logits, expected)
    back, info = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "mine", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_close(back(IDS).logits, expected)
    # A base model of a checkpoint with a head.
    assert_close(ours.GPT2Model.from_pretrained(tmp_path / "theirs")(IDS)[0], theirs.transformer(IDS)[0])
