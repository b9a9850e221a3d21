"""ProphetNet against itself: caches, padding, kernels, pruning, positions, refusals, and the document's example."""

import pytest
import torch
from small_prophetnet import IDS, MASK, RANDOM, SMALL, TARGET, both, make
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from modelwright import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from modelwright.attention.caches import EncoderDecoderCache, StaticCache
from modelwright.core import logging
from modelwright.core.errors import ConfigError, InputError
from modelwright.models.prophetnet import decoder, ngram_attention, ngram_kernel, relative_buckets
from modelwright.models.prophetnet import modeling_prophetnet as prophetnet
from modelwright.models.prophetnet.configuration_prophetnet import ProphetNetConfig
from modelwright.models.prophetnet.ngram_kernel import attend_one


@pytest.fixture
def model():
    return make()


@pytest.mark.parametrize("steps", [(1, 1, 1, 1, 1, 1), (4, 2), (1, 3, 2)])
def test_cached_equals_teacher_forced_in_every_stream(model, steps):
    whole = both(model(IDS, MASK, decoder_input_ids=TARGET, use_cache=False))
    encoded, cache, start = model.get_encoder()(IDS, attention_mask=MASK), None, 0
    for step in steps:
        output = model(
            attention_mask=MASK,
            encoder_outputs=encoded,
            decoder_input_ids=TARGET[:, start : start + step],
            past_key_values=cache,
        )
        cache = output.past_key_values
        torch.testing.assert_close(both(output), whole[:, :, start : start + step], rtol=0, atol=1e-5)
        start += step


@pytest.mark.parametrize(("layout", "num_streams"), [("paper", 1), ("transformers", 3)])
def test_a_token_that_sees_all_attends_the_same_in_fewer_operations(layout, num_streams, monkeypatch):
    model = make(relative_bias_layout=layout)
    called = []
    monkeypatch.setattr(ngram_attention, "attend_one", lambda *args: called.append(1) or attend_one(*args))
    monkeypatch.setattr(decoder, "plain_step", lambda *_: None)

    def run():
        encoded, cache, logits = model.get_encoder()(IDS), None, []
        for step in range(6):
            inputs = {"encoder_outputs": encoded, "decoder_input_ids": TARGET[:, step : step + 1]}
            output = model(past_key_values=cache, num_streams=num_streams, **inputs)
            cache = output.past_key_values
            logits += [output.logits] if num_streams == 1 else [both(output)]
        return torch.stack(logits)

    wanted = run()
    assert not called
    with torch.no_grad():
        torch.testing.assert_close(run(), wanted, rtol=0, atol=1e-5)
    # The last layer's main stream does not ask, the others' do; the first token of three streams does not see all.
    assert len(called) == 3 * (6 if num_streams == 1 else 5)


def test_batches_and_padding_change_nothing(model):
    whole = both(model(IDS, MASK, decoder_input_ids=TARGET))
    order = torch.tensor([2, 0, 1])
    moved = both(model(IDS[order], MASK[order], decoder_input_ids=TARGET[order]))
    torch.testing.assert_close(moved, whole[order])
    for row, length in enumerate(MASK.sum(1).tolist()):
        alone = model(IDS[row : row + 1, :length], decoder_input_ids=TARGET[row : row + 1])
        torch.testing.assert_close(both(alone)[0], whole[row], rtol=1e-4, atol=3e-5)
    padded = torch.cat([TARGET, torch.zeros(3, 4, dtype=torch.long)], dim=1)
    mask = torch.tensor([[1] * 6 + [0] * 4] * 3)
    found = both(model(IDS, MASK, decoder_input_ids=padded, decoder_attention_mask=mask))
    torch.testing.assert_close(found[:, :, :6], whole)


def test_padding_on_the_left_with_positions_that_count_tokens():
    model = make("ProphetNetForCausalLM", padding_aware_positions=True)
    whole = both(model(TARGET))
    ids = torch.cat([torch.zeros(3, 3, dtype=torch.long), TARGET], dim=1)
    mask = torch.tensor([[0] * 3 + [1] * 6] * 3)
    torch.testing.assert_close(both(model(ids, attention_mask=mask))[:, :, 3:], whole)
    blind = make("ProphetNetForCausalLM")
    assert not torch.allclose(both(blind(ids, attention_mask=mask))[:, :, 3:], both(blind(TARGET)), atol=1e-2)
    expected = model.generate(TARGET[:1], max_new_tokens=5, do_sample=False)
    found = model.generate(ids[:1], attention_mask=mask[:1], max_new_tokens=5, do_sample=False)
    assert found[0, 3:].tolist() == expected[0].tolist()


