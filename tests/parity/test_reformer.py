"""Reformer against transformers 4.57.1: logits, gradients, masks and checkpoints written by either side."""

import copy

import pytest
import torch

from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.modeling_reformer import ReformerModel, ReformerModelWithLMHead

pytestmark = pytest.mark.parity

SMALL = {
    "attention_head_size": 8,
    "attn_layers": ["local", "lsh"],
    "axial_pos_embds_dim": [4, 12],
    "axial_pos_shape": [8, 8],
    "feed_forward_size": 32,
    "hash_seed": 3,
    "hidden_dropout_prob": 0.0,
    "hidden_size": 16,
    "is_decoder": True,
    "local_attention_probs_dropout_prob": 0.0,
    "local_attn_chunk_length": 8,
    "lsh_attn_chunk_length": 8,
    "max_position_embeddings": 64,
    "num_attention_heads": 2,
    "num_buckets": 4,
    "vocab_size": 50,
    # Large weights: attention must be far from uniform, or a wrong mask would hardly show.
    "initializer_range": 0.3,
}
VARIANTS = {
    "local": {"attn_layers": ["local", "local"]},
    "lsh-1-hash": {"attn_layers": ["lsh", "lsh"]},
    "lsh-2-hashes": {"attn_layers": ["lsh", "lsh"], "num_hashes": 2},
    "mix-4-hashes": {"attn_layers": ["local", "lsh", "local", "lsh"], "num_hashes": 4},
    "factorised-buckets": {"num_buckets": [4, 2], "num_hashes": 3},
    "auto-buckets": {"num_buckets": None},
    "plain-positions": {"axial_pos_embds": False},
    "chunked-feed-forward": {"chunk_size_feed_forward": 16, "chunk_size_lm_head": 8},
    "two-chunks-before": {"lsh_num_chunks_before": 2, "local_num_chunks_before": 3},
    "uneven-chunks": {"local_attn_chunk_length": 4, "lsh_attn_chunk_length": 16},
    "gelu": {"hidden_act": "gelu"},
    "three-axes": {"axial_pos_shape": [4, 4, 4], "axial_pos_embds_dim": [4, 4, 8]},
    "mid-size": {
        "attention_head_size": 32,
        "attn_layers": ["local", "lsh", "local", "lsh"],
        "axial_pos_embds_dim": [32, 96],
        "axial_pos_shape": [16, 32],
        "feed_forward_size": 256,
        # Smooth: at this size some unit is so near ReLU's kink that one rounding flips its gradient.
        "hidden_act": "gelu",
        "hidden_size": 128,
        "initializer_range": 0.08,
        "local_attn_chunk_length": 64,
        "lsh_attn_chunk_length": 32,
        "max_position_embeddings": 512,
        "num_attention_heads": 4,
        "num_buckets": [4, 8],
        "num_hashes": 2,
        "vocab_size": 258,
    },
}


def build(oracle_class, own_class, **changes):
    """Return (theirs, ours) with the same weights; theirs without the rounding of its -1e5 (defect 4 of the facts)."""
    from transformers import ReformerConfig as TheirConfig

    settings = {**SMALL, **changes}
    torch.manual_seed(0)
    theirs = oracle_class(TheirConfig(**copy.deepcopy(settings))).eval()
    for name, buffer in theirs.named_buffers():
        if "self_mask_value_float32" in name:
            # -1e3 + log(num_hashes) is representable in fp32 where -1e5 + log(num_hashes) is not, and just as far
            # below every real score.
            buffer.fill_(-1e3)
    ours = own_class(ReformerConfig(**copy.deepcopy(settings))).eval()
    state = {name: value for name, value in theirs.state_dict().items() if name != "lm_head.decoder.bias"}
    ours.load_state_dict(state, strict=True)
    return theirs, ours


def lm_pair(**changes):
    from transformers import ReformerModelWithLMHead as TheirModel

    return build(TheirModel, ReformerModelWithLMHead, **changes)


def model_pair(**changes):
    from transformers import ReformerModel as TheirModel

    return build(TheirModel, ReformerModel, **changes)


def ids_of(model, batch, length):
    return torch.randint(1, model.config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(1))


