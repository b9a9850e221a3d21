from types import SimpleNamespace

import pytest
import torch

from modelwright.attention.caches import DynamicCache, EncoderDecoderCache
from modelwright.config.configuration import PretrainedConfig
from modelwright.core import logging as mw_logging
from modelwright.core.errors import ConfigError, InputError, UnknownArgumentError
from modelwright.generation.mixin import GenerationMixin
from modelwright.generation.outputs import GenerateEncoderDecoderOutput
from modelwright.outputs.model_outputs import BaseModelOutput

SOURCE = torch.tensor([[3, 5, 2, 9], [7, 1, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


@pytest.fixture(autouse=True)
def _say_again():
    mw_logging.forget_once()


class Encoder:
    """States are rows of a table, summed over what the mask shows."""

    def __init__(self, table):
        self.table, self.calls = table, []

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, loud=1.0, output_hidden_states=None):
        self.calls.append({"mask": attention_mask, "grad": torch.is_grad_enabled()})
        states = self.table[input_ids] if inputs_embeds is None else inputs_embeds
        states = loud * states * (1.0 if attention_mask is None else attention_mask[..., None])
        return BaseModelOutput(last_hidden_state=states, hidden_states=(states,) if output_hidden_states else None)

    def __call__(self, **kwargs):
        return self.forward(**kwargs)


class FakeSeq2Seq(GenerationMixin):
    """An encoder-decoder of ten lines: logits are a function of the decoder's ids and of the sum of the states."""

    _supports_generation_cache = True
    device = torch.device("cpu")

    def __init__(self, vocab_size=13, **config):
        config = {"is_encoder_decoder": True, "decoder_start_token_id": 0, "pad_token_id": 0, **config}
        self.config = PretrainedConfig(vocab_size=vocab_size, **config)
        self.table = torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(0))
        self.encoder, self.calls = Encoder(self.table), []

    def get_encoder(self):
        return self.encoder

    def prepare_inputs_for_generation(
        self, decoder_input_ids, past_key_values=None, encoder_outputs=None, attention_mask=None,
        decoder_attention_mask=None, use_cache=None,
    ):  # fmt: skip
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        return {
            "decoder_input_ids": decoder_input_ids[:, past:], "past_key_values": past_key_values,
            "encoder_outputs": encoder_outputs, "attention_mask": attention_mask,
            "decoder_attention_mask": decoder_attention_mask, "use_cache": use_cache,
        }  # fmt: skip

    def forward(
        self, input_ids=None, decoder_input_ids=None, encoder_outputs=None, past_key_values=None, use_cache=None,
        attention_mask=None, decoder_attention_mask=None, output_attentions=None, output_hidden_states=None,
    ):  # fmt: skip
        rows, new = decoder_input_ids.shape
        self.calls.append({"new": (rows, new), "mask": attention_mask, "own_mask": decoder_attention_mask})
        if past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        own, cross = past_key_values.self_attention_cache, past_key_values.cross_attention_cache
        if not past_key_values.is_updated.get(0):
            states = encoder_outputs[0].sum(1)[:, None, None, :]
            cross.update(states, states, 0)
            past_key_values.is_updated[0] = True
        steps = torch.cos((torch.arange(new) + own.get_seq_length()) * 1.7)
        keys = self.table[decoder_input_ids] * steps[:, None]
        if decoder_attention_mask is not None:
            keys = keys * decoder_attention_mask[:, -new:, None]
        keys, _ = own.update(keys[:, None], keys[:, None], 0)
        logits = 2 * keys[:, 0, : own.get_seq_length()].cumsum(1)[:, -new:] + torch.sin(cross[0][0][:, 0, :1])
        return SimpleNamespace(
            logits=logits, past_key_values=past_key_values if use_cache else None, cross_attentions=("c",),
            decoder_attentions=("d",), decoder_hidden_states=("h",),
        )  # fmt: skip

    def __call__(self, **kwargs):
        return self.forward(**kwargs)


def by_hand(model, source, count, start=((0,),), mask=None):
    states = Encoder(model.table).forward(source, mask)
    ids = torch.tensor(start).expand(len(source), -1)
    for _ in range(count):
        logits = model.forward(decoder_input_ids=ids, encoder_outputs=states).logits
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


def test_greedy_runs_the_encoder_once_and_the_decoder_token_by_token():
    model = FakeSeq2Seq()
    out = model.generate(SOURCE, attention_mask=MASK, max_new_tokens=7)
    assert len(model.encoder.calls) == 1
    assert torch.equal(model.encoder.calls[0]["mask"], MASK)
    assert not model.encoder.calls[0]["grad"]
    assert [call["new"] for call in model.calls] == [(2, 1)] * 7
    assert all(torch.equal(call["mask"], MASK) for call in model.calls)
    assert torch.equal(out, by_hand(model, SOURCE, 7, mask=MASK))
    assert len(set(out[:, 1:].flatten().tolist())) > 2


def test_cached_equals_uncached_and_batch_equals_single():
    out = FakeSeq2Seq().generate(SOURCE, attention_mask=MASK, max_new_tokens=9)
    model = FakeSeq2Seq()
    assert torch.equal(model.generate(SOURCE, attention_mask=MASK, max_new_tokens=9, use_cache=False), out)
    assert [call["new"] for call in model.calls] == [(2, length) for length in range(1, 10)]
    for row, width in ((0, 4), (1, 2)):
        alone = FakeSeq2Seq().generate(SOURCE[row : row + 1, :width], max_new_tokens=9)
        assert torch.equal(alone[0], out[row])


def test_a_given_encoder_output_spares_the_run():
    states = Encoder(FakeSeq2Seq().table).forward(SOURCE)
    expected = FakeSeq2Seq().generate(SOURCE, attention_mask=torch.ones_like(SOURCE), max_new_tokens=5)
    for given in (states, (states[0],), SimpleNamespace(last_hidden_state=states[0])):
        model = FakeSeq2Seq()
        assert torch.equal(model.generate(encoder_outputs=given, max_new_tokens=5), expected)
        assert model.encoder.calls == []
        assert isinstance(model.generate(encoder_outputs=given, max_new_tokens=1, return_dict_in_generate=True), dict)
    with pytest.raises(InputError, match=r"encoder's states \[batch, tokens, width\], got dict"):
        FakeSeq2Seq().generate(encoder_outputs={"a": 1})
    with pytest.raises(InputError, match="the source has 1 rows and encoder_outputs have 2"):
        FakeSeq2Seq().generate(SOURCE[:1], encoder_outputs=states)


def test_embeddings_can_be_the_source():
    model = FakeSeq2Seq()
    out = model.generate(inputs_embeds=model.table[SOURCE], attention_mask=MASK, max_new_tokens=5)
    assert torch.equal(out, FakeSeq2Seq().generate(SOURCE, attention_mask=MASK, max_new_tokens=5))
    with pytest.raises(InputError, match="given twice, as input_ids and as inputs_embeds"):
        model.generate(SOURCE, inputs_embeds=model.table[SOURCE])


def test_keywords_of_the_encoder_alone_reach_it_and_it_alone():
    loud = FakeSeq2Seq().generate(SOURCE, attention_mask=MASK, max_new_tokens=9, loud=-1.0)
    assert not torch.equal(loud, FakeSeq2Seq().generate(SOURCE, attention_mask=MASK, max_new_tokens=9))
    with pytest.raises(UnknownArgumentError, match="unknown keyword 'lound'.*Did you mean 'loud'"):
        FakeSeq2Seq().generate(SOURCE, lound=2.0)


def test_padding_of_the_source_makes_the_mask_where_it_can(caplog):
    model = FakeSeq2Seq()
    out = model.generate(SOURCE, max_new_tokens=4)
    assert torch.equal(model.encoder.calls[0]["mask"], MASK)
    assert torch.equal(out, FakeSeq2Seq().generate(SOURCE, attention_mask=MASK, max_new_tokens=4))
    assert "the source holds pad_token_id and there is no attention_mask" in caplog.text
    assert "padded on the right" not in caplog.text
    model = FakeSeq2Seq(eos_token_id=0)
    model.generate(SOURCE, max_new_tokens=1)
    assert model.encoder.calls[0]["mask"] is None
    with pytest.raises(InputError, match=r"attention_mask of shape \(2, 4\), got \(2, 3\)"):
        model.generate(SOURCE, attention_mask=MASK[:, 1:])


def test_where_the_decoder_starts():
    row = SOURCE[:1]
    assert FakeSeq2Seq().generate(row, max_new_tokens=2).shape == (1, 3)
    assert FakeSeq2Seq(bos_token_id=4, decoder_start_token_id=None).generate(row, max_new_tokens=1)[0, 0] == 4
    assert FakeSeq2Seq().generate(SOURCE, decoder_start_token_id=[4, 5], max_new_tokens=1)[:, 0].tolist() == [4, 5]
    with pytest.raises(InputError, match="has 2 ids and the source 1 rows"):
        FakeSeq2Seq().generate(row, decoder_start_token_id=[4, 5])
    with pytest.raises(InputError, match="needs decoder_start_token_id"):
        FakeSeq2Seq(decoder_start_token_id=None).generate(row)
    with pytest.raises(ConfigError, match="decoder_start_token_id to be a token id, or a list of one for each row"):
        FakeSeq2Seq().generate(row, decoder_start_token_id="a")


def test_given_decoder_ids_are_gone_on_from():
    model, start = FakeSeq2Seq(), ((0, 6, 2),)
    out = model.generate(SOURCE[:1], decoder_input_ids=torch.tensor(start), max_new_tokens=4)
    assert torch.equal(out, by_hand(model, SOURCE[:1], 4, start))
    # The start id is put before them if it is missing.
    short = torch.tensor([[6, 2]])
    mask = torch.tensor([[0, 1]])
    assert torch.equal(model.generate(SOURCE[:1], decoder_input_ids=short, max_new_tokens=4), out)
    model.calls.clear()
    model.generate(SOURCE[:1], decoder_input_ids=short, decoder_attention_mask=mask, max_new_tokens=2)
    assert [call["own_mask"].tolist() for call in model.calls] == [[[1, 0, 1]], [[1, 0, 1, 1]]]
    with pytest.raises(InputError, match="decoder_input_ids have 1 rows, the source has 2"):
        model.generate(SOURCE, decoder_input_ids=short)
    with pytest.raises(InputError, match=r"decoder_attention_mask of shape \(1, 2\), got \(1, 1\)"):
        model.generate(SOURCE[:1], decoder_input_ids=short, decoder_attention_mask=mask[:, 1:])
    with pytest.raises(InputError, match=r"expected decoder_input_ids to be whole numbers \[batch, tokens\], got"):
        model.generate(SOURCE[:1], decoder_input_ids=short[0])


def test_sampled_answers_repeat_source_mask_and_states():
    model = FakeSeq2Seq()
    out = model.generate(SOURCE, attention_mask=MASK, do_sample=True, num_return_sequences=3, max_new_tokens=6)
    assert out.shape == (6, 7)
    assert torch.equal(model.calls[0]["mask"], MASK.repeat_interleave(3, 0))
    assert len(model.encoder.calls) == 1
    assert len(model.encoder.calls[0]["mask"]) == 2
    one = model.generate(SOURCE, attention_mask=MASK, do_sample=True, top_k=1, num_return_sequences=2, max_new_tokens=6)
    assert torch.equal(one[::2], FakeSeq2Seq().generate(SOURCE, attention_mask=MASK, max_new_tokens=6))


def test_the_output_has_a_place_for_each_part():
    out = FakeSeq2Seq().generate(
        SOURCE, max_new_tokens=2, return_dict_in_generate=True, output_attentions=True, output_hidden_states=True,
        output_logits=True,
    )  # fmt: skip
    assert isinstance(out, GenerateEncoderDecoderOutput)
    assert (out.decoder_attentions, out.cross_attentions) == ((("d",),) * 2, (("c",),) * 2)
    assert out.decoder_hidden_states == (("h",),) * 2
    assert out.encoder_hidden_states[0].shape == (2, 4, 13)
    assert out.encoder_attentions is None
    assert out.past_key_values.get_seq_length() == 2
    assert len(out.logits) == 2


def test_beams_share_what_the_encoder_gave():
    model, seen = FakeSeq2Seq(), []
    update = model._update_model_kwargs_for_generation

    def watch(outputs, model_kwargs, is_encoder_decoder=False):
        cross = outputs.past_key_values.cross_attention_cache[0][0]
        seen.append((cross.shape[0], cross.data_ptr()))
        return update(outputs, model_kwargs, is_encoder_decoder)

    model._update_model_kwargs_for_generation = watch
    out = model.generate(SOURCE, attention_mask=MASK, num_beams=3, max_new_tokens=7, num_return_sequences=2)
    assert len(model.encoder.calls) == 1
    assert [call["new"] for call in model.calls] == [(2, 1)] + [(6, 1)] * 6
    assert [call["mask"].shape[0] for call in model.calls] == [2] + [6] * 6
    # Repeated once, after the first call, and never put in another order.
    assert seen[0][0] == 2
    assert len(set(seen[1:])) == 1
    uncached = FakeSeq2Seq().generate(
        SOURCE, attention_mask=MASK, num_beams=3, max_new_tokens=7, num_return_sequences=2, use_cache=False
    )
    assert torch.equal(out, uncached)
    assert torch.equal(
        out[2:], FakeSeq2Seq().generate(SOURCE[1:, :2], num_beams=3, max_new_tokens=7, num_return_sequences=2)
    )


def test_a_model_may_share_the_source_among_rows():
    class Sharing(FakeSeq2Seq):
        _shares_source = True

        def forward(self, encoder_outputs, attention_mask, past_key_values=None, **kwargs):
            assert encoder_outputs[0].shape[0] == attention_mask.shape[0] == 2
            times = len(kwargs["decoder_input_ids"]) // 2
            if past_key_values is not None:
                self.shared = past_key_values.cross_attention_cache[0][0]
                assert self.shared.shape[0] == 2
                wide = DynamicCache([(self.shared.repeat_interleave(times, 0),) * 2])
                past_key_values = EncoderDecoderCache(past_key_values.self_attention_cache, wide)
            elif times > 1:
                encoder_outputs = (encoder_outputs[0].repeat_interleave(times, 0),)
            out = super().forward(encoder_outputs=encoder_outputs, past_key_values=past_key_values, **kwargs)
            if out.past_key_values is not None:
                narrow = DynamicCache([(out.past_key_values.cross_attention_cache[0][0][::times],) * 2])
                out.past_key_values = EncoderDecoderCache(out.past_key_values.self_attention_cache, narrow)
            return out

    for kwargs in ({"num_beams": 3}, {"num_beams": 3, "use_cache": False}, {"num_return_sequences": 2, "top_k": 1}):
        kwargs |= {"attention_mask": MASK, "max_new_tokens": 7, "do_sample": "top_k" in kwargs}
        assert torch.equal(Sharing().generate(SOURCE, **kwargs), FakeSeq2Seq().generate(SOURCE, **kwargs))


def test_processors_of_the_source_look_at_its_ids():
    model, free = FakeSeq2Seq(), FakeSeq2Seq().generate(SOURCE[:1], max_new_tokens=6)
    source = free[:, 1:5]
    banned = model.generate(
        source,
        encoder_outputs=Encoder(model.table).forward(SOURCE[:1]),
        encoder_no_repeat_ngram_size=1,
        max_new_tokens=6,
    )
    assert not set(banned[0, 1:].tolist()) & set(source[0].tolist())
    with pytest.raises(InputError, match="encoder_repetition_penalty looks at the ids of the source, and there"):
        model.generate(encoder_outputs=Encoder(model.table).forward(SOURCE), encoder_repetition_penalty=2.0)


def test_the_kind_of_cache_that_is_asked_for():
    class Static(FakeSeq2Seq):
        _supports_cache_objects = True

        def forward(self, past_key_values, **kwargs):
            parts = past_key_values.self_attention_cache, past_key_values.cross_attention_cache
            self.sizes = [part.max_cache_len for part in parts]
            return super().forward(past_key_values=past_key_values, **kwargs)

    for beams in (1, 3):
        kwargs = {"attention_mask": MASK, "max_new_tokens": 6, "num_beams": beams}
        expected = FakeSeq2Seq().generate(SOURCE, **kwargs)
        for kind, sizes in (("dynamic_full", [-1, -1]), ("static", [6, 4])):
            model = Static(num_hidden_layers=1)
            assert torch.equal(model.generate(SOURCE, cache_implementation=kind, **kwargs), expected)
            assert model.sizes == sizes
    with pytest.raises(InputError, match="'static', but there is no cache: leave use_cache out"):
        Static().generate(SOURCE, cache_implementation="static", use_cache=False)
    with pytest.raises(InputError, match="'static', but past_key_values were given"):
        Static().generate(SOURCE, cache_implementation="static", past_key_values=DynamicCache())
    with pytest.raises(NotImplementedError, match="'static', but FakeSeq2Seq makes its own cache"):
        FakeSeq2Seq().generate(SOURCE, cache_implementation="static")


def test_a_streamer_gets_the_decoders_ids(collect):
    streamer = collect()
    out = FakeSeq2Seq().generate(SOURCE[:1], max_new_tokens=3, streamer=streamer)
    assert streamer.got == [[[0]], *([token] for token in out[0, 1:].tolist())]
    assert streamer.ended == 1


def test_a_model_without_an_encoder_says_so(fake_model):
    with pytest.raises(NotImplementedError, match=r"FakeModel does not define get_encoder\(\)"):
        fake_model(is_encoder_decoder=True).generate(SOURCE)


def test_a_main_input_that_is_no_ids():
    class Hearing(FakeSeq2Seq):
        def __init__(self):
            super().__init__()
            self.encoder.main_input_name = "features"
            self.encoder.forward = lambda features, return_dict: BaseModelOutput(last_hidden_state=features * 2)

    features = torch.randn(2, 3, 13, generator=torch.Generator().manual_seed(2))
    out = Hearing().generate(features, max_new_tokens=5)
    assert torch.equal(out, Hearing().generate(features=features, max_new_tokens=5))
    assert torch.equal(out, FakeSeq2Seq().generate(encoder_outputs=(features * 2,), max_new_tokens=5))
    with pytest.raises(InputError, match="expected one source, as inputs or as features; got 0"):
        Hearing().generate(max_new_tokens=5)
