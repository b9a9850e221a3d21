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
    assert report["texts"] == {"what": "texts", "calibration": 9, "held_out": 3, "deciding": 3}
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
    assert "Bar: cosine of 0.5000 on average and -0.2500 at least: holds." in result.stdout
    missed = run("quantize", checkpoint(kind), *options[:-3], "0.9999999", *options[-2:], *more)
    assert (missed.exit_code, "at least: missed." in missed.stdout) == (1, True)
    assert "stayed float: " in missed.stdout
    if kind is BertForSequenceClassification:
        found = lines(run("classify", out, "--text", text))
        assert {each["label"] for each in found} <= {"no", "yes", "maybe"}
        assert all(1 / 3 <= each["score"] <= 1 for each in found)


@pytest.fixture(scope="module")
def classifier(run, checkpoint, text, tmp_path_factory):
    """The folder of a classifier, and a file of texts with the labels that it gives them."""
    folder = checkpoint(BertForSequenceClassification)
    lines = tmp_path_factory.mktemp("labels") / "texts.txt"
    generator = random.Random(5)
    lines.write_text("\n".join(" ".join(generator.choices(WORDS, k=generator.randint(2, 9))) for _ in range(40)))
    found = [json.loads(line) for line in run("classify", folder, "--text", lines).stdout.splitlines()]
    path = lines.with_name("labelled.jsonl")
    path.write_text("\n".join(json.dumps({"text": each["text"], "label": each["label"]}) for each in found))
    return folder, path


def test_classify_measures_accuracy_and_the_bar_is_a_share_of_it(run, classifier, tmp_path):
    (folder, labelled), out = classifier, tmp_path / "out"
    options = ("--calib", labelled, "--task", "classify", "--max-length", "16", "--accuracy-bar", "0.9")
    result = run("quantize", folder, "--out", out, "--recipe", "linear", *options, "--json")
    report = json.loads(result.stdout)
    accuracy = report["accuracy"]
    # The labels are the float model's own.
    assert accuracy["float"]["scores"] == {"accuracy": 1.0}
    assert accuracy["bar"] == {"measure": "accuracy", "kept": 0.9, "least": 0.9}
    held_out = [json.loads(line) for line in labelled.read_text().splitlines()][::4]
    texts = tmp_path / "held_out.txt"
    texts.write_text("\n".join(each["text"] for each in held_out))
    found = lines(run("classify", out, "--text", texts, "--max-length", "16"))
    right = sum(one["label"] == other["label"] for one, other in zip(found, held_out, strict=True))
    assert accuracy["in_onnx_runtime"]["scores"] == {"accuracy": right / len(held_out)}
    assert accuracy["holds"] == (right / len(held_out) >= 0.9)
    assert result.exit_code == (0 if accuracy["holds"] else 1)
    assert "| accuracy | 100.00 % | " in (out / "quantization.md").read_text()
    assert "Bar: 90 % of the float model's accuracy, so 90.00 %: " in (out / "quantization.md").read_text()


def test_without_labels_the_cosine_is_the_accuracy(run, classifier, tmp_path):
    folder, labelled = classifier
    bare = tmp_path / "bare.jsonl"
    bare.write_text(
        "\n".join(json.dumps({"text": json.loads(line)["text"]}) for line in labelled.read_text().splitlines())
    )
    options = ("--calib", bare, "--task", "classify", "--max-length", "16", "--out", tmp_path / "out", "--json")
    accuracy = json.loads(run("quantize", folder, "--recipe", "linear", *options).stdout)["accuracy"]
    assert accuracy["bar"]["measure"] == "cosine"
    assert "scores" not in accuracy["in_onnx_runtime"]


