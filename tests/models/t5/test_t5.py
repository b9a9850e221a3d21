"""T5 against itself: caches, padding, beams that share keys, pruning, precision, embeddings and what is refused."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelwright import AutoModel, AutoModelForSeq2SeqLM
from modelwright.attention.caches import EncoderDecoderCache, StaticCache
from modelwright.core import logging
from modelwright.core.errors import CheckpointMismatchError, ConfigError, InputError
from modelwright.models.t5 import modeling_t5 as t5
from modelwright.models.t5.attention import T5Attention
from modelwright.models.t5.configuration_t5 import T5Config
from modelwright.models.t5.feed_forward import T5LayerNorm, finite_in_half

SMALL = {
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 7,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
UNTIED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
RANDOM = torch.Generator().manual_seed(0)
IDS = torch.randint(3, 40, (3, 8), generator=RANDOM)
TARGET = torch.randint(3, 40, (3, 6), generator=RANDOM)
MASK = torch.tensor([[1] * 5 + [0] * 3, [1] * 8, [1] * 2 + [0] * 6])


def make(name="T5ForConditionalGeneration", **config):
    torch.manual_seed(1)
    model = getattr(t5, name)(T5Config(**{**SMALL, **config})).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, T5Attention):
                # Far from uniform attention.
                module.q.weight.normal_(std=0.5)
                if module.has_relative_attention_bias:
                    module.relative_attention_bias.weight.normal_()
    return model


@pytest.fixture
def model():
    return make()


def test_cached_equals_uncached_and_batch_equals_single(model):
    whole = model(IDS, MASK, decoder_input_ids=TARGET, use_cache=False)
    assert whole.past_key_values is None
    for row, length in enumerate(MASK.sum(1).tolist()):
        alone = model(IDS[row : row + 1, :length], decoder_input_ids=TARGET[row : row + 1]).logits
        torch.testing.assert_close(alone[0], whole.logits[row])
    encoded, cache = model.get_encoder()(IDS, attention_mask=MASK), None
    for step in range(TARGET.shape[1]):
        output = model(
            decoder_input_ids=TARGET[:, step : step + 1],
            attention_mask=MASK,
            encoder_outputs=encoded,
            past_key_values=cache,
        )
        cache = output.past_key_values
        torch.testing.assert_close(output.logits[:, 0], whole.logits[:, step])


def test_left_padding_of_the_decoder_changes_nothing(model):
    padded = torch.nn.functional.pad(TARGET, (2, 0))
    mask = torch.nn.functional.pad(torch.ones_like(TARGET), (2, 0))
    expected = model(IDS, decoder_input_ids=TARGET).logits
    found = model(IDS, decoder_input_ids=padded, decoder_attention_mask=mask).logits
    torch.testing.assert_close(found[:, 2:], expected)


def test_a_mask_per_query_and_a_ready_mask_say_the_same():
    encoder = make("T5EncoderModel")
    plain = encoder(IDS, MASK).last_hidden_state
    for ready in (MASK[:, None].expand(3, 8, 8), MASK[:, None, None].bool()):
        torch.testing.assert_close(encoder(IDS, ready).last_hidden_state, plain)
    causal = MASK[:, None].expand(3, 8, 8).tril()
    changed = IDS.clone()
    changed[:, 4:] = 5
    first, second = (encoder(ids, causal).last_hidden_state for ids in (IDS, changed))
    torch.testing.assert_close(first[1, :4], second[1, :4])
    assert not torch.allclose(first[1, 4:], second[1, 4:])
    with pytest.raises(InputError, match=r"attention_mask: expected the shape \(batch, keys\).*got \(3,\)"):
        encoder(IDS, MASK[:, 0])


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_rows_may_share_the_encoders_states(model, kernel):
    """Beams: each row of the encoder serves as many rows of the decoder that follow one another; nothing is copied."""
    model.set_attn_implementation(kernel)
    beams = TARGET.repeat_interleave(2, 0)
    beams[1::2] = beams[1::2].flip(1)
    expected = model(IDS.repeat_interleave(2, 0), MASK.repeat_interleave(2, 0), decoder_input_ids=beams)
    encoded = model.get_encoder()(IDS, attention_mask=MASK)
    for mask in (MASK, MASK.repeat_interleave(2, 0)):
        shared = model(attention_mask=mask, encoder_outputs=encoded, decoder_input_ids=beams[:, :4])
        torch.testing.assert_close(shared.logits, expected.logits[:, :4])
        assert shared.past_key_values.cross_attention_cache[0][0].shape[0] == 3
        last = model(
            attention_mask=mask,
            encoder_outputs=encoded,
            decoder_input_ids=beams[:, 4:],
            past_key_values=shared.past_key_values,
        )
        torch.testing.assert_close(last.logits, expected.logits[:, 4:])
    if kernel == "eager":
        options = {"decoder_input_ids": beams, "output_attentions": True}
        a = model(IDS.repeat_interleave(2, 0), MASK.repeat_interleave(2, 0), **options)
        b = model(attention_mask=MASK, encoder_outputs=encoded, **options)
        for left, right in zip(b.cross_attentions, a.cross_attentions, strict=True):
            torch.testing.assert_close(left, right)
    with pytest.raises(InputError, match="encoder_hidden_states with 5 rows, as the decoder's inputs have, or a divis"):
        model(encoder_outputs=encoded, decoder_input_ids=beams[:5])


def test_beams_and_sampled_answers_compute_the_encoders_keys_once_per_text(model):
    rows = []
    key = model.decoder.block[0].layer[1].EncDecAttention.k
    handle = key.register_forward_hook(lambda _module, _inputs, output: rows.append(output.shape[0]))
    options = {"attention_mask": MASK, "max_new_tokens": 6, "return_dict_in_generate": True}
    for ways in ({"num_beams": 4}, {"do_sample": True, "num_return_sequences": 4}):
        output = model.generate(IDS, **options, **ways)
        assert rows == [3]
        assert output.past_key_values.self_attention_cache[0][0].shape[0] == 12
        assert output.past_key_values.cross_attention_cache[0][0].shape[0] == 3
        rows.clear()
    handle.remove()
    alone = [model.generate(IDS[i : i + 1, :n], num_beams=4, max_new_tokens=6) for i, n in enumerate(MASK.sum(1))]
    together = model.generate(IDS, attention_mask=MASK, num_beams=4, max_new_tokens=6)
    for row, single in zip(together, alone, strict=True):
        assert row[: single.shape[1]].tolist() == single[0].tolist()


def test_static_caches_generate_the_same(model):
    expected = model.generate(IDS, attention_mask=MASK, max_new_tokens=6)
    cache = EncoderDecoderCache(StaticCache(model.config, max_cache_len=8), StaticCache(model.config, max_cache_len=9))
    assert torch.equal(model.generate(IDS, attention_mask=MASK, max_new_tokens=6, past_key_values=cache), expected)


# --- pruning --------------------------------------------------------------------------------------------------------

# By number: two layers of the encoder, three of the decoder, three attentions to the encoder.
GONE = {0: [1, 3], 1: [0], 2: [2], 4: [0, 1], 5: [3], 7: [0]}


def head_masks(pruned):
    def mask(first, layers):
        rows = torch.ones(layers, SMALL["num_heads"])
        for layer in range(layers):
            rows[layer, pruned.get(first + layer, [])] = 0
        return rows

    return {"head_mask": mask(0, 2), "decoder_head_mask": mask(2, 3), "cross_attn_head_mask": mask(5, 3)}


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_pruned_heads_are_heads_masked_with_zeros(model, kernel, tmp_path):
    model.set_attn_implementation(kernel)
    expected = model(IDS, MASK, decoder_input_ids=TARGET, **head_masks(GONE)).logits
    assert not torch.allclose(expected, model(IDS, MASK, decoder_input_ids=TARGET).logits, atol=1e-2)
    # In two steps, the second of which names a head that is gone already.
    model.prune_heads({0: [1], 2: [2], 5: [3]})
    model.prune_heads({**GONE, 0: [1, 3]})
    assert model.config.pruned_heads == GONE
    torch.testing.assert_close(model(IDS, MASK, decoder_input_ids=TARGET).logits, expected)
    own = model.encoder.block[0].layer[0].SelfAttention
    assert (own.n_heads, own.q.weight.shape, own.o.weight.shape) == (2, (12, 16), (16, 12))
    # Layer 1 still has the head whose column layer 0 no longer needs.
    assert own.relative_attention_bias.weight.shape == (8, 4)
    # A head mask may go on naming all heads.
    torch.testing.assert_close(model(IDS, MASK, decoder_input_ids=TARGET, **head_masks({})).logits, expected)
    model.save_pretrained(tmp_path)
    loaded = t5.T5ForConditionalGeneration.from_pretrained(tmp_path, strict=True)
    torch.testing.assert_close(loaded(IDS, MASK, decoder_input_ids=TARGET).logits, expected)
    # The encoder of the pruned checkpoint: what the config says of the decoder does not concern it.
    encoder = t5.T5EncoderModel.from_pretrained(tmp_path)
    torch.testing.assert_close(encoder(IDS, MASK)[0], model.encoder(IDS, attention_mask=MASK)[0])
    cached = loaded.generate(IDS, attention_mask=MASK, max_new_tokens=6)
    assert torch.equal(cached, model.generate(IDS, attention_mask=MASK, max_new_tokens=6, use_cache=False))


def test_pruning_refuses_what_is_not_there(model):
    with pytest.raises(InputError, match="expected layers from 0 to 7, got 8"):
        model.prune_heads({8: [0]})
    with pytest.raises(InputError, match="expected heads from 0 to 3"):
        model.prune_heads({7: [4]})
    stack = model.encoder
    with pytest.raises(InputError, match="expected layers from 0 to 1, got 2"):
        stack.prune_heads({2: [0]})


# --- unpadded -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_unpadded_encoder_equals_padded(kernel, tmp_path):
    model = make()
    model.set_attn_implementation(kernel)
    apart = MASK.clone()
    apart[1, 3] = 0
    for mask in (MASK, apart, torch.ones_like(MASK)):
        before = model(IDS, mask, decoder_input_ids=TARGET, output_hidden_states=True)
        model.to_bettertransformer()
        rows = []
        handle = model.encoder.block[0].layer[-1].register_forward_hook(lambda m, i, o: rows.append(o.shape))  # noqa: B023
        after = model(IDS, mask, decoder_input_ids=TARGET, output_hidden_states=True)
        handle.remove()
        assert rows == [(1, int(mask.sum()), 16) if mask.sum() < mask.numel() else (3, 8, 16)]
        torch.testing.assert_close(after.logits, before.logits)
        for left, right in zip(after.encoder_hidden_states, before.encoder_hidden_states, strict=True):
            torch.testing.assert_close(left[mask.bool()], right[mask.bool()])
            assert not left[~mask.bool()].any()
        with pytest.raises(ValueError, match="reverse_bettertransformer"):
            model.save_pretrained(tmp_path)
        model.reverse_bettertransformer()
    model.prune_heads({0: [2]})
    before = model(IDS, MASK, decoder_input_ids=TARGET).logits
    torch.testing.assert_close(model.to_bettertransformer()(IDS, MASK, decoder_input_ids=TARGET).logits, before)


def test_unpadded_training_has_the_same_gradients():
    model, gradients = make(), []
    for unpadded in (False, True):
        if unpadded:
            model.to_bettertransformer()
        model.zero_grad()
        model(IDS, MASK, labels=TARGET).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


# --- embeddings on disk ---------------------------------------------------------------------------------------------

EMBEDDINGS = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]


@pytest.mark.parametrize("extra", [{}, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("name", EMBEDDINGS)
def test_one_name_on_disk_and_any_of_three_accepted(extra, name, tmp_path):
    model = make(**extra)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert [each for each in tensors if each in EMBEDDINGS] == ["shared.weight"]
    assert ("lm_head.weight" in tensors) == bool(extra)
    tensors[name] = tensors.pop("shared.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = t5.T5ForConditionalGeneration.from_pretrained(tmp_path, strict=True)
    assert loaded.shared.weight is loaded.encoder.embed_tokens.weight is loaded.decoder.embed_tokens.weight
    assert (loaded.lm_head.weight is loaded.shared.weight) == (not extra)
    assert torch.equal(loaded.shared.weight, model.shared.weight)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize("extra", [{}, UNTIED], ids=["tied", "untied"])
def test_embeddings_are_never_taken_from_the_output_projection(extra, tmp_path):
    """transformers#48154: with the output projection for embeddings a model writes garbage without a word."""
    make(**extra).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("shared.weight").clone()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    logging.set_verbosity_error()
    try:
        loaded = t5.T5ForConditionalGeneration.from_pretrained(tmp_path)
    finally:
        logging.set_verbosity_warning()
    assert loaded.load_report.missing_keys == ["shared.weight"]
    assert not torch.equal(loaded.shared.weight, tensors["lm_head.weight"])
    with pytest.raises(CheckpointMismatchError, match=r"missing: shared\.weight"):
        t5.T5ForConditionalGeneration.from_pretrained(tmp_path, strict=True)


