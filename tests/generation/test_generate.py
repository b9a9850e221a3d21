import threading

import pytest
import torch

from modelwright.core import logging as mw_logging
from modelwright.core.errors import ConfigError, InputError, UnknownArgumentError
from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.logits_process import LogitsProcessor, LogitsProcessorList
from modelwright.generation.mixin import GenerationMixin
from modelwright.generation.stopping_criteria import MaxLengthCriteria, StoppingCriteria, StoppingCriteriaList
from modelwright.generation.streamers import TextIteratorStreamer
from modelwright.tokenization.byte_tokenizer import ByteTokenizer

PROMPT = torch.tensor([[3, 5, 2]])


@pytest.fixture(autouse=True)
def _say_again():
    mw_logging.forget_once()


def by_hand(model, ids, count):
    for _ in range(count):
        ids = torch.cat([ids, model.forward(ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


def test_greedy_is_the_argmax_of_each_step(fake_model):
    model = fake_model()
    assert torch.equal(model.generate(PROMPT, max_new_tokens=8), by_hand(model, PROMPT, 8))


def test_greedy_by_input_ids_keyword_and_by_max_length(fake_model):
    model = fake_model()
    assert torch.equal(model.generate(input_ids=PROMPT, max_length=9), by_hand(model, PROMPT, 6))
    with pytest.raises(InputError, match="given twice"):
        model.generate(PROMPT, input_ids=PROMPT)


def test_without_a_length_twenty_new_tokens_are_made_within_the_positions(fake_model):
    assert fake_model().generate(PROMPT).shape == (1, 23)
    assert fake_model(max_position_embeddings=10).generate(PROMPT).shape == (1, 10)
    assert fake_model(max_length=7).generate(PROMPT).shape == (1, 7)


def test_a_prompt_can_fill_all_positions(fake_model):
    model = fake_model(max_position_embeddings=3)
    assert model.generate(PROMPT).shape == (1, 4)
    with pytest.raises(InputError, match=r"sees at most 3 positions, but a prompt of 3 tokens and 2 new ones need 4"):
        model.generate(PROMPT, max_new_tokens=2)
    with pytest.raises(InputError, match="set max_new_tokens to at most 0"):
        model.generate(torch.cat([PROMPT, PROMPT], dim=1), max_new_tokens=1)
    assert len(model.calls) == 1  # both were refused before the model ran


def test_batch_equals_single_with_left_padding(fake_model):
    model, rows = fake_model(pad_token_id=0), [[4, 7, 1, 9], [8], [2, 6]]
    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    together = model.generate(ids, attention_mask=mask, max_new_tokens=10)
    for row, result in zip(rows, together, strict=True):
        alone = model.generate(torch.tensor([row]), max_new_tokens=10)
        assert result[length:].tolist() == alone[0, len(row) :].tolist()
    assert [call["mask"].shape[1] for call in model.calls[:10]] == list(range(4, 14))
    assert model.calls[9]["mask"][1].tolist() == [0, 0, 0] + [1] * 10


def test_finished_rows_are_padded_and_decoding_stops_when_all_are(fake_model):
    model = fake_model()
    ids = torch.tensor([[3, 5], [7, 1], [2, 2]])
    free = model.generate(ids, max_new_tokens=12)
    ends = [int(free[0, 4]), int(free[1, 6])]
    out = model.generate(ids, max_new_tokens=12, eos_token_id=ends, pad_token_id=11)
    stops = []
    for row, expected in zip(out[:, 2:].tolist(), free[:, 2:].tolist(), strict=True):
        stop = next((i for i, token in enumerate(expected) if token in ends), 12) + 1
        stops.append(stop)
        assert row[:stop] == expected[:stop][: len(row)]
        assert set(row[stop:]) <= {11}
    assert out.shape[1] == 2 + min(12, max(stops))
    assert len(set(stops)) > 1


def test_without_a_pad_token_the_first_end_fills_the_rows(fake_model):
    model = fake_model()
    ids = torch.tensor([[3, 5], [7, 1]])
    free = model.generate(ids, max_new_tokens=6)
    end = int(free[0, 2])
    out = model.generate(ids, max_new_tokens=6, eos_token_id=[end, 12])
    assert out[0, 2:].tolist() == [end] * (out.shape[1] - 2)


def test_rows_that_may_finish_early_need_a_pad_token(fake_model):
    class Never(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.zeros(len(input_ids), dtype=torch.bool)

    with pytest.raises(InputError, match="pad_token_id is needed"):
        fake_model().generate(PROMPT.repeat(2, 1), max_new_tokens=2, stopping_criteria=StoppingCriteriaList([Never()]))


def test_min_new_tokens_and_min_length_hold_the_end_back(fake_model):
    model = fake_model()
    end = int(model.generate(PROMPT, max_new_tokens=1)[0, -1])
    assert model.generate(PROMPT, max_new_tokens=9, eos_token_id=end).shape[1] == 4
    for least in ({"min_new_tokens": 5}, {"min_length": 8}):
        new = model.generate(PROMPT, max_new_tokens=9, eos_token_id=end, **least)[0, 3:].tolist()
        assert end not in new[:5]
        assert len(new) > 5
    with pytest.raises(InputError, match=r"at least 9 tokens .* at most 5"):
        model.generate(PROMPT, min_new_tokens=6, max_new_tokens=2)


def test_sampling_is_a_function_of_the_generator_and_leaves_torchs_stream_alone(fake_model):
    def draw(seed):
        return model.generate(
            PROMPT, do_sample=True, max_new_tokens=12, generator=torch.Generator().manual_seed(seed), temperature=2.0
        ).tolist()

    model = fake_model()
    before = torch.get_rng_state()
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert torch.equal(before, torch.get_rng_state())


def test_sampling_without_a_generator_uses_torchs_stream(fake_model):
    model, results = fake_model(), []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(model.generate(PROMPT, do_sample=True, max_new_tokens=12).tolist())
    assert results[0] == results[1]
    # The same seed in a generator of one's own is the same stream.
    own = model.generate(PROMPT, do_sample=True, max_new_tokens=12, generator=torch.Generator().manual_seed(7))
    assert own.tolist() == results[0]


def test_top_k_of_one_is_greedy(fake_model):
    model = fake_model()
    sampled = model.generate(PROMPT, do_sample=True, top_k=1, max_new_tokens=8)
    assert torch.equal(sampled, model.generate(PROMPT, max_new_tokens=8))


def test_num_return_sequences_repeats_each_prompt_and_its_mask(fake_model):
    model = fake_model(pad_token_id=0)
    ids, mask = torch.tensor([[0, 3], [4, 5]]), torch.tensor([[0, 1], [1, 1]])
    out = model.generate(ids, attention_mask=mask, do_sample=True, num_return_sequences=3, max_new_tokens=4)
    assert out[:, :2].tolist() == [[0, 3]] * 3 + [[4, 5]] * 3
    assert model.calls[0]["mask"].tolist() == [[0, 1]] * 3 + [[1, 1]] * 3
    assert len({tuple(row) for row in out.tolist()}) > 2
    with pytest.raises(ConfigError, match="num_return_sequences=2 would repeat one greedy answer"):
        model.generate(ids, attention_mask=mask, num_return_sequences=2)


def test_dict_output_holds_scores_and_logits_of_each_step(fake_model):
    model = fake_model()
    out = model.generate(
        PROMPT,
        max_new_tokens=4,
        min_new_tokens=4,
        eos_token_id=6,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    assert len(out.scores) == len(out.logits) == 4
    for step in range(4):
        logits = model.forward(out.sequences[:, : 3 + step]).logits[:, -1]
        assert torch.equal(out.logits[step], logits)
        assert out.scores[step][0, 6] == -float("inf")
        kept = [token for token in range(13) if token != 6]
        assert torch.equal(out.scores[step][:, kept], logits[:, kept])
    assert "scores" not in model.generate(PROMPT, max_new_tokens=2, return_dict_in_generate=True)


@pytest.mark.parametrize("writes", [False, True])
def test_the_models_own_logits_are_left_alone_and_not_kept(fake_model, writes):
    model = fake_model()
    forward = model.forward

    def into_the_same_memory(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = buffer.copy_(output.logits[:, -1:])
        return output

    def never_five(_ids, scores):
        scores[:, 5] = -float("inf")
        return scores

    options = {"max_new_tokens": 4, "return_dict_in_generate": True, "output_logits": True}
    options["logits_processor"] = [never_five] if writes else None
    wanted = model.generate(PROMPT, **options)
    buffer = torch.empty(len(PROMPT), 1, 13)
    model.forward = into_the_same_memory
    found = model.generate(PROMPT, **options)
    assert torch.equal(found.sequences, wanted.sequences)
    assert all(map(torch.equal, found.logits, wanted.logits))
    assert buffer.isfinite().all()


def test_attentions_are_refused_by_a_model_without_them(fake_model):
    with pytest.raises(InputError, match="output_attentions=True, but FakeModel does not take it"):
        fake_model().generate(PROMPT, max_new_tokens=1, return_dict_in_generate=True, output_attentions=True)


def test_no_gradients_and_no_change_of_mode(fake_model):
    model = fake_model()
    model.generate(PROMPT, max_new_tokens=2)
    assert [call["grad"] for call in model.calls] == [False, False]
    assert torch.is_grad_enabled()
    assert model.training


def test_keywords_of_the_model_reach_it(fake_model):
    model = fake_model()
    out = model.generate(PROMPT, max_new_tokens=6, scale=-1.0)
    model.table = -model.table
    assert torch.equal(out, by_hand(model, PROMPT, 6))
    assert not torch.equal(out, model.generate(PROMPT, max_new_tokens=6, scale=-1.0))


@pytest.mark.parametrize(
    ("keyword", "nearest"), [("max_new_token", "max_new_tokens"), ("attention_msk", "attention_mask"), ("labels", "")]
)
def test_unknown_keywords_are_named(fake_model, keyword, nearest):
    match = f"unknown keyword '{keyword}'.*" + (f"Did you mean '{nearest}'" if nearest else "")
    with pytest.raises(UnknownArgumentError, match=match):
        fake_model().generate(PROMPT, **{keyword: 1})


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"guidance_scale": 0.5}, r"guidance_scale=0.5 is not built yet; set it to None"),
        ({"use_cache": True}, "use_cache=True, but FakeModel has no cache"),
        ({"generation_config": GenerationConfig(use_cache=True)}, "use_cache=True, but FakeModel has no cache"),
        ({"assistant_model": len}, "assistant_model is not built"),
        ({"cache_implementation": "quantized"}, "'quantized' is not built; use 'dynamic', 'dynamic_full', 'static'"),
    ],
)
def test_what_is_not_built_says_so(fake_model, kwargs, match):
    with pytest.raises(NotImplementedError, match=match):
        fake_model().generate(PROMPT, **kwargs)


def test_the_models_own_use_cache_is_no_demand(fake_model):
    assert fake_model(use_cache=True).generate(PROMPT, max_new_tokens=1).shape == (1, 4)
    assert fake_model(is_encoder_decoder=False).generate(PROMPT, max_new_tokens=1, synced_gpus=False).shape == (1, 4)


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        (torch.tensor([1, 2]), r"\[batch, tokens\], got torch.int64 \(2,\). For one row pass input_ids\[None\]"),
        (torch.tensor([[1.0]]), "got torch.float32"),
        ([[1, 2]], "got list"),
        (torch.empty(1, 0, dtype=torch.long), r"one token or more, got shape \(1, 0\)"),
        (torch.tensor([[1, 13]]), r"expected ids from 0 to 12 .* got 13"),
        (torch.tensor([[1, -1]]), "got -1"),
        (None, "input_ids .* or a bos_token_id"),
    ],
)
def test_bad_prompts(fake_model, prompt, match):
    model = fake_model()
    with pytest.raises(InputError, match=match):
        model.generate(prompt)
    assert model.calls == []


