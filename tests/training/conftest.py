"""The tiny model as a fixture, and a text that is the same every time."""

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest

from modelwright import BertTokenizerFast


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module tiny.py beside this file (pytest's importlib mode puts no test folder on the path)."""
    spec = importlib.util.spec_from_file_location("modelwright_tests_tiny", Path(__file__).with_name("tiny.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    generator = random.Random(7)
    words = ["window", "byte", "bucket", "hash", "local", "chunk", "axial", "stream"]
    path = tmp_path / "text.txt"
    path.write_text(" ".join(generator.choice(words) for _ in range(2000))[:9000])
    return path


@pytest.fixture
def words() -> list[str]:
    """The ten words that `tokenizer` knows."""
    return ["red", "blue", "green", "round", "square", "small", "ball", "box", "sees", "takes"]


@pytest.fixture
def tokenizer(tmp_path: Path, words: list[str]) -> BertTokenizerFast:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    return BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt"))
