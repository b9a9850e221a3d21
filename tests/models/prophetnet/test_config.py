"""What an assignment to the config of a ProphetNet does, and to whom."""

import copy

import pytest
import torch
from small_prophetnet import IDS, MASK, TARGET, both, make

from modelwright.core.errors import InputError
from modelwright.models.prophetnet.configuration_prophetnet import ProphetNetConfig


@pytest.mark.parametrize("kind", ["ProphetNetForConditionalGeneration", "ProphetNetForCausalLM"])
def test_what_is_assigned_to_the_config_takes_effect(kind):
    def call(model):
        texts = {"input_ids": IDS.flip(1), "attention_mask": MASK.flip(1)}
        if kind == "ProphetNetForConditionalGeneration":
            texts["decoder_input_ids"] = TARGET
        output = model(**texts, labels=texts.get("decoder_input_ids", IDS))
        return both(output), output.loss

    changed, plain = make(kind), call(make(kind))
    for values in (
        {"relative_bias_layout": "transformers"},
        {"padding_aware_positions": True},
        {"disable_ngram_loss": True},
        {"eps": 0.3},
    ):
        expected = call(make(kind, **values))
        assert not torch.allclose(expected[1], plain[1])
        before = {name: getattr(changed.config, name) for name in values}
        changed.config.update(values)
        torch.testing.assert_close(call(changed), expected)
        changed.config.update(before)
        torch.testing.assert_close(call(changed), plain)
    changed.disable_ngram_loss = True
    assert changed.config.disable_ngram_loss


def test_a_config_shares_with_its_parts_and_no_other(tmp_path):
    model = make()
    other = copy.deepcopy(model)
    model.config.relative_bias_layout = "transformers"
    model.get_decoder().config.padding_aware_positions = True
    for each in (model.config, model.get_encoder().config, model.get_decoder().config):
        assert (each.relative_bias_layout, each.padding_aware_positions) == ("transformers", True)
        assert ProphetNetConfig.from_dict(each.to_dict()) == each
        assert "_shared" not in each.to_dict()
    assert (other.config.relative_bias_layout, other.get_encoder().config.padding_aware_positions) == ("paper", False)
    model.get_decoder().save_pretrained(tmp_path)
    assert ProphetNetConfig.from_pretrained(tmp_path).relative_bias_layout == "transformers"
    with pytest.raises(InputError, match="config.relative_bias_layout is 'transformers'.*set config.relative_bias_lay"):
        model.generate(IDS, speculative_ngram=True, max_new_tokens=3)
    model.config.relative_bias_layout = "paper"
    texts = [model.generate(IDS, max_new_tokens=3, **each) for each in ({}, {"speculative_ngram": True})]
    assert torch.equal(*texts)


def test_a_shallow_copy_shares_with_nobody():
    config = ProphetNetConfig()
    copied = copy.copy(config)
    assert copied == config
    copied.update({"relative_bias_layout": "transformers", "padding_aware_positions": True})
    assert (config.relative_bias_layout, config.padding_aware_positions) == ("paper", False)