def test_counts_that_a_file_leaves_null_are_one(fake_model):
    config = GenerationConfig(num_beams=None, num_return_sequences=None, max_new_tokens=2)
    assert fake_model().generate(PROMPT, generation_config=config).shape == (1, 5)


def test_bos_begins_where_there_is_no_prompt(fake_model):
    assert fake_model(bos_token_id=4).generate(max_new_tokens=2)[0, 0] == 4


def test_a_prompt_at_max_length_is_refused(fake_model):
    with pytest.raises(InputError, match="the prompt has 3 tokens and max_length is 3"):
        fake_model().generate(PROMPT, max_length=3)


def test_masks_are_checked(fake_model):
    with pytest.raises(InputError, match=r"attention_mask of shape \(1, 3\), got \(1, 2\)"):
        fake_model().generate(PROMPT, attention_mask=torch.ones(1, 2))
    with pytest.raises(InputError, match="all 0"):
        fake_model().generate(PROMPT, attention_mask=torch.zeros(1, 3))


def test_padding_without_a_mask_is_said_once_and_masked(fake_model, caplog):
    model = fake_model(pad_token_id=0)
    ids = torch.tensor([[0, 0, 4], [1, 2, 4]])
    out = model.generate(ids, max_new_tokens=3)
    model.generate(ids, max_new_tokens=3)
    assert [r.message for r in caplog.records if "there is no attention_mask" in r.message] == [
        "generate: the prompt holds pad_token_id and there is no attention_mask: those tokens are taken for padding. "
        "Pass the tokenizer's attention_mask to be sure."
    ]
    assert torch.equal(out, model.generate(ids, attention_mask=(ids != 0).long(), max_new_tokens=3))


