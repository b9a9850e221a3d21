"""More or fewer positions: stretched tables, for both kinds of position embeddings."""

import copy

import pytest
import torch
from small_reformer import QUIET, build, ids

from modelwright.core.errors import InputError
from modelwright.models.reformer.modeling_reformer import ReformerForSequenceClassification, ReformerModelWithLMHead

PLAIN = {**QUIET, "axial_pos_embds": False}


def embedded(model):
    positions = model.get_position_embeddings()
    with torch.no_grad():
        return positions.eval()(torch.arange(positions.num_positions)[None])[0]


def test_a_longer_first_axis_runs_through_the_old_rows():
    model = build(**QUIET).eval()
    before = embedded(model)
    model.resize_position_embeddings([15, 8])
    after = embedded(model)
    assert after.shape == (120, 16)
    # Rows 0, 2, 4, ... of 15 are the old 8; those between are their means. The columns of the table stay.
    old, new = before.view(8, 8, 16), after.view(15, 8, 16)
    torch.testing.assert_close(new[::2], old)
    torch.testing.assert_close(new[1::2], (old[1:] + old[:-1]) / 2)
    assert model.config.axial_pos_shape == (15, 8)
    assert model.config.max_position_embeddings == 120


def test_every_axis_is_stretched_and_shrunk_by_itself():
    settings = {**QUIET, "axial_pos_shape": [4, 4, 4], "axial_pos_embds_dim": [4, 4, 8]}
    model = build(**settings).eval()
    before = embedded(model).view(4, 4, 4, 16)
    model.resize_position_embeddings((7, 4, 2))
    after = embedded(model).view(7, 4, 2, 16)
    torch.testing.assert_close(after[::2], before[:, :, [0, 3]])
    assert [tuple(weight.shape) for weight in model.get_position_embeddings().weights] == [
        (7, 1, 1, 4),
        (1, 4, 1, 4),
        (1, 1, 2, 8),
    ]


def test_plain_positions():
    model = build(**PLAIN).eval()
    before = embedded(model)
    model.resize_position_embeddings(127)
    after = embedded(model)
    torch.testing.assert_close(after[::2], before)
    torch.testing.assert_close(after[1::2], (before[1:] + before[:-1]) / 2)
    assert model.config.max_position_embeddings == 127
    assert model.config.axial_pos_shape == (8, 8)


@pytest.mark.parametrize(("settings", "size"), [(QUIET, [16, 8]), (PLAIN, 128)])
def test_longer_texts_train_generate_save_and_load(settings, size, tmp_path):
    model = build(**settings).train()
    with pytest.raises(InputError, match=r"at most 64 tokens .*, got 128; .* or call model.resize_position_embeddings"):
        model(ids(2, 128))
    weights = list(model.get_position_embeddings().parameters())
    weights[-1].requires_grad_(False)
    model.resize_position_embeddings(size)
    assert [id(weight) for weight in model.get_position_embeddings().parameters()] == [id(each) for each in weights]
    assert not weights[-1].requires_grad
    weights[-1].requires_grad_(True)
    model(ids(2, 128), labels=ids(2, 128)).loss.backward()
    assert all(weight.grad.shape == weight.shape for weight in weights)
    assert model.eval().generate(ids(1, 100), max_new_tokens=28, eos_token_id=None).shape == (1, 128)
    model.save_pretrained(tmp_path)
    loaded = ReformerModelWithLMHead.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(ids(2, 128)).logits, model(ids(2, 128)).logits)


def test_heads_share_the_config_and_half_precision_stays():
    model = build(ReformerForSequenceClassification, **QUIET, num_labels=3).to(torch.bfloat16).eval()
    model.resize_position_embeddings([16, 16])
    assert model.reformer.config.max_position_embeddings == model.config.max_position_embeddings == 256
    assert {weight.dtype for weight in model.get_position_embeddings().parameters()} == {torch.bfloat16}
    assert model(ids(2, 200)).logits.isfinite().all()


def test_the_same_size_changes_nothing():
    model = build(**QUIET)
    before = copy.deepcopy(model.state_dict())
    model.resize_position_embeddings([8, 8])
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())


@pytest.mark.parametrize("size", [128, None, [128], [16, 0], [16, 8, 1], [16, 8.0], [True, 8]])
def test_axial_sizes_that_do_not_fit(size):
    model = build()
    match = r"expected 2 positive sizes, one for each axis of axial_pos_shape \[8, 8\], got .*; \[16, 8\] makes 128 pos"
    with pytest.raises(InputError, match=match):
        model.resize_position_embeddings(size)
    assert model.get_position_embeddings().num_positions == 64


@pytest.mark.parametrize("size", [0, -3, [16, 8], 12.0, True])
def test_plain_sizes_that_do_not_fit(size):
    with pytest.raises(InputError, match=r"expected a positive number of positions \(now 64; .*, got "):
        build(**PLAIN).resize_position_embeddings(size)
