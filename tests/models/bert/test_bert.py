"""BERT: caches and traced calls against the plain one, old checkpoints, slots for quantizers, wrong input."""

import pytest
import torch
from torch import nn

from modelwright.attention.caches import StaticCache
from modelwright.attention.interface import AttentionInterface
from modelwright.core.errors import ConfigError, InputError, UnknownArgumentError
from modelwright.models.bert import modeling_bert as bert
from modelwright.models.bert.configuration_bert import BertConfig

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}
IDS = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(0))
PADDED = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0, 0], [1] * 9])
RELATIVE = {"position_embedding_type": "relative_key_query"}


def make(name="BertModel", **config):
    torch.manual_seed(0)
    model_class = getattr(bert, name)
    return model_class(BertConfig(**{**SMALL, **config})).eval()


def assert_close(left, right):
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [{}, RELATIVE], ids=["absolute", "relative"])
def test_a_static_cache_equals_no_cache(fields):
    model = make("BertLMHeadModel", is_decoder=True, **fields)
    with torch.no_grad():
        wanted = model(IDS, use_cache=False).logits
        cache = StaticCache(model.config, max_cache_len=12)
        found = [model(IDS[:, :3], past_key_values=cache).logits]
        found += [model(IDS[:, i : i + 1], past_key_values=cache).logits for i in range(3, 9)]
    assert_close(torch.cat(found, dim=1), wanted)


def test_a_decoder_sees_nothing_ahead_and_left_padding_changes_nothing():
    for fields in ({}, RELATIVE):
        model = make("BertLMHeadModel", is_decoder=True, **fields)
        assert_close(model(IDS[:, :4]).logits, model(IDS).logits[:, :4])
        left = torch.cat([torch.zeros(2, 3, dtype=torch.long), IDS], dim=1)
        mask = (torch.arange(12) >= 3).long().expand(2, 12)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        assert_close(model(left, attention_mask=mask, position_ids=positions).logits[:, 3:], model(IDS).logits)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.trace_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["BertModel", "BertForPreTraining", "BertForQuestionAnswering", "BertLMHeadModel"])
def test_a_traced_model_runs_on_other_shapes(name, kernel):
    decoder = {"is_decoder": True, "use_cache": False} if name == "BertLMHeadModel" else {}
    model = make(name, torchscript=True, attn_implementation=kernel, **decoder)
    if name == "BertForPreTraining":
        assert model.cls.predictions.decoder.weight is not model.bert.embeddings.word_embeddings.weight
    traced = torch.jit.trace(model, (IDS, PADDED))
    for ids, mask in ((IDS, PADDED), (IDS[:1, :7], PADDED[:1, :7])):
        wanted, found = model(ids, mask), traced(ids, mask)
        assert isinstance(wanted, tuple) and len(wanted) == len(found)
        assert_close(found[0], wanted[0])