def test_padding_that_is_also_the_end_is_not_masked(fake_model, caplog):
    model = fake_model(pad_token_id=0, eos_token_id=0)
    model.generate(torch.tensor([[0, 0, 4]]), max_new_tokens=1)
    assert model.calls[0]["mask"] is None
    assert "which is also an end of text" in caplog.text


def test_padding_on_the_right_is_said(fake_model, caplog):
    fake_model().generate(PROMPT, attention_mask=torch.tensor([[1, 1, 0]]), max_new_tokens=1)
    assert "padding_side='left'" in caplog.text


def test_idle_settings_are_said(fake_model, caplog):
    fake_model().generate(PROMPT, max_new_tokens=1, temperature=0.5, output_scores=True, length_penalty=2.0)
    for sentence in ("temperature does nothing without do_sample", "output_scores does nothing", "length_penalty does"):
        assert sentence in caplog.text


def test_settings_come_from_the_call_then_the_config_then_the_model(fake_model):
    model = fake_model(pad_token_id=9)
    model.generation_config = GenerationConfig(max_new_tokens=5, pad_token_id=9)
    assert model.generate(PROMPT).shape == (1, 8)
    config = GenerationConfig(max_new_tokens=2)
    assert model.generate(PROMPT, generation_config=config).shape == (1, 5)
    assert model.generate(PROMPT, generation_config=config, max_new_tokens=3).shape == (1, 6)
    assert config == GenerationConfig(max_new_tokens=2)  # not changed by the call


