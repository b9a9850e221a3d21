import io

import pytest
import sentencepiece

from modelwright.core.errors import ConfigError, InputError, RepoError
from modelwright.models.auto.tokenization_auto import AutoTokenizer
from modelwright.models.reformer.tokenization_reformer import ReformerTokenizer
from modelwright.models.reformer.tokenization_reformer_fast import ReformerTokenizerFast


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    lines = [f"the capital of France is Paris and {number} cats sat" for number in range(200)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=80, hard_vocab_limit=False, minloglevel=2
    )
    path = tmp_path_factory.mktemp("model") / "spiece.model"
    path.write_bytes(model.getvalue())
    return path


def test_fast_equals_slow(model_file):
    slow, fast = ReformerTokenizer(model_file), ReformerTokenizerFast(model_file)
    for text in ("the capital", "Paris and  42 cats", "", "Zürich 👍"):
        assert slow(text).input_ids == fast(text).input_ids
        assert slow.decode(slow(text).input_ids) == fast.decode(fast(text).input_ids).strip()


def test_the_mask_of_the_specification(model_file):
    for cls in (ReformerTokenizer, ReformerTokenizerFast):
        tokenizer = cls(model_file)
        size = len(tokenizer)
        assert tokenizer.add_special_tokens({"mask_token": "[MASK]"}) == 1
        inputs = tokenizer("The capital of France is [MASK].", return_tensors="pt")
        assert len(tokenizer) == size + 1
        assert (inputs.input_ids == tokenizer.mask_token_id)[0].sum() == 1
        assert tokenizer.mask_token_id == size


def test_sampling(model_file):
    tokenizer = ReformerTokenizer(model_file, sp_model_kwargs={"enable_sampling": True, "nbest_size": -1, "alpha": 0.1})
    drawn = {tuple(tokenizer("the capital of France").input_ids) for _ in range(20)}
    assert len(drawn) > 1
    assert {tokenizer.decode(list(ids)) for ids in drawn} == {"the capital of France"}
    with pytest.raises(InputError, match="sp_model_kwargs="):
        ReformerTokenizer(model_file, sp_model_kwargs={"enable_smapling": True})


def test_files(model_file, tmp_path):
    ReformerTokenizerFast(model_file).save_pretrained(tmp_path)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is ReformerTokenizerFast
    assert type(AutoTokenizer.from_pretrained(tmp_path, use_fast=False)) is ReformerTokenizer
    (tmp_path / "bad.model").write_bytes(b"\x0a\xff")
    with pytest.raises(ConfigError, match=r"bad.model: expected a SentencePiece model"):
        ReformerTokenizer(tmp_path / "bad.model")
    with pytest.raises(ConfigError, match=r"bad.model: expected a SentencePiece model"):
        ReformerTokenizerFast(tmp_path / "bad.model")
    with pytest.raises(RepoError, match="expected a vocabulary file, but there is none"):
        ReformerTokenizer(tmp_path / "none.model")
