import subprocess
import sys

import pytest

from modelwright.models.auto.tokenization_auto import AutoTokenizer

RUN = [sys.executable, "-c", "from modelwright.cli.main import main; main()", "tokenizer", "train"]


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe"])
def test_trained_from_files_and_loaded(kind, tmp_path):
    (tmp_path / "text").write_text("the cat sat on the mat\nthe dog sat too\n" * 20)
    done = subprocess.run(
        [*RUN, "--kind", kind, "--vocab-size", "300", "--text", tmp_path / "text", "-o", tmp_path / "out", "--quiet"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert type(tokenizer).__name__ in done.stdout
    assert tokenizer.decode(tokenizer("the cat sat").input_ids, skip_special_tokens=True) == "the cat sat"
    assert len(tokenizer) <= 300


def test_a_text_that_is_missing_is_one_sentence(tmp_path):
    done = subprocess.run(
        [*RUN, "--kind", "bpe", "--text", tmp_path / "none", "-o", tmp_path / "out"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "expected a text file, but there is none at" in done.stderr
    assert "Traceback" not in done.stderr