class BanAllBut(LogitsProcessor):
    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores):
        banned = torch.full_like(scores, -float("inf"))
        banned[:, self.token] = 0
        return banned


def test_own_processors_and_criteria_join(fake_model, caplog):
    out = fake_model().generate(
        PROMPT,
        None,
        LogitsProcessorList([BanAllBut(7)]),
        StoppingCriteriaList([MaxLengthCriteria(5)]),
        max_new_tokens=9,
    )
    assert out.tolist() == [[3, 5, 2, 7, 7]]
    assert "the given MaxLengthCriteria takes the place" in caplog.text


def test_stop_strings_end_a_row(fake_model):
    tokenizer = ByteTokenizer()
    model = fake_model(vocab_size=258)
    text = tokenizer.encode("xab", return_tensors="pt")

    class Say(LogitsProcessor):
        def __call__(self, input_ids, scores):
            said = tokenizer.encode("ab, é. ab, STOP now")[input_ids.shape[1] - 3]
            return BanAllBut(said)(input_ids, scores)

    def say(**kwargs):
        out = model.generate(text, None, LogitsProcessorList([Say()]), max_new_tokens=18, **kwargs)
        return tokenizer.decode(out[0, 3:])

    assert say(stop_strings="STOP", tokenizer=tokenizer) == "ab, é. ab, STOP"
    assert say(stop_strings=["zz", "b, S"], tokenizer=tokenizer) == "ab, é. ab, S"
    assert say(stop_strings="é", tokenizer=tokenizer) == "ab, é"
    assert say(stop_strings="xab", tokenizer=tokenizer) == "ab, é. ab, STOP n"  # it is in the prompt, not new
    with pytest.raises(InputError, match="pass the tokenizer"):
        say(stop_strings="STOP")