def test_new_embeddings_reach_both_stacks(model):
    words = torch.nn.Embedding(40, 16)
    model.set_input_embeddings(words)
    model.tie_weights()
    assert model.get_input_embeddings() is model.encoder.get_input_embeddings() is model.decoder.get_input_embeddings()
    assert model.get_output_embeddings().weight is words.weight


# --- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [{}, UNTIED], ids=["tied", "untied"])
def test_half_precision_follows_fp32(extra, tmp_path):
    model = make(**extra)
    model.save_pretrained(tmp_path)
    expected = model(IDS, MASK, decoder_input_ids=TARGET).logits.detach()
    for dtype, tolerance in ((torch.float16, 0.02), (torch.bfloat16, 0.15)):
        half = t5.T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype)
        found = half(IDS, MASK, decoder_input_ids=TARGET).logits
        assert found.dtype == dtype
        torch.testing.assert_close(
            found.float(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())
        )


def test_float16_streams_stay_finite():
    large = torch.tensor([65504.0, -65504.0, float("inf"), float("-inf"), 3.0], dtype=torch.float16)
    found = finite_in_half(large)
    assert found.isfinite().all()
    assert found[4] == 3
    assert finite_in_half(large.float()).isinf().any()
    # A model whose feed-forward overflows float16 many times over.
    model = make().half()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".wo." in name or ".wi." in name:
                parameter.fill_(30.0)
    assert model(IDS, MASK, decoder_input_ids=TARGET).logits.isfinite().all()


