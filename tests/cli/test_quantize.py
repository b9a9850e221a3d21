"""`quantize`, and `embed` and `classify` of what it writes."""

import json
import random

import numpy as np
import pytest
import torch

from modelwright.models.bert.configuration_bert import BertConfig
from modelwright.models.bert.modeling_bert import BertForQuestionAnswering, BertForSequenceClassification, BertModel

WORDS = ["window", "byte", "bucket", "hash", "local", "chunk", "axial", "stream"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    generator = random.Random(3)
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text("\n\n".join(" ".join(generator.choices(WORDS, k=generator.randint(2, 9))) for _ in range(12)))
    return path


@pytest.fixture(scope="module")
def checkpoint(run, text, tmp_path_factory):
    """A function from a class to the folder of a small model of it, with a tokenizer."""
    tokenizer = tmp_path_factory.mktemp("tokenizer")
    trained = run(
        "tokenizer", "train", "--text", text, "-o", tokenizer, "--kind", "wordpiece", "--vocab-size", "100", "--quiet"
    )
    assert trained.exit_code == 0, trained.output

    def make(kind):
        from modelwright.models.auto.tokenization_auto import AutoTokenizer

        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=100,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            id2label={0: "no", 1: "yes", 2: "maybe"},
        )
        model = kind(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.3)
        folder = tmp_path_factory.mktemp("model")
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
        return folder

    return make


def lines(result):
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_quantize_then_embed_with_either_runtime(run, checkpoint, text, tmp_path):
    folder, out = checkpoint(BertModel), tmp_path / "out"
    result = run("quantize", folder, "--calib", text, "--out", out, "--threads", "1", "--max-length", "16", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert json.loads((out / "quantization.json").read_text()) == report
    assert report["texts"] == {"calibration": 9, "held_out": 3}
    assert report["bytes"]["int8"] == (out / "model.onnx").stat().st_size
    quantized = 6 - len(report["float_layers"])
    assert report["fusion"] == {"quantized": quantized, "integer": quantized, "stayed_float": []}
    assert len(report["sensitivity"]) == 6
    assert max(report["layer_differences"].values()) < 5e-3
    assert (out / "quantization.png").read_bytes()[1:4] == b"PNG"
    assert "| size | " in (out / "quantization.md").read_text()
    vectors = {}
    for name, where, runtime in (("float", folder, "auto"), ("torch", out, "torch"), ("onnx", out, "auto")):
        found = lines(run("embed", where, "--text", text, "--runtime", runtime, "--threads", "1"))
        assert [each["text"] for each in found] == [line for line in text.read_text().splitlines() if line]
        vectors[name] = torch.tensor([each["embedding"] for each in found])
    torch.testing.assert_close(vectors["float"].norm(dim=-1), torch.ones(12))
    assert not torch.equal(vectors["float"], vectors["onnx"])
    assert torch.cosine_similarity(vectors["float"], vectors["onnx"]).min() > 0.99
    assert torch.cosine_similarity(vectors["torch"], vectors["onnx"]).min() > 0.999
    run("embed", out, "--text", text, "--out", tmp_path / "a.npy")
    assert np.abs(np.load(tmp_path / "a.npy") - vectors["onnx"].numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "recipe", "more"),
    [
        (BertForSequenceClassification, "full", ("--target", "tensorrt")),
        (BertForQuestionAnswering, "linear+matmul", ("--quantize-embeddings",)),
    ],
)
def test_other_recipes_and_heads(run, checkpoint, text, tmp_path, kind, recipe, more):
    out = tmp_path / "out"
    options = ("--calib", text, "--out", out, "--recipe", recipe, "--accuracy-bar", "0.5", "--max-length", "16")
    result = run("quantize", checkpoint(kind), *options, *more)
    assert result.exit_code == 0, result.output
    assert "bar of 0.5: holds" in result.stdout
    missed = run("quantize", checkpoint(kind), *options[:-3], "0.9999999", *options[-2:], *more)
    assert (missed.exit_code, "bar of 1: missed" in missed.stdout) == (1, True)
    if kind is BertForSequenceClassification:
        found = lines(run("classify", out, "--text", text))
        assert {each["label"] for each in found} <= {"no", "yes", "maybe"}
        assert all(1 / 3 <= each["score"] <= 1 for each in found)


def test_bad_input(run, checkpoint, text, tmp_path):
    folder = checkpoint(BertModel)
    few, binary = tmp_path / "few.txt", tmp_path / "binary"
    few.write_text("one\ntwo\n")
    binary.write_bytes(b"\xff\xfe\x00")
    for options, message in (
        (("--calib", tmp_path / "none"), "--calib: expected a text file, a text a line; there is none at"),
        (("--calib", few), "expected at least 8 lines of text, found 2"),
        (("--calib", binary), "expected text in UTF-8"),
        (
            ("--calib", text, "--recipe", "all"),
            "--recipe: expected one of auto, full, linear, linear+matmul, got 'all'",
        ),
        (("--calib", text, "--accuracy-bar", "2"), "--accuracy-bar: expected a cosine between 0 and 1, got 2.0"),
    ):
        result = run("quantize", folder, "--out", tmp_path / "out", *options)
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())
    result = run("embed", folder, "--text", text, "--runtime", "gpu")
    assert (result.exit_code, "--runtime: expected auto, onnx or torch, got 'gpu'" in result.stderr) == (2, True)
    result = run("classify", folder, "--text", text)
    assert (result.exit_code, "is this a model for sequence classification?" in result.stderr) == (2, True)