@pytest.mark.parametrize("queries", [64, 2])
@pytest.mark.parametrize("layout", ["paper", "transformers"])
def test_both_kernels_have_the_same_gradients(layout, queries, monkeypatch):
    monkeypatch.setattr(ngram_kernel, "_QUERIES", queries)
    gradients = []
    for kernel in ("sdpa", "eager"):
        model = make(relative_bias_layout=layout)
        model.set_attn_implementation(kernel)
        output = model(IDS, MASK, labels=TARGET, decoder_attention_mask=torch.tensor([[1] * 4 + [0] * 2] * 3))
        output.loss.backward()
        gradients.append({name: each.grad for name, each in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-5)


def test_layouts_differ_where_several_tokens_are_read():
    paper, scrambled = (
        both(make(relative_bias_layout=each)(IDS, decoder_input_ids=TARGET)) for each in ("paper", "transformers")
    )
    assert float((paper - scrambled).detach().abs().max()) > 0.1


@pytest.mark.parametrize("queries", [64, 4])
def test_dropout_is_that_of_the_users_seed(queries, monkeypatch):
    monkeypatch.setattr(ngram_kernel, "_QUERIES", queries)
    model = make(attention_dropout=0.5).train()
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(float(model(IDS, MASK, labels=TARGET).loss.detach()))
    assert losses[0] == losses[1] != losses[2]
    # The backward drops the same probabilities as the forward: a step down the gradient lowers this very loss.
    torch.manual_seed(0)
    model(IDS, MASK, labels=TARGET).loss.backward()
    squares = 0.0
    with torch.no_grad():
        for parameter in model.parameters():
            squares += float((parameter.grad**2).sum())
            parameter -= 1e-5 * parameter.grad
    torch.manual_seed(0)
    fallen = losses[0] - float(model(IDS, MASK, labels=TARGET).loss.detach())
    assert fallen == pytest.approx(1e-5 * squares, rel=0.1)


def test_training_needs_no_logits_and_gives_them_if_asked(model):
    expected = model(IDS, MASK, labels=TARGET)
    assert expected.logits.shape == (3, 6, 40)
    assert expected.logits_ngram.shape == (3, 2, 6, 40)
    model.train()
    assert model(IDS, MASK, labels=TARGET).logits is None
    torch.testing.assert_close(model(IDS, MASK, labels=TARGET, output_logits=True).logits, expected.logits)
    torch.testing.assert_close(model(IDS, MASK, labels=TARGET, return_dict=False)[1], expected.logits)
    model.config.training_logits = True
    torch.testing.assert_close(model(IDS, MASK, labels=TARGET).logits, expected.logits)
    assert model(IDS, MASK, labels=TARGET, output_logits=False).logits is None


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_drop_the_same_again(reentrant):
    def gradients(model):
        torch.manual_seed(0)
        model(IDS, MASK, labels=TARGET).loss.backward()
        return [parameter.grad for parameter in model.parameters()]

    of_dropout = {"dropout": 0.2, "attention_dropout": 0.2, "activation_dropout": 0.2}
    plain, recomputed = make(**of_dropout).train(), make(**of_dropout).train()
    recomputed.gradient_checkpointing_enable({"use_reentrant": reentrant})
    torch.testing.assert_close(gradients(recomputed), gradients(plain))


@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}, {"use_reentrant": True}])
def test_training_leaves_the_sources_padding_out_where_nobody_looks(checkpointing):
    model = make(max_position_embeddings=64).train()
    if checkpointing:
        model.gradient_checkpointing_enable(checkpointing)
    random = torch.Generator().manual_seed(0)
    ids, mask = torch.randint(3, 40, (4, 40), generator=random), torch.ones(4, 40, dtype=torch.long)
    mask[0, 9:], mask[1, :30], mask[2] = 0, 0, 0
    call = {"input_ids": ids, "attention_mask": mask, "labels": torch.randint(3, 40, (4, 6), generator=random)}

    def learned(**more):
        model.zero_grad()
        output = model(**call, **more)
        output.loss.backward()
        return output, {name: parameter.grad for name, parameter in model.named_parameters()}

    lean, found = learned()
    assert (lean.encoder_last_hidden_state[mask == 0] == 0).all()
    for more in ({"output_logits": True}, {"output_hidden_states": True}):
        whole, wanted = learned(**more)
        assert (whole.encoder_last_hidden_state[mask == 0] != 0).all()
        torch.testing.assert_close(lean.loss, whole.loss)
        assert found.keys() == wanted.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, wanted[name], msg=name)
    with model.prophetnet.encoder.layers[0].register_forward_hook(lambda *_: None):
        assert (learned()[0].encoder_last_hidden_state[mask == 0] != 0).all()
    model.config.output_hidden_states = True
    assert (learned()[0].encoder_last_hidden_state[mask == 0] != 0).all()


