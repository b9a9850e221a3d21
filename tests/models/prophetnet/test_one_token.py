"""A step of decoding by the decoder's weights alone: equal to one by its modules, and left to them where watched."""

import copy

import pytest
import torch
from small_prophetnet import IDS, MASK, TARGET, make

from modelwright.models.prophetnet import decoder, one_token
from modelwright.nn.decode_layout import lay_out_for_decoding


@pytest.fixture
def model():
    return make()


def steps_by_weights_and_by_modules(model, calls, monkeypatch, **arguments):
    """Return the logits of a few steps, and of the same ones with modules that are called; `calls` counts the first."""
    run = one_token.PlainLayer.step
    monkeypatch.setattr(one_token.PlainLayer, "step", lambda *args: calls.append(1) or run(*args))
    found = []
    for by_weights in (True, False):
        if not by_weights:
            monkeypatch.setattr(decoder, "plain_step", lambda *_: None)
        with torch.no_grad():
            states = model.prophetnet.encoder(IDS, attention_mask=MASK)
            cache, logits = None, []
            for column in range(TARGET.shape[1]):
                output = model(
                    encoder_outputs=states, attention_mask=MASK, decoder_input_ids=TARGET[:, column : column + 1],
                    past_key_values=cache, use_cache=True, num_streams=1, **arguments,
                )  # fmt: skip
                cache = output.past_key_values
                cache.reorder_cache(torch.arange(3))
                logits.append(output.logits)
        found.append(torch.cat(logits, dim=1))
    return found


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", ["paper", "transformers"])
def test_a_step_by_the_weights_alone_is_that_of_the_modules(monkeypatch, layout, packed):
    model, calls = make(ngram=1, relative_bias_layout=layout), []
    lay_out_for_decoding(model, packed=packed)
    by_weights, by_modules = steps_by_weights_and_by_modules(model, calls, monkeypatch)
    assert len(calls) == 3 * (TARGET.shape[1] - 1)
    torch.testing.assert_close(by_weights, by_modules)


@pytest.mark.parametrize("beams", [2, 5])
def test_beams_by_the_weights_alone_are_those_of_the_modules(model, beams):
    arguments = {"attention_mask": MASK, "max_new_tokens": 6, "min_new_tokens": 6, "num_beams": beams}
    shown = {"return_dict_in_generate": True, "output_scores": True}
    found, expected = (each.generate(IDS, **arguments, **shown) for each in (model, watched(model)))
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(found.scores, expected.scores)
    # The source's keys lie otherwise, and are the same.
    layers = [each.past_key_values.cross_attention_cache for each in (found, expected)]
    for own, other in zip(*layers, strict=True):
        torch.testing.assert_close(own, other)


def test_a_predict_stream_that_differs_from_row_to_row_stays_so(model):
    def changed(module, args, output):
        return output * torch.tensor([1.0, 2.0, 3.0])[:, None, None]

    model.prophetnet.decoder.embeddings_layer_norm.register_forward_hook(changed)
    torch.testing.assert_close(last_logits([model] * 4), last_logits([watched(model)] * 4))


@pytest.mark.parametrize("part", ["layers.1", "layers.0.self_attn", "layers.2.cross_attn.query_proj"])
def test_a_module_that_somebody_watches_is_called_in_every_step(model, part):
    seen = []
    hook = model.prophetnet.decoder.get_submodule(part).register_forward_hook(lambda *_: seen.append(1))
    model.generate(IDS, attention_mask=MASK, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert len(seen) == 4
    hook.remove()
    model.generate(IDS, attention_mask=MASK, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert len(seen) == 4


def test_a_weight_that_changes_within_a_text_counts_from_then_on(model):
    lay_out_for_decoding(model, packed=True)
    logits = []
    for changes_at in (0, 2):
        with torch.no_grad():
            changed = copy.deepcopy(model)
            cache = None
            for column in range(4):
                if column == changes_at:
                    changed.prophetnet.decoder.layers[2].feed_forward.output.weight.mul_(2.0)
                output = changed(
                    IDS, decoder_input_ids=TARGET[:, column : column + 1], past_key_values=cache, num_streams=1
                )
                cache = output.past_key_values
            logits.append(output.logits)
    # The last layer's feed-forward changes no key.
    torch.testing.assert_close(*logits)


def last_logits(models, mask=MASK, change=lambda mask: mask):
    """Return the logits of the last of as many steps as there are models, which share a cache."""
    cache = None
    with torch.no_grad():
        states = models[0].prophetnet.encoder(IDS, attention_mask=MASK)
        for column, model in enumerate(models):
            if column == 2:
                mask = change(mask)
            output = model(
                encoder_outputs=states, attention_mask=mask, decoder_input_ids=TARGET[:, column : column + 1],
                past_key_values=cache, num_streams=1,
            )  # fmt: skip
            cache = output.past_key_values
    return output.logits


def watched(model):
    """Return the same model, whose modules are called."""
    model = copy.deepcopy(model)
    model.prophetnet.decoder.layers[0].register_forward_hook(lambda *_: None)
    return model


def test_another_model_may_go_on_from_a_cache(model):
    other = make(ngram=2)
    torch.testing.assert_close(
        last_logits([model, model, other, other]), last_logits([watched(each) for each in (model, model, other, other)])
    )


@pytest.mark.parametrize("heads", [{5: [1]}, {5: [0], 6: [0], 7: [0]}, {6: [0, 2], 3: [3]}])
def test_heads_of_attention_to_the_source_may_be_gone(model, heads):
    # Of the encoder 0 and 1, of the decoder 2 to 4, and 5 to 7 its attention to the source.
    model.prune_heads(heads)
    torch.testing.assert_close(last_logits([model] * 4), last_logits([watched(model)] * 4))


def test_layers_in_another_order_find_their_keys(model):
    layers = model.prophetnet.decoder.layers
    model.prophetnet.decoder.layers = torch.nn.ModuleList([layers[2], layers[0], layers[1]]).eval()
    torch.testing.assert_close(last_logits([model] * 4), last_logits([watched(model)] * 4))


def changed_where_torch_does_not_look(mask):
    mask.data[:, :2] = 0
    return mask


@pytest.mark.parametrize("change", [changed_where_torch_does_not_look, lambda _: None, lambda mask: mask.flip(0)])
def test_a_mask_of_the_source_that_changes_within_a_text_counts_from_then_on(model, change):
    found, expected = (
        last_logits([each] * 4, mask=torch.ones_like(MASK), change=change) for each in (model, watched(model))
    )
    torch.testing.assert_close(found, expected)


def test_a_mask_of_one_row_is_for_all(model):
    mask = (MASK[:1] != 0)[:, None, None]
    torch.testing.assert_close(last_logits([model] * 4, mask=mask), last_logits([watched(model)] * 4, mask=mask))


def test_states_shorter_than_the_kept_keys_cut_these(model):
    found = []
    for each in (model, watched(model)):
        cache = None
        with torch.no_grad():
            states = each.prophetnet.encoder(IDS)
            for column in range(4):
                states.last_hidden_state = states.last_hidden_state[:, : 8 - column]
                output = each(
                    encoder_outputs=states, decoder_input_ids=TARGET[:, column : column + 1], past_key_values=cache,
                    num_streams=1,
                )  # fmt: skip
                cache = output.past_key_values
        found.append(output.logits)
    torch.testing.assert_close(*found)
