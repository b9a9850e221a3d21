"""Pruned heads of ProphetNet: of a whole model, of its parts alone, and in both layouts."""

import pytest
import torch
from small_prophetnet import IDS, MASK, TARGET, both, make

from modelwright.core.errors import InputError
from modelwright.models.prophetnet import modeling_prophetnet as prophetnet

# By number: two layers of the encoder, three of the decoder, three attentions to the encoder.
GONE = {0: [1, 3], 1: [0], 2: [2], 4: [0, 1], 5: [3], 7: [0]}


@pytest.mark.parametrize("layout", ["paper", "transformers"])
def test_pruned_heads_are_heads_masked_with_zeros(layout, tmp_path):
    model = make(relative_bias_layout=layout)

    def masked(first, layers):
        rows = torch.ones(layers, 4)
        for index in range(layers):
            rows[index, GONE.get(first + index, [])] = 0
        return rows

    masks = {
        "head_mask": masked(0, 2),
        "decoder_head_mask": masked(2, 3),
        "cross_attn_head_mask": masked(5, 3),
    }
    expected = both(model(IDS, MASK, decoder_input_ids=TARGET, **masks))
    assert not torch.allclose(expected, both(model(IDS, MASK, decoder_input_ids=TARGET)), atol=1e-2)
    model.prune_heads({0: [1], 2: [2]})
    model.prune_heads(GONE)
    assert model.config.pruned_heads == GONE
    torch.testing.assert_close(both(model(IDS, MASK, decoder_input_ids=TARGET)), expected, rtol=1e-4, atol=1e-5)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, strict=True)
    torch.testing.assert_close(both(loaded(IDS, MASK, decoder_input_ids=TARGET)), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="expected layers from 0 to 7, got 8"):
        model.prune_heads({8: [0]})


@pytest.mark.parametrize("gone", [{0: [1]}, {3: [1], 6: [0]}, GONE])
@pytest.mark.parametrize("kind", ["ProphetNetForCausalLM", "ProphetNetDecoderWrapper", "ProphetNetDecoder"])
def test_the_decoder_of_a_pruned_checkpoint_loads_alone_and_again(kind, gone, tmp_path):
    model = make()
    model.prune_heads(gone)
    model.save_pretrained(tmp_path / "whole")
    alone = getattr(prophetnet, kind).from_pretrained(tmp_path / "whole")
    own = {number - 2: heads for number, heads in gone.items() if number >= 2}
    assert alone.config.pruned_heads == model.get_decoder().config.pruned_heads == own
    alone.prune_heads({0: [3]})
    assert alone.config.pruned_heads == {**own, 0: sorted({3, *own.get(0, [])})}
    alone.save_pretrained(tmp_path / "alone")
    again = getattr(prophetnet, kind).from_pretrained(tmp_path / "alone", strict=True)
    states = model.get_encoder()(IDS).last_hidden_state
    model.prune_heads({2: [3]})
    expected = model.get_decoder()(TARGET, encoder_hidden_states=states).last_hidden_state
    model.get_decoder().save_pretrained(tmp_path / "part")
    part = prophetnet.ProphetNetDecoder.from_pretrained(tmp_path / "part", strict=True)
    for each in (part, alone, again):
        found = getattr(each, "prophetnet", each)(TARGET, encoder_hidden_states=states).last_hidden_state
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gone", [{0: [1]}, {3: [1]}, GONE])
def test_the_encoder_of_a_pruned_checkpoint_loads_alone_and_again(gone, tmp_path):
    model = make()
    model.prune_heads(gone)
    model.save_pretrained(tmp_path / "whole")
    alone = prophetnet.ProphetNetEncoder.from_pretrained(tmp_path / "whole", strict=True)
    own = {number: heads for number, heads in gone.items() if number < 2}
    assert alone.config.pruned_heads == model.get_encoder().config.pruned_heads == own
    alone.save_pretrained(tmp_path / "alone")
    again = prophetnet.ProphetNetEncoder.from_pretrained(tmp_path / "alone", strict=True)
    expected = model.get_encoder()(IDS).last_hidden_state
    for each in (alone, again):
        torch.testing.assert_close(each(IDS).last_hidden_state, expected, rtol=1e-4, atol=1e-5)


def test_pruned_heads_in_another_layout():
    gone = {2: [2], 3: [0, 1]}
    whole = {layout: make(relative_bias_layout=layout) for layout in ("paper", "transformers")}
    for model in whole.values():
        model.prune_heads(gone)
    call = {"input_ids": IDS, "decoder_input_ids": TARGET}
    expected = both(whole["paper"](**call))
    changed = whole["transformers"]
    changed.config.relative_bias_layout = "paper"
    torch.testing.assert_close(both(changed(**call)), expected)
    for model in whole.values():
        model.prune_heads({2: [3], 4: [1]})
    torch.testing.assert_close(both(changed(**call)), both(whole["paper"](**call)))
    whole["paper"].config.relative_bias_layout = "transformers"
    with pytest.raises(InputError, match="layer 0: heads were pruned with relative_bias_layout='paper'"):
        whole["paper"](**call)
    whole["paper"].prune_heads({2: [1]})
    with pytest.raises(InputError, match="layer 0: heads were pruned with relative_bias_layout='paper'"):
        whole["paper"](**call)