def test_decoding_computes_one_stream_and_the_encoders_keys_once(model):
    shapes, keys = [], []
    layer = model.get_decoder().layers[0]
    handles = [
        layer.register_forward_hook(lambda _module, inputs, _output: shapes.append(inputs[0].shape[1])),
        layer.cross_attn.key_proj.register_forward_hook(lambda _module, _inputs, output: keys.append(output.shape[0])),
    ]
    model.generate(IDS, attention_mask=MASK, max_new_tokens=4, min_new_tokens=4, num_beams=4)
    for handle in handles:
        handle.remove()
    assert shapes == [2] * 4
    assert keys == [3]


def test_beams_equal_those_of_single_rows(model):
    together = model.generate(IDS, attention_mask=MASK, num_beams=4, max_new_tokens=6)
    for row, length in enumerate(MASK.sum(1).tolist()):
        alone = model.generate(IDS[row : row + 1, :length], num_beams=4, max_new_tokens=6)
        assert together[row, : alone.shape[1]].tolist() == alone[0].tolist()
    groups = {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "num_return_sequences": 4}
    assert model.generate(IDS, attention_mask=MASK, max_new_tokens=6, **groups).shape[0] == 12


def test_static_caches_generate_the_same(model):
    expected = model.generate(IDS, attention_mask=MASK, max_new_tokens=6)
    cache = EncoderDecoderCache(StaticCache(model.config, max_cache_len=8), StaticCache(model.config, max_cache_len=9))
    assert torch.equal(model.generate(IDS, attention_mask=MASK, max_new_tokens=6, past_key_values=cache), expected)


def test_texts_as_long_as_the_table_and_longer(model):
    ids = torch.randint(3, 40, (1, 24), generator=RANDOM)
    assert model(IDS[:1], decoder_input_ids=ids).logits.isfinite().all()
    longer = torch.cat([ids, ids], dim=1)
    with pytest.raises(InputError, match=r"at most 24 tokens.*got 48; cut the text, or call model.resize_position_emb"):
        model(IDS[:1], decoder_input_ids=longer)
    tables = model.get_position_embeddings()
    before = [table.weight.clone() for table in tables]
    model.resize_position_embeddings(48)
    for table, old in zip(tables, before, strict=True):
        assert table.weight.shape == (48, 16)
        for row in (0, 1, -1):
            torch.testing.assert_close(table.weight[row], old[row])
    assert model.config.max_position_embeddings == model.get_decoder().config.max_position_embeddings == 48
    assert model(IDS[:1], decoder_input_ids=longer).logits.isfinite().all()
    with pytest.raises(InputError, match="expected a whole number above 1"):
        model.resize_position_embeddings(1)


def test_bf16_autocast_follows_fp32(model):
    expected = model(IDS, MASK, labels=TARGET)
    expected.loss.backward()
    exact = {name: each.grad.clone() for name, each in model.named_parameters()}
    errors = {}
    for kernel in ("sdpa", "eager"):
        model.set_attn_implementation(kernel)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(IDS, MASK, labels=TARGET).loss
        loss.backward()
        torch.testing.assert_close(loss, expected.loss, rtol=0.02, atol=0.02)
        gaps = [(each.grad - exact[name]).norm() ** 2 for name, each in model.named_parameters()]
        errors[kernel] = float(sum(gaps) / sum(each.norm() ** 2 for each in exact.values())) ** 0.5
    # The fused kernel keeps its scores in fp32.
    assert errors["sdpa"] < min(0.15, 1.1 * errors["eager"])