@pytest.fixture(scope="module")
def answerer(checkpoint, tmp_path_factory):
    """The folder of a model that answers questions, and a file in which its own answers are the right ones."""
    from modelwright.models.auto.tokenization_auto import AutoTokenizer
    from modelwright.training.answers import QuestionKind
    from modelwright.training.examples import Examples
    from modelwright.training.squad import Question

    folder = checkpoint(BertForQuestionAnswering)
    model = BertForQuestionAnswering.from_pretrained(folder).eval()
    generator = random.Random(7)
    contexts = [" ".join(generator.choices(WORDS, k=generator.randint(8, 30))) for _ in range(8)]
    items = [Question(f"{i}{j}", WORDS[j], text, None) for i, text in enumerate(contexts) for j in range(2)]
    kind = QuestionKind(AutoTokenizer.from_pretrained(folder), 24, stride=6, labelled=False)
    examples = Examples(kind, items)
    answers = kind.predictions(items, examples.encoded, examples(model))
    entries = [
        {
            "id": item.id,
            "question": item.question,
            "answers": [{"text": answers[item.id], "answer_start": item.context.index(answers[item.id])}],
        }
        for item in items
    ]
    path = tmp_path_factory.mktemp("squad") / "squad.json"
    paragraphs = [{"context": text, "qas": entries[2 * i : 2 * i + 2]} for i, text in enumerate(contexts)]
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return folder, path


def test_qa_measures_f1_over_windows(run, answerer, tmp_path):
    (folder, questions), out = answerer, tmp_path / "out"
    options = ("--calib", questions, "--task", "qa", "--max-length", "24", "--recipe", "linear", "--json")
    report = json.loads(run("quantize", folder, "--out", out, *options).stdout)
    assert report["texts"] == {"what": "questions", "calibration": 12, "held_out": 4, "deciding": 4}
    accuracy = report["accuracy"]
    assert accuracy["float"]["scores"] == {"f1": 1.0, "exact": 1.0}
    assert accuracy["bar"] == {"measure": "f1", "kept": 0.99, "least": 0.99}
    answers = json.loads((out / "predictions.json").read_text())
    paragraphs = json.loads(questions.read_text())["data"][0]["paragraphs"][::4]
    wanted = {entry["id"]: entry["answers"][0]["text"] for each in paragraphs for entry in each["qas"]}
    assert set(answers) == set(wanted)
    same = sum(answers[name].lower() == text for name, text in wanted.items()) / 4
    assert accuracy["in_onnx_runtime"]["scores"]["exact"] == same
    assert accuracy["in_onnx_runtime"]["scores"]["f1"] >= same


def test_qat_learns_from_the_float_model_and_reports_both(run, classifier, tmp_path):
    (folder, labelled), out = classifier, tmp_path / "out"
    options = ("--calib", labelled, "--task", "classify", "--max-length", "16", "--recipe", "full")
    training = ("--qat", "--train", labelled, "--distill", "--epochs", "4", "--batch", "10", "--lr", "0.001")
    result = run("quantize", folder, "--out", out, *options, *training)
    assert result.exit_code == 0, result.output
    report = json.loads((out / "quantization.json").read_text())
    # What judges is left out of what is learned.
    assert report["training"]["items"] == 30
    assert report["training"]["steps"] == 12
    accuracy = report["accuracy"]
    assert accuracy["before_training"]["mean"] != accuracy["in_onnx_runtime"]["mean"]
    assert "INT8, trained" in result.stdout
    assert (
        "Trained with the quantizers on, from the float model's outputs: 30 texts"
        in (out / "quantization.md").read_text()
    )
    losses = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    held_out = [each["loss"] for each in losses if each["kind"] == "held_out"]
    assert len(held_out) == 5
    assert held_out[-1] < held_out[0]
    assert report["training"]["held_out_loss"] == {"before": held_out[0], "after": held_out[-1]}
    assert report["training"]["kept"] == "trained"
    again = run("quantize", folder, "--out", out, *options, *training)
    assert (again.exit_code, "already holds a training: go on with it (--resume)" in again.stderr) == (2, True)