def test_old_names_of_norms_and_either_name_of_the_output_weights(tmp_path):
    model = make("BertForPreTraining")
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    weights = dict(model.state_dict())
    assert weights["cls.predictions.bias"] is not None
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in weights.items()
    }
    everything = set(old)
    for left_out in (
        {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"},
        {"bert.embeddings.word_embeddings.weight", "cls.predictions.bias"},
        set(),
    ):
        kept = {name: old[name] for name in everything - left_out}
        loaded = bert.BertForPreTraining.from_pretrained(None, config=model.config, state_dict=kept, strict=True)
        assert_close(loaded(IDS)[0], model(IDS)[0])
        assert loaded.cls.predictions.decoder.weight is loaded.bert.embeddings.word_embeddings.weight
        assert loaded.cls.predictions.decoder.bias is loaded.cls.predictions.bias
    base = bert.BertModel.from_pretrained(None, config=model.config, state_dict=old)
    assert_close(base(IDS)[1], model.bert(IDS)[1])


def test_positions_are_counted_again_after_loading(tmp_path):
    make().save_pretrained(tmp_path)
    loaded = bert.BertModel.from_pretrained(tmp_path).embeddings
    assert loaded.position_ids.tolist() == [list(range(32))]
    assert not loaded.token_type_ids.any()
    assert not [name for name in loaded.state_dict() if name.endswith("_ids")]


def test_one_row_takes_labels_without_an_axis():
    one = IDS[:1]
    for name, labels in (
        ("BertForSequenceClassification", {"labels": torch.tensor(1)}),
        ("BertForNextSentencePrediction", {"labels": torch.tensor(0)}),
        ("BertForQuestionAnswering", {"start_positions": torch.tensor(1), "end_positions": torch.tensor(4)}),
    ):
        model = make(name, num_labels=3)
        axis = {key: value[None] for key, value in labels.items()}
        assert torch.equal(model(one, **labels).loss, model(one, **axis).loss)
    choice = make("BertForMultipleChoice")
    ids = torch.stack([IDS, IDS.flip(0)], dim=1)[:1]
    assert torch.equal(choice(ids, labels=torch.tensor(1)).loss, choice(ids, labels=torch.tensor([1])).loss)


def test_the_older_name_of_a_label():
    model = make("BertForNextSentencePrediction")
    with pytest.warns(FutureWarning, match="next_sentence_label is the older name of labels"):
        loss = model(IDS, next_sentence_label=torch.tensor([0, 1])).loss
    assert torch.equal(loss, model(IDS, labels=torch.tensor([0, 1])).loss)
    with pytest.raises(UnknownArgumentError, match="unknown keyword 'next_sentence_labels'. Did you mean"):
        model(IDS, next_sentence_labels=torch.tensor([0, 1]))


def test_tuples_have_a_place_for_the_pooled_state():
    model = make()
    states, pooled, *_ = model(IDS, return_dict=False)
    assert pooled.shape == (2, 16)
    without = bert.BertModel(model.config, add_pooling_layer=False)
    assert without(IDS, return_dict=False, output_hidden_states=True)[1] is None
    assert without(IDS).to_tuple()[-1].shape == states.shape


def test_slices_of_the_feed_forward_give_the_same():
    whole, sliced = make(), make(chunk_size_feed_forward=3)
    assert_close(sliced(IDS)[0], whole(IDS)[0])
    with pytest.raises(InputError, match="multiple of the chunk size 3, got 8"):
        sliced(IDS[:, :8])


def test_parts_run_alone_as_model_files_of_4x_use_them():
    model = make()
    layers = nn.ModuleList(bert.BertLayer(model.config) for _ in range(2))
    layers.load_state_dict(model.encoder.layer.state_dict())
    hidden = model.embeddings(IDS)
    additive = model.get_extended_attention_mask(PADDED, IDS.shape)
    for layer in layers.eval():
        hidden = layer(hidden, additive)[0]
    seen = PADDED.bool()
    assert_close(hidden[seen], model(IDS, attention_mask=PADDED)[0][seen])
    output = bert.BertEncoder(model.config).eval()(model.embeddings(IDS), additive, output_hidden_states=True)
    assert len(output.hidden_states) == 3
    attention = bert.BertAttention(model.config)
    assert attention(hidden, output_attentions=True)[1].shape == (2, 4, 9, 9)


@pytest.mark.parametrize("fields", [{}, RELATIVE], ids=["absolute", "relative"])
def test_a_layer_of_a_decoder_is_causal_without_a_mask(fields):
    layer = bert.BertLayer(BertConfig(**SMALL, is_decoder=True, **fields)).eval()
    hidden = torch.randn(1, 6, 16)
    assert_close(layer(hidden)[0][:, :4], layer(hidden[:, :4])[0])


class Note(nn.Module):
    """Keeps what it is given and passes it on, times a factor."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor, self.seen = factor, None

    def forward(self, x):
        self.seen = x
        return x * self.factor


SLOTS = {
    "attention.self": [f"matmul_{operand}_input_quantizer" for operand in "qkva"],
    "attention.output": ["add_local_input_quantizer", "add_residual_input_quantizer"],
    "output": ["add_local_input_quantizer", "add_residual_input_quantizer"],
}


def with_notes(model, factor=1.0):
    for layer in model.encoder.layer:
        for part, slots in SLOTS.items():
            for slot in slots:
                assert getattr(layer.get_submodule(part), slot) is None
                setattr(layer.get_submodule(part), slot, Note(factor))
    return model


@pytest.mark.parametrize("fields", [{}, RELATIVE], ids=["absolute", "relative"])
def test_slots_see_every_operand_and_change_nothing_by_themselves(fields):
    model = make(**fields)
    names = set(model.state_dict())
    head_mask = torch.tensor([1.0, 0.0, 0.5, 1.0])
    wanted = model(IDS, attention_mask=PADDED, head_mask=head_mask)[0]
    with_notes(model)
    assert set(model.state_dict()) == names
    assert_close(model(IDS, attention_mask=PADDED, head_mask=head_mask)[0], wanted)
    own = model.encoder.layer[0].attention.self
    assert own.matmul_q_input_quantizer.seen.shape == own.matmul_v_input_quantizer.seen.shape == (2, 4, 9, 4)
    assert own.matmul_k_input_quantizer.seen.shape == (2, 4, 4, 9)
    probabilities = own.matmul_a_input_quantizer.seen
    assert not probabilities[:, 1].any() and not probabilities[0, :, :, 6:].any()
    assert_close(probabilities[1].sum(-1), head_mask[:, None].expand(4, 9))
    first = model.encoder.layer[0]
    assert torch.equal(first.attention.output.add_residual_input_quantizer.seen, model.embeddings(IDS))
    assert first.output.add_local_input_quantizer.seen.shape == (2, 9, 16)


@pytest.mark.parametrize("part", SLOTS)
def test_each_slot_has_an_effect(part):
    wanted = make()(IDS)[0]
    for slot in SLOTS[part]:
        model = make()
        setattr(model.encoder.layer[0].get_submodule(part), slot, Note(0.5))
        assert (model(IDS)[0] - wanted).abs().max() > 1e-3, slot


def test_without_slots_the_chosen_kernel_runs():
    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        return AttentionInterface()["sdpa"](*args, **kwargs)

    AttentionInterface.register("counted", counted)
    try:
        model = make(attn_implementation="counted")
        model(IDS)
        assert len(calls) == 2
        with_notes(model)(IDS)
        assert len(calls) == 2
    finally:
        AttentionInterface._global_mapping.pop("counted")


def test_bad_configs():
    with pytest.raises(ConfigError, match="multiple of num_attention_heads, got hidden_size=16, num_attention_heads=3"):
        BertConfig(hidden_size=16, num_attention_heads=3)
    with pytest.raises(ConfigError, match="position_embedding_type: expected one of absolute, relative_key, relat"):
        BertConfig(position_embedding_type="rotary")
    with pytest.raises(ConfigError, match="add_cross_attention=True is for decoders; set is_decoder=True"):
        BertConfig(add_cross_attention=True)


def test_bad_input():
    model = make()
    with pytest.raises(InputError, match="expected either input_ids or inputs_embeds, got neither"):
        model()
    with pytest.raises(InputError, match="expected either input_ids or inputs_embeds, got both"):
        model(IDS, inputs_embeds=torch.zeros(2, 9, 16))
    with pytest.raises(InputError, match=r"at most 32 tokens \(max_position_embeddings\), got 33 after 0"):
        model(torch.ones(1, 33, dtype=torch.long))
    with pytest.raises(InputError, match="encoder_hidden_states need cross-attention layers; make the model with"):
        model(IDS, encoder_hidden_states=torch.zeros(2, 3, 16))
    with pytest.raises(InputError, match=r"attention_mask \[batch, tokens\] = \[2, 9\]"):
        model(IDS, attention_mask=PADDED[:, :5])
    model.prune_heads({0: [0]})
    with pytest.raises(InputError, match="head_mask: expected 3 heads for layer 0, or 4 counted with the pruned"):
        model(IDS, head_mask=torch.ones(5))


def test_the_cache_of_a_decoder_comes_third_in_a_tuple():
    model = bert.BertModel(BertConfig(**SMALL, is_decoder=True)).eval()
    output = model(IDS, output_hidden_states=True)
    _, _, cache, states = model(IDS, return_dict=False, output_hidden_states=True)
    assert cache.get_seq_length() == IDS.shape[1]
    torch.testing.assert_close(states, output.hidden_states)