def test_refusals_say_what_to_do(model):
    with pytest.raises(InputError, match=r"expected labels of the same shape as the decoder's inputs, \(3, 6\), got"):
        model(IDS, decoder_input_ids=TARGET, labels=TARGET[:, :4])
    with pytest.raises(InputError, match="the decoder has no inputs: pass decoder_input_ids"):
        model(IDS)
    with pytest.raises(InputError, match="set config.add_cross_attention=True"):
        make("ProphetNetForCausalLM", add_cross_attention=False)(TARGET, encoder_hidden_states=torch.zeros(3, 2, 16))
    with pytest.raises(InputError, match="expected num_streams from 1 to 3, got 4"):
        model(IDS, decoder_input_ids=TARGET, num_streams=4)
    with pytest.raises(InputError, match=r"expected an attention mask of shape \(3, 6\).*got \(3, 5\)"):
        model(IDS, decoder_input_ids=TARGET, decoder_attention_mask=torch.ones(3, 5))
    with pytest.raises(InputError, match=r"ProphetNetEncoder: expected an attention mask of shape \(3, "):
        make("ProphetNetEncoder", padding_aware_positions=True)(IDS, attention_mask=torch.ones(3, 1, 5, 5))
    model.config.decoder_start_token_id = None
    with pytest.raises(InputError, match=r"config\.decoder_start_token_id, which is None; set it"):
        model(IDS, labels=TARGET)
    with pytest.raises(InputError, match=r"encoder_outputs to have the shape \(rows, tokens, .* got \(2, 5, 7\)"):
        model(encoder_outputs=(torch.ones(2, 5, 7),), decoder_input_ids=TARGET[:2])
    with pytest.raises(ConfigError, match="relative_bias_layout: expected 'paper' or 'transformers', got 'hf'"):
        ProphetNetConfig(relative_bias_layout="hf")
    with pytest.raises(NotImplementedError, match="set num_encoder_layers or num_decoder_layers"):
        model.config.num_hidden_layers = 3


@pytest.mark.parametrize(("version", "said"), [("4.26.1", False), ("4.27.0", True), ("5.0.0", True), (None, False)])
def test_a_checkpoint_of_later_versions_gets_a_note(version, said, monkeypatch):
    notes = []
    logger = "modelwright.models.prophetnet.configuration_prophetnet.logger.warning_once"
    monkeypatch.setattr(logger, notes.append)
    config = ProphetNetConfig.from_dict({**SMALL, "transformers_version": version})
    assert config.relative_bias_layout == "paper"
    assert [('relative_bias_layout="transformers"' in note) for note in notes] == [True] * said
    again = ProphetNetConfig.from_dict(config.to_diff_dict())
    assert (again.relative_bias_layout, len(notes)) == ("paper", int(said))


def test_the_examples_of_the_document(tmp_path):
    """ProphetNetForCausalLM's and the generation models' examples, on a checkpoint and a vocabulary made here."""
    words = [
        "[PAD]",
        "[UNK]",
        "[SEP]",
        "[CLS]",
        "[MASK]",
        "[X_SEP]",
        "hello",
        ",",
        "my",
        "dog",
        "is",
        "cute",
        "studies",
    ]
    (tmp_path / "prophetnet.tokenizer").write_text("\n".join(words))
    make(vocab_size=len(words)).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    logging.set_verbosity_error()
    try:
        model = AutoModelForCausalLM.from_pretrained(tmp_path)
    finally:
        logging.set_verbosity_warning()
    assert type(model) is prophetnet.ProphetNetForCausalLM
    assert model.config.is_decoder, f"{model.__class__} has to be configured as a decoder."
    inputs = tokenizer("Hello, my dog is cute", return_tensors="pt")
    assert model(**inputs).logits.shape == (1, inputs.input_ids.shape[1], len(words))
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    decoder_input_ids = tokenizer("studies is", return_tensors="pt").input_ids
    outputs = model(input_ids=inputs.input_ids, decoder_input_ids=decoder_input_ids)
    assert outputs.logits.shape == (1, decoder_input_ids.shape[1], len(words))
    assert outputs.logits_ngram.shape == (1, 2, decoder_input_ids.shape[1], len(words))


@pytest.mark.parametrize("kind", ["bias", "pruned", "adapter"])
def test_the_loss_is_that_of_a_head_which_is_more_than_its_weight(model, kind):
    head = model.lm_head
    if kind == "bias":
        model.set_output_embeddings(nn.Linear(head.in_features, head.out_features))
    elif kind == "pruned":
        prune.random_unstructured(head, "weight", 0.5)
    else:
        model.set_output_embeddings(nn.Sequential(head, nn.Linear(head.out_features, head.out_features)))
    for _ in range(2):
        output = model(IDS, MASK, decoder_input_ids=TARGET, labels=TARGET)
        scores = both(output).flatten(0, 2)
        labels = TARGET[:, None].expand(both(output).shape[:3]).reshape(-1)
        expected = F.cross_entropy(scores, labels, label_smoothing=model.config.eps)
        torch.testing.assert_close(output.loss, expected)
        output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.get_output_embeddings().parameters())