def test_qat_that_makes_it_worse_leaves_the_calibrated_weights(run, classifier, tmp_path):
    (folder, labelled), out = classifier, tmp_path / "out"
    options = ("--calib", labelled, "--task", "classify", "--max-length", "16", "--recipe", "full", "--json")
    training = ("--qat", "--train", labelled, "--distill", "--epochs", "1", "--batch", "10", "--lr", "3")
    result = run("quantize", folder, "--out", out, *options, *training)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    loss = report["training"]["held_out_loss"]
    assert loss["after"] > loss["before"]
    assert report["training"]["kept"] == "calibrated"
    accuracy = report["accuracy"]
    assert accuracy["in_onnx_runtime"] == {k: v for k, v in accuracy["before_training"].items() if k != "holds"}
    assert "so the weights are those before training" in (out / "quantization.md").read_text()


def test_qat_of_a_model_that_answers_questions(run, answerer, tmp_path):
    (folder, questions), out = answerer, tmp_path / "out"
    options = ("--calib", questions, "--task", "qa", "--max-length", "24", "--recipe", "full")
    training = ("--qat", "--train", questions, "--distill", "--epochs", "6", "--batch", "8", "--lr", "0.003")
    report = json.loads(run("quantize", folder, "--out", out, *options, *training, "--json").stdout)
    assert report["training"]["items"] == 12
    assert report["training"]["rows"] > 12  # long contexts are several windows
    assert report["training"]["steps"] == -(-6 * report["training"]["rows"] // 8)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    held_out = [each for each in records if each["kind"] == "held_out"]
    assert held_out[-1]["loss"] < held_out[0]["loss"]
    assert {"f1", "exact"} <= held_out[-1].keys()
    accuracy = report["accuracy"]
    for when in ("before_training", "in_pytorch", "in_onnx_runtime"):
        assert 0 <= accuracy[when]["scores"]["exact"] <= accuracy[when]["scores"]["f1"] <= 1
    assert held_out[-1]["f1"] == accuracy["in_pytorch"]["scores"]["f1"]
    assert len(json.loads((out / "predictions.json").read_text())) == 4
    assert "INT8, trained" in (out / "quantization.md").read_text()


def test_an_interrupted_qat_goes_on_as_if_it_had_not_been(run, checkpoint, text, tmp_path, monkeypatch):
    from modelwright.models.bert.modeling_bert import BertModel as Model
    from modelwright.training import loop

    folder = checkpoint(BertModel)
    options = ("--calib", text, "--recipe", "linear", "--max-length", "16", "--json")
    # Texts that judge are not learned, so that there have to be others.
    more = tmp_path / "more.txt"
    more.write_text(text.read_text() + "".join(f"{word} byte {other}\n" for word in WORDS for other in WORDS))
    training = ("--qat", "--train", more, "--distill", "--epochs", "2", "--batch", "16", "--lr", "0.001")
    whole = run("quantize", folder, "--out", tmp_path / "whole", *options, *training)
    assert whole.exit_code == 0, whole.output
    real = loop._Run._train_step

    def until_step_7(self):
        if self.step == 7:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(loop._Run, "_train_step", until_step_7)
    stopped = run("quantize", folder, "--out", tmp_path / "out", *options, *training)
    assert (stopped.exit_code, "with --resume goes on with the training" in stopped.stderr) == (130, True)
    monkeypatch.setattr(loop._Run, "_train_step", real)
    resumed = run("quantize", folder, "--out", tmp_path / "out", *options, *training, "--resume")
    assert resumed.exit_code == 0, resumed.output
    one, other = (Model.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "out"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert json.loads(resumed.stdout)["accuracy"]["in_pytorch"] == json.loads(whole.stdout)["accuracy"]["in_pytorch"]


def test_what_is_interrupted_before_anything_is_saved_begins_again(run, text, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("modelwright.cli.quantize.run_quantize", interrupted)
    options = ("quantize", tmp_path, "--calib", text, "--out", tmp_path / "out")
    stopped = run(*options, "--qat", "--train", text)
    assert (stopped.exit_code, "interrupted; the same command begins again" in stopped.stderr) == (130, True)
    assert not run(*options).stderr.strip()


def test_bad_input_of_tasks_and_training(run, checkpoint, classifier, answerer, text, tmp_path):
    (classifies, labelled), (answers, questions) = classifier, answerer
    plain = checkpoint(BertModel)
    one = tmp_path / "one.json"
    values = json.loads(questions.read_text())
    values["data"][0]["paragraphs"] = [{**each, "context": WORDS[0]} for each in values["data"][0]["paragraphs"]]
    for paragraph in values["data"][0]["paragraphs"]:
        for entry in paragraph["qas"]:
            entry["answers"] = [{"text": WORDS[0], "answer_start": 0}]
    one.write_text(json.dumps(values))
    unlabelled = tmp_path / "unlabelled.jsonl"
    unlabelled.write_text("\n".join(json.dumps({"text": f"byte {i}"}) for i in range(20)))
    out = tmp_path / "out"
    for folder, options, message in (
        (plain, ("--calib", text, "--task", "sort"), "--task: expected one of classify, qa, got 'sort'"),
        (classifies, ("--calib", text, "--task", "classify"), 'line 1: expected {"text": text, "label": name'),
        (answers, ("--calib", labelled, "--task", "qa"), "expected JSON in the format of SQuAD"),
        (answers, ("--calib", one, "--task", "qa"), "expected questions about at least 2 contexts"),
        (
            plain,
            ("--calib", labelled, "--task", "classify"),
            "expected a model that was trained for it, found no classifier.bias, classifier.weight",
        ),
        (plain, ("--calib", labelled), "expected plain text, found JSON lines; did you mean --task classify?"),
        (plain, ("--calib", text, "--stride", "3"), "--stride is about windows of long contexts"),
        (
            answers,
            ("--calib", questions, "--task", "qa", "--max-length", "16", "--stride", "9"),
            "expected windows to overlap (--stride) in 0 to 4 of their 16 tokens",
        ),
        (plain, ("--calib", text, "--distill"), "--distill is about training: it has no meaning without --qat"),
        (plain, ("--calib", text, "--qat"), "--qat: expected --train FILE"),
        (plain, ("--calib", text, "--qat", "--train", text, "--epochs", "0"), "--epochs: expected a number above 0"),
        (plain, ("--calib", text, "--qat", "--train", text, "--epochs", "nan"), "--epochs: expected a number above 0"),
        (plain, ("--calib", text, "--qat", "--train", text, "--lr", "-1"), "(--lr): expected a number above 0"),
        (
            plain,
            ("--calib", text, "--qat", "--train", text, "--resume"),
            "holds no checkpoint of a training; leave --resume out",
        ),
        (
            classifies,
            ("--calib", labelled, "--task", "classify", "--qat", "--train", unlabelled),
            "expected labels to train with, found texts without; a teacher (--distill) needs none",
        ),
    ):
        result = run("quantize", folder, "--out", out, *options)
        assert result.exit_code == 2, options
        assert message in " ".join(result.stderr.split())
        assert not out.exists()


def test_bad_input(run, checkpoint, text, tmp_path):
    folder = checkpoint(BertModel)
    few, binary = tmp_path / "few.txt", tmp_path / "binary"
    few.write_text("one\ntwo\n", encoding="utf-8-sig")
    binary.write_bytes(b"\xff\xfe\x00")
    for options, message in (
        (("--calib", tmp_path / "none"), "--calib: expected a text file, a text a line; there is none at"),
        (("--calib", few), "expected at least 8 lines of text, found 2"),
        (("--calib", binary), "expected text in UTF-8"),
        (
            ("--calib", text, "--recipe", "all"),
            "--recipe: expected one of auto, full, linear, linear+matmul, got 'all'",
        ),
        (("--calib", text, "--accuracy-bar", "2"), "--accuracy-bar: expected a number between 0 and 1, got 2.0"),
    ):
        result = run("quantize", folder, "--out", tmp_path / "out", *options)
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())
    result = run("embed", folder, "--text", text, "--runtime", "gpu")
    assert (result.exit_code, "--runtime: expected auto, onnx or torch, got 'gpu'" in result.stderr) == (2, True)
    result = run("classify", folder, "--text", text)
    assert (result.exit_code, "is this a model for sequence classification?" in result.stderr) == (2, True)