def assert_relative(ours, theirs, tolerance):
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def assert_clean(info):
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_agree(variant):
    theirs, ours = lm_pair(**VARIANTS[variant])
    ids = ids_of(ours, 2, ours.config.max_position_embeddings)
    with torch.no_grad():
        assert_relative(ours(ids).logits, theirs(ids).logits, 1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_agree(variant):
    theirs, ours = lm_pair(**VARIANTS[variant])
    ids = ids_of(ours, 2, ours.config.max_position_embeddings)
    losses = []
    for model in (theirs, ours):
        model.train()
        loss = model(ids, labels=ids).loss
        loss.backward()
        losses.append(loss.detach())
    assert_relative(losses[1], losses[0], 1e-5)
    their_gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert_relative(parameter.grad, their_gradients[name].grad, 1e-3)


@pytest.mark.parametrize("length", [1, 5, 8, 9, 23, 63])
@pytest.mark.parametrize("hashes", [1, 2])
def test_any_length_agrees_in_evaluation(length, hashes):
    theirs, ours = lm_pair(num_hashes=hashes)
    ids = ids_of(ours, 2, length)
    with torch.no_grad():
        assert_relative(ours(ids).logits, theirs(ids).logits, 1e-4)


@pytest.mark.parametrize("kind", ["right", "left", "holes"])
@pytest.mark.parametrize("length", [6, 30, 64])
def test_masked_tokens_agree(kind, length):
    theirs, ours = lm_pair(attn_layers=["local", "lsh", "local", "lsh"], num_hashes=2)
    ids = ids_of(ours, 3, length)
    mask = torch.ones_like(ids)
    if kind == "holes":
        mask = (torch.rand(mask.shape, generator=torch.Generator().manual_seed(5)) > 0.3).long()
    else:
        for row, count in enumerate((0, 2, length // 2)):
            columns = slice(length - count, length) if kind == "right" else slice(0, count)
            mask[row, columns] = 0
    with torch.no_grad():
        ours_logits, theirs_logits = ours(ids, attention_mask=mask).logits, theirs(ids, attention_mask=mask).logits
    # What a masked token itself predicts is nobody's business.
    assert_relative(ours_logits[mask.bool()], theirs_logits[mask.bool()], 1e-4)


def test_bidirectional_model_agrees_with_chunks_after():
    theirs, ours = model_pair(
        is_decoder=False, lsh_num_chunks_after=1, local_num_chunks_after=1, attn_layers=["local", "lsh", "lsh"]
    )
    ids = ids_of(ours, 2, 64)
    with torch.no_grad():
        assert_relative(ours(ids).last_hidden_state, theirs(ids).last_hidden_state, 1e-4)


def test_intermediate_results_agree():
    theirs, ours = model_pair(num_hashes=2)
    ids = ids_of(ours, 2, 64)
    head_mask = torch.tensor([[1.0, 0.0], [0.5, 1.0]])
    arguments = {"head_mask": head_mask, "output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        own, other = ours(ids, **arguments), theirs(ids, **arguments)
    assert_relative(own.last_hidden_state, other.last_hidden_state, 1e-4)
    for a, b in zip(own.hidden_states, other.hidden_states, strict=True):
        assert_relative(a, b, 1e-4)
    for a, b in zip(own.attentions, other.attentions, strict=True):
        assert a.shape == b.shape
        assert_relative(a, b, 1e-4)


def test_embeddings_positions_and_hash_override_agree():
    theirs, ours = model_pair()
    generator = torch.Generator().manual_seed(2)
    embeds = torch.randn(2, 64, 16, generator=generator)
    positions = torch.stack([torch.randperm(64, generator=generator) for _ in range(2)])
    with torch.no_grad():
        own = ours(inputs_embeds=embeds, position_ids=positions, num_hashes=3).last_hidden_state
        other = theirs(inputs_embeds=embeds, position_ids=positions, num_hashes=3).last_hidden_state
    assert_relative(own, other, 1e-4)


@pytest.mark.parametrize("sharded", [False, True])
def test_their_checkpoint_loads_here(tmp_path, sharded):
    theirs, _ = lm_pair()
    with torch.no_grad():
        theirs.lm_head.bias.normal_()
    theirs.save_pretrained(tmp_path, max_shard_size="10kB" if sharded else "5GB")
    ours, info = ReformerModelWithLMHead.from_pretrained(tmp_path, output_loading_info=True)
    assert_clean(info)
    ids = ids_of(ours, 2, 64)
    with torch.no_grad():
        assert_relative(ours(ids).logits, theirs(ids).logits, 1e-4)


def test_their_pickled_checkpoint_loads_here(tmp_path):
    theirs, _ = lm_pair()
    theirs.save_pretrained(tmp_path, safe_serialization=False)
    ours, info = ReformerModelWithLMHead.from_pretrained(tmp_path, output_loading_info=True)
    assert_clean(info)
    ids = ids_of(ours, 1, 64)
    with torch.no_grad():
        assert_relative(ours(ids).logits, theirs(ids).logits, 1e-4)


@pytest.mark.parametrize("sharded", [False, True])
def test_our_checkpoint_loads_there(tmp_path, sharded):
    from transformers import ReformerModelWithLMHead as TheirModel

    torch.manual_seed(4)
    ours = ReformerModelWithLMHead(ReformerConfig(**SMALL)).eval()
    with torch.no_grad():
        ours.lm_head.bias.normal_()
    ours.save_pretrained(tmp_path, max_shard_size="10kB" if sharded else "5GB")
    theirs, info = TheirModel.from_pretrained(tmp_path, output_loading_info=True)
    assert_clean(info)
    ids = ids_of(ours, 2, 64)
    with torch.no_grad():
        assert_relative(ours(ids).logits, theirs(ids).logits, 1e-4)


def test_their_head_checkpoint_loads_into_our_base_model_and_back(tmp_path):
    theirs, _ = lm_pair()
    theirs.save_pretrained(tmp_path / "head")
    base = ReformerModel.from_pretrained(tmp_path / "head")
    base.save_pretrained(tmp_path / "base")
    head, info = ReformerModelWithLMHead.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert sorted(info["missing_keys"]) == ["lm_head.bias", "lm_head.decoder.weight"]
    ids = ids_of(base, 1, 64)
    with torch.no_grad():
        expected = theirs.reformer(ids).last_hidden_state
        assert_relative(base(ids).last_hidden_state, expected, 1e-4)
        assert_relative(head.reformer(ids).last_hidden_state, expected, 1e-4)


def test_config_survives_the_round_trip_through_either_side(tmp_path):
    from transformers import ReformerConfig as TheirConfig

    ReformerConfig(**SMALL, num_labels=3).save_pretrained(tmp_path / "ours")
    TheirConfig.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    back = ReformerConfig.from_pretrained(tmp_path / "theirs")
    for name, value in SMALL.items():
        assert getattr(back, name) == (tuple(value) if name.startswith("axial_pos_") else value), name
    assert back.num_labels == 3
