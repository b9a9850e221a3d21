import pytest
import torch

from modelwright.core.errors import InputError
from modelwright.generation.streamers import BaseStreamer, TextIteratorStreamer, TextPieces, TextStreamer
from modelwright.tokenization.byte_tokenizer import ByteTokenizer

TEXT = "naïve – 漢字 🙂👩‍🚀 end\nnext line"


def feed(streamer, prompt, text):
    tokenizer = ByteTokenizer()
    streamer.put(tokenizer(prompt, return_tensors="pt").input_ids)
    for index in tokenizer.encode(text):
        streamer.put(torch.tensor([index]))
    streamer.end()


class Pieces(TextStreamer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pieces = []

    def on_finalized_text(self, text, stream_end=False):
        self.pieces.append((text, stream_end))


@pytest.mark.parametrize("repeat", [1, 20])
def test_characters_come_whole_and_at_once(repeat):
    streamer = Pieces(ByteTokenizer(), skip_prompt=True)
    feed(streamer, "prompt", TEXT * repeat)
    assert [piece for piece, _ in streamer.pieces[:-1]] == list(TEXT * repeat)
    assert streamer.pieces[-1] == ("", True)


def test_what_is_not_utf8_comes_as_in_decode():
    tokenizer = ByteTokenizer()
    for data in (b"\xff\xffa\xe2\x82", b"\xf0\x9f\x98a", b"\xe2\x82\xac\xe2\x82", bytes(range(128, 256)) * 3):
        pieces = TextPieces(tokenizer)
        ids = tokenizer.encode_bytes(data).tolist()
        streamed = [pieces.add([index]) for index in ids]
        assert "".join(streamed) + pieces.finish() == tokenizer.decode(ids)


def test_a_run_of_bad_bytes_does_not_stop_the_stream():
    tokenizer = ByteTokenizer()
    pieces = TextPieces(tokenizer)
    given = "".join(pieces.add([index]) for index in tokenizer.encode_bytes(b"\xff" * 300).tolist())
    assert len(given) == 297


@pytest.mark.parametrize("errors", ["strict", "ignore", "surrogateescape"])
def test_other_ways_of_decoding_give_whole_characters_too(errors):
    tokenizer = ByteTokenizer(errors=errors)
    pieces = TextPieces(tokenizer)
    assert [p for p in (pieces.add([index]) for index in tokenizer.encode(TEXT)) if p] == list(TEXT)


def test_strict_decoding_still_raises_for_bytes_that_are_wrong():
    pieces = TextPieces(ByteTokenizer(errors="strict"))
    with pytest.raises(UnicodeDecodeError):
        pieces.add([257, 99])


def test_the_work_for_a_token_does_not_grow_with_the_text():
    class Counting(ByteTokenizer):
        most = 0

        def decode(self, token_ids, *args, **kwargs):
            self.most = max(self.most, len(token_ids))
            return super().decode(token_ids, *args, **kwargs)

    tokenizer = Counting()
    feed(Pieces(tokenizer, skip_prompt=True), "p" * 5000, "x" * 500)
    assert tokenizer.most < 100


def test_a_character_that_the_prompt_began_is_completed():
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode("a€b")
    streamer = Pieces(tokenizer, skip_prompt=True)
    streamer.put(torch.tensor([ids[:2]]))
    for index in ids[2:]:
        streamer.put(torch.tensor([index]))
    assert streamer.pieces == [("€", False), ("b", False)]


def test_text_streamer_prints_prompt_and_text(capsys):
    feed(TextStreamer(ByteTokenizer()), "pro", "mpt €")
    assert capsys.readouterr().out == "prompt €\n"
    feed(TextStreamer(ByteTokenizer(), skip_prompt=True, skip_special_tokens=True), "pro", "mpt €")
    assert capsys.readouterr().out == "mpt €\n"


def test_a_streamer_can_be_used_again(capsys):
    streamer = TextStreamer(ByteTokenizer(), skip_prompt=True)
    feed(streamer, "one", "1")
    feed(streamer, "two", "2")
    assert capsys.readouterr().out == "1\n2\n"


def test_special_tokens_are_left_out_on_demand():
    streamer = Pieces(ByteTokenizer(), skip_special_tokens=True)
    streamer.put(torch.tensor([[67, 0, 68]]))
    streamer.put(torch.tensor([1]))
    streamer.end()
    assert "".join(piece for piece, _ in streamer.pieces) == "AB"


def test_iterator_gives_the_pieces_and_then_stops():
    streamer = TextIteratorStreamer(ByteTokenizer(), skip_prompt=True, timeout=5)
    feed(streamer, "x", "a€")
    assert list(streamer) == ["a", "€"]


def test_batches_are_refused():
    with pytest.raises(InputError, match=r"TextStreamer: expected one row, got ids of shape \(2, 3\)"):
        TextStreamer(ByteTokenizer()).put(torch.ones(2, 3, dtype=torch.long))


def test_base_streamer_names_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"BaseStreamer must define put\(value\)"):
        BaseStreamer().put(torch.tensor([1]))