def test_the_norm_of_an_fp32_stream_has_the_dtype_of_its_weight():
    norm = T5LayerNorm(16, dtype=torch.float16)
    x = torch.randn(3, 16)
    assert norm(x).dtype == torch.float16
    torch.testing.assert_close(norm(x).float(), T5LayerNorm(16)(x), rtol=1e-3, atol=1e-3)


# --- the document's examples ----------------------------------------------------------------------------------------


def test_the_examples_of_the_document(tmp_path):
    """Section "dtype" and "large models" of the document, on a checkpoint made here in place of the hub's name."""
    from modelwright import T5Config, T5ForConditionalGeneration

    make().half().save_pretrained(tmp_path)
    model = T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert model.dtype == torch.float32
    model = T5ForConditionalGeneration.from_pretrained(tmp_path, torch_dtype=torch.float16)
    assert (model.shared.weight.dtype, model.config.torch_dtype) == (torch.float16, "float16")
    model = T5ForConditionalGeneration.from_pretrained(tmp_path, torch_dtype="auto")
    assert model.shared.weight.dtype == torch.float16
    assert model.encoder.block[0].layer[1].DenseReluDense.wo.weight.dtype == torch.float32
    config = T5Config.from_pretrained(tmp_path)
    assert type(AutoModel.from_config(config)) is t5.T5Model
    t0pp = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, low_cpu_mem_usage=True)
    assert type(t0pp) is T5ForConditionalGeneration
    assert not any(parameter.is_meta for parameter in t0pp.parameters())


