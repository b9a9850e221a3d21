"""The examples on Reformer run: at the sizes of a test, but for the slow one."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> dict:
    return runpy.run_path(str(EXAMPLES / name), run_name="example")


def test_a_long_document_is_trained_on_and_its_memory_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    example = load("reformer_long_document.py")
    assert example["WINDOW"] == example["LENGTHS"][-1] == 65_536
    document = tmp_path / "document.txt"
    document.write_text("a long document has many words that come again. " * 100)
    first = example["main"](tmp_path / "one", 1, document, window=512)
    assert example["main"](tmp_path / "ten", 10, document, window=512) < first
    example["plot"]({"reversible": {512: 2**20, 1024: 2**21}, "stored": {512: 2**22}}, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts the memory of the process as Linux does")
def test_a_step_that_stores_activations_takes_more_memory():
    found = load("reformer_long_document.py")["measured"]({"reversible": [4096], "stored": [4096]})
    assert 0 < found["reversible"][4096] < found["stored"][4096]


def test_duplication_is_learned_from_what_the_labels_say():
    example = load("reformer_duplication.py")
    import torch

    tokens = example["draw"](example["TASKS"]["paper"], 3, torch.Generator().manual_seed(0))
    half = tokens.shape[1] // 2
    assert half == 512
    assert torch.equal(tokens[:, :half], tokens[:, half:])
    assert (tokens[:, [0, half]] == 0).all()
    assert (tokens[:, 1:half] > 0).all()
    labels = example["of_second_word"](tokens)
    assert (labels[:, : half + 1] == -100).all()
    assert torch.equal(labels[:, half + 1 :], tokens[:, half + 1 :])
    assert set(example["main"](steps=2)) == {1, 2, 4, 8}


@pytest.mark.slow
def test_duplication_is_learned():
    found = load("reformer_duplication.py")["main"]()
    assert found[1] < found[2] < found[4] <= found[8]
    assert found[4] > 0.99
