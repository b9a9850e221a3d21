"""The examples run: at the sizes of a test, but for the slow ones."""

import dataclasses
import random
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
    sizes = {"reversible": {512: 2**20, 1024: 2**21}, "stored": {512: 2**22}}
    assert example["told"](sizes) == "stored activations take 4.0 times the memory at 512 tokens"
    example["plot"](sizes, tmp_path / "memory.png")
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


QUANTIZED_WAYS = ["PTQ", "QAT", "QAT, distilled"]


def test_a_classifier_is_quantized_after_training_and_by_it(tmp_path, capsys):
    example = load("quantize_classifier.py")
    few, fewer = (
        dataclasses.replace(example[name], steps=steps, warmup=1, batch=4, eval_every=steps)
        for name, steps in (("SETTINGS", 3), ("AGAIN", 2))
    )
    found = example["main"](tmp_path, texts=20, held_out=10, settings=few, again=fewer)
    assert list(found) == ["float", *(f"{bits} bits, {way}" for bits in (8, 2) for way in QUANTIZED_WAYS)]
    assert all(0 <= accuracy <= 1 for accuracy in found.values())
    assert f"2 bits, PTQ: {found['2 bits, PTQ']:.3f}  2 bits, QAT: " in capsys.readouterr().out
    assert len((tmp_path / "2-bits-qat-distilled" / "metrics.jsonl").read_text().splitlines()) == 5
    text = example["labelled_text"](random.Random(4))
    counts = {topic: sum(word in words for word in text["text"].split()) for topic, words in example["TOPICS"].items()}
    assert sorted(counts, key=counts.get)[-1] == text["label"]
    assert sorted(counts.values())[-1] == sorted(counts.values())[-2] + 1


@pytest.mark.slow
def test_training_regains_what_two_bits_cost(tmp_path):
    found = load("quantize_classifier.py")["main"](tmp_path)
    assert found["float"] >= 0.95
    assert found["8 bits, PTQ"] >= found["float"] - 0.01
    assert found["2 bits, PTQ"] < 0.8
    assert min(found["2 bits, QAT"], found["2 bits, QAT, distilled"]) > found["2 bits, PTQ"] + 0.15


def test_headlines_are_made_of_parts_that_are_all_trained_on_and_none_is_itself(tmp_path, capsys):
    pytest.importorskip("rouge_score")
    example = load("headlines.py")
    from modelwright.training.pairs import PairsFile

    del example["PLACES"][5:]
    found = example["main"](tmp_path, steps=2, options=dataclasses.replace(example["OPTIONS"], eval_pairs=20))
    assert list(found) == ["this model", "first words", "best sentence"]
    assert 0 < found["first words"]["rougeL"] < found["best sentence"]["rougeL"] < 0.7
    assert "nats/token" in capsys.readouterr().out
    pairs = PairsFile(tmp_path / "pairs.jsonl", held_out=example["HELD_OUT"])
    trained, held_out = ({pair.target for pair in part} for part in (pairs.train, pairs.held_out))
    assert held_out and trained.isdisjoint(held_out)
    words, new = ({word for target in part for word in target.split()} for part in (trained, held_out))
    assert new <= words
    assert all(place in pair.source for pair in pairs.held_out for place in example["PLACES"] if place in pair.target)


@pytest.mark.slow
def test_headlines_are_learned(tmp_path):
    pytest.importorskip("rouge_score")
    found = load("headlines.py")["main"](tmp_path)
    assert found["this model"]["rougeL"] > 0.8 > found["best sentence"]["rougeL"] + 0.1