def test_the_models_config_decides_what_is_returned(model):
    model.config.output_hidden_states = True
    output = model(IDS, decoder_input_ids=TARGET)
    assert (len(output.encoder_hidden_states), len(output.decoder_hidden_states)) == (3, 4)
    model.config.return_dict = False
    assert len(model(IDS, decoder_input_ids=TARGET, use_cache=False)) == 4


# --- what is refused ------------------------------------------------------------------------------------------------


def test_refusals_say_what_to_do(model):
    with pytest.raises(ConfigError, match="expected the name of an activation such as 'relu'.*got 'gated-gelu-new'"):
        T5Config(feed_forward_proj="gated-gelu-new")
    with pytest.raises(ConfigError, match="got 'wide-relu'"):
        T5Config(feed_forward_proj="wide-relu")
    with pytest.raises(InputError, match="the decoder has no inputs: pass decoder_input_ids"):
        model(IDS)
    with pytest.raises(InputError, match="an encoder has no cache"):
        model.encoder(IDS, use_cache=True)
    model.config.decoder_start_token_id = None
    with pytest.raises(InputError, match=r"config\.decoder_start_token_id, which is None; set it"):
        model(IDS, labels=TARGET)
    classifier = make("T5ForSequenceClassification")
    with pytest.raises(InputError, match=r"the same number of end tokens \(config.eos_token_id=1\).*got \[0, 0, 0\]"):
        classifier(IDS)
    with pytest.raises(InputError, match="cannot be seen in inputs_embeds"):
        classifier(inputs_embeds=torch.zeros(1, 3, 16))
    with pytest.warns(FutureWarning, match="head_mask without decoder_head_mask also masks heads of the decoder"):
        make("T5Model", num_decoder_layers=2)(IDS, decoder_input_ids=TARGET, head_mask=torch.ones(2, 4))


def test_labels_are_shifted_and_ignored_ones_read_as_padding(model):
    labels = torch.tensor([[5, 6, -100, -100]])
    shifted = model.prepare_decoder_input_ids_from_labels(labels)
    assert shifted.tolist() == [[0, 5, 6, 0]]
    found = model(IDS[:1], labels=labels)
    logits = model(IDS[:1], decoder_input_ids=shifted).logits
    expected = torch.nn.functional.cross_entropy(logits[0, :2], torch.tensor([5, 6]))
    torch.testing.assert_close(found.loss, expected)