def test_training_after_inference_mode(model):
    relative_buckets._kept_table.cache_clear()
    with torch.inference_mode():
        model.generate(IDS, attention_mask=MASK, max_new_tokens=2)
        model(IDS, MASK, decoder_input_ids=TARGET)
    model(IDS, MASK, decoder_input_ids=TARGET, labels=TARGET).loss.backward()


@pytest.mark.parametrize("name", ["ProphetNetForConditionalGeneration", "ProphetNetForCausalLM"])
@pytest.mark.parametrize("of_the_loss", [True, False])
def test_the_tied_table_gets_the_gradient_of_its_modules(name, of_the_loss, monkeypatch):
    model, ids, labels = make(name).train(), IDS.clone(), TARGET.clone()
    ids[0, 5:] = model.config.pad_token_id
    labels[1, 4:] = -100
    causal = name == "ProphetNetForCausalLM"
    inputs = {"input_ids": TARGET, "labels": labels} if causal else {"input_ids": ids, "labels": labels}
    made, real = [], prophetnet.tied_table
    monkeypatch.setattr(prophetnet, "tied_table", lambda *args: (made.append(real(*args)), made[-1])[1])

    def gradients():
        output = model(**inputs, output_hidden_states=True)
        states = output.hidden_states if causal else output.encoder_hidden_states
        loss = output.loss if of_the_loss else states[-1].square().sum()
        model.zero_grad()
        loss.backward()
        weight = model.lm_head.weight.grad
        assert weight.layout is torch.strided
        return weight

    found = gradients()
    # Who looks at a lookup has it made by the module.
    lookup = model.get_input_embeddings().register_forward_hook(lambda *_: None)
    expected = gradients()
    assert made[0] is not None and made[1] is None
    lookup.remove()
    torch.testing.assert_close(found, expected)
    both_kinds = {**inputs, "inputs_embeds": model.get_input_embeddings()(inputs["input_ids"])}
    with pytest.raises(InputError, match="both"):
        model(**both_kinds)


def test_the_tied_table_leaves_out_the_padding_of_its_modules():
    model = make().train()
    table = nn.Embedding(40, 16)
    table.weight = model.lm_head.weight
    for part in (model.prophetnet, model.prophetnet.encoder, model.prophetnet.decoder):
        part.word_embeddings = table
    ids = IDS.masked_fill(IDS < 12, model.config.pad_token_id)

    def gradient():
        model.zero_grad()
        model(ids, MASK, labels=TARGET).loss.backward()
        return table.weight.grad

    found = gradient()
    table.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(found, gradient())


@pytest.mark.parametrize("name", ["ProphetNetForConditionalGeneration", "ProphetNetForCausalLM"])
def test_hooks_of_the_parts_see_ids_in_training(name):
    model, seen = make(name).train(), []
    parts = [part for part in model.prophetnet.modules() if type(part).__name__.endswith(("Encoder", "Decoder"))]
    for part in parts:
        part.register_forward_pre_hook(lambda _part, _args, given: seen.append(given["input_ids"]), with_kwargs=True)
    model(TARGET, labels=TARGET).loss.backward()
    assert len(seen) == len(parts) > 0
    assert all(ids.shape == TARGET.shape for ids in seen)


@pytest.mark.parametrize("labels", [None, TARGET])
def test_refusals_are_the_same_with_labels(labels):
    model = make()
    with pytest.raises(InputError, match=r"expected input_ids of shape \(rows, tokens\), got \(8,\)"):
        model(IDS[0], decoder_input_ids=TARGET, labels=labels)
    with pytest.raises(InputError, match="ProphetNetEncoder: expected ids from 0 to 39 in input_ids"):
        model(IDS + 40, decoder_input_ids=TARGET, labels=labels)
    with pytest.raises(InputError, match="ProphetNetDecoder: expected ids from 0 to 39 in input_ids"):
        model(IDS, decoder_input_ids=TARGET + 40, labels=labels)
    with pytest.raises(InputError, match="expected labels from 0 to 39, the tokens of the vocabulary"):
        # The inputs of the decoder are made of them.
        model(IDS, labels=TARGET + 40)


@torch.no_grad()
def test_one_graph_for_compilers_and_exports(model):
    call = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": TARGET, "use_cache": False}
    expected = both(model(**call))
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(both(compiled(**call)), expected, rtol=1e-4, atol=1e-5)
    found = compiled(**{**call, "use_cache": True})
    torch.testing.assert_close(both(found), expected, rtol=1e-4, atol=1e-5)
    assert found.past_key_values.get_seq_length() == 6
    exported = torch.export.export(model, (), call).module()
    torch.testing.assert_close(both(exported(**call)), expected, rtol=1e-4, atol=1e-5)