def test_max_time_stops(fake_model):
    assert fake_model().generate(PROMPT, max_new_tokens=50, max_time=1e-9).shape == (1, 4)


def test_a_streamer_gets_the_prompt_and_each_token(fake_model, collect):
    streamer = collect()
    out = fake_model().generate(PROMPT, max_new_tokens=3, streamer=streamer)
    assert streamer.got == [PROMPT.tolist(), *([token] for token in out[0, 3:].tolist())]
    assert streamer.ended == 1
    with pytest.raises(InputError, match="a streamer shows one row, got 2"):
        fake_model().generate(PROMPT.repeat(2, 1), streamer=collect())


def test_an_error_in_another_thread_reaches_the_reader_of_the_stream(fake_model):
    streamer = TextIteratorStreamer(ByteTokenizer(), timeout=20)
    errors = []

    def work():
        try:
            fake_model().generate(PROMPT, max_new_tokens=0, streamer=streamer)
        except ConfigError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    with pytest.raises(ConfigError, match="max_new_tokens"):
        list(streamer)
    thread.join()
    assert len(errors) == 1


def test_a_model_may_hold_its_text_elsewhere_than_at_the_end(fake_model):
    class PaddedBehind(fake_model):
        """Moves the text of each row to the front and reads the logits after it."""

        def prepare_inputs_for_generation(self, input_ids, attention_mask):
            order = attention_mask.argsort(dim=-1, descending=True, stable=True)
            return {"input_ids": input_ids.gather(1, order), "attention_mask": attention_mask.gather(1, order)}

        def _next_token_logits(self, outputs, inputs):
            last = inputs["attention_mask"].sum(dim=-1) - 1
            return outputs.logits[torch.arange(len(last)), last]

    ids, mask = torch.tensor([[0, 0, 4], [7, 1, 9]]), torch.tensor([[0, 0, 1], [1, 1, 1]])
    out = PaddedBehind().generate(ids, attention_mask=mask, max_new_tokens=6)
    assert torch.equal(out, fake_model().generate(ids, attention_mask=mask, max_new_tokens=6))


def test_a_generator_of_another_device_is_refused(fake_model):
    class Elsewhere:
        device = torch.device("cuda")

    with pytest.raises(InputError, match=r"the generator is on cuda and the prompt on cpu"):
        fake_model().generate(PROMPT, do_sample=True, generator=Elsewhere())


def test_a_model_without_a_head_cannot_generate(fake_model):
    class Headless(fake_model):
        prepare_inputs_for_generation = GenerationMixin.prepare_inputs_for_generation

    assert fake_model.can_generate()
    assert not Headless.can_generate()
    with pytest.raises(NotImplementedError, match="Headless cannot generate"):
        Headless().generate(PROMPT)


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"suppress_tokens": [99]}, r"SuppressTokensLogitsProcessor: \[99\] holds an id outside the vocabulary"),
        ({"forced_eos_token_id": 99}, r"ForcedEOSTokenLogitsProcessor: \[99\] holds an id outside the vocabulary"),
        ({"prefix_allowed_tokens_fn": lambda *_: [99]}, "prefix_allowed_tokens_fn: expected ids from 0 to .*, got 99"),
        ({"prefix_allowed_tokens_fn": lambda *_: None}, "prefix_allowed_tokens_fn allows nothing"),
        ({"logits_processor": lambda _, scores: scores}, "expected a LogitsProcessorList, or a list of callable"),
        ({"stopping_criteria": ["x"]}, r"expected a StoppingCriteriaList, .*got \['x'\]"),
        ({"generation_config": {"top_k": 1}}, "expected generation_config to be a GenerationConfig, got dict"),
    ],
)
def test_arguments_that_mean_nothing_here(fake_model, keywords, match):
    with pytest.raises(InputError, match=match):
        fake_model().generate(PROMPT, max_new_tokens=1, **keywords)


@pytest.mark.parametrize("beams", [1, 2])
def test_sampling_from_no_numbers_says_so(fake_model, beams):
    def broken(_, scores):
        return scores * float("nan")

    with pytest.raises(InputError, match=r"scores of the next token are no numbers \(NaN\)"):
        fake_model().generate(PROMPT, max_new_tokens=1, do_sample=True, num_beams=beams, logits_processor=[broken])
