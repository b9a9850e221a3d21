"""Learning on from labels and from a teacher, and that quantization-aware training leaves ranges alone."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from modelwright import BertConfig, BertForSequenceClassification, BertModel
from modelwright.core.errors import InputError
from modelwright.quantization import QuantDescriptor, Recipe, quantizers_of, swap
from modelwright.quantization.ptq import calibrate
from modelwright.training.distillation import Teacher, distillation_loss
from modelwright.training.examples import Examples, TextKind
from modelwright.training.labelled import LabelledKind, read_labelled
from modelwright.training.loop import train_task
from modelwright.training.settings import TrainingSettings
from modelwright.training.tuning import TuningTask

LABELS = {0: "no", 1: "yes"}
SIZES = {
    "vocab_size": 15,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "num_labels": 2,
}


@pytest.fixture
def file(tmp_path: Path, words: list[str]) -> Path:
    """Twenty texts; "yes" where there is a ball."""
    path = tmp_path / "texts.jsonl"
    texts = [" ".join(words[(3 * i + j) % 10] for j in range(2 + i % 4)) for i in range(20)]
    path.write_text("\n".join(json.dumps({"text": t, "label": "yes" if "ball" in t else "no"}) for t in texts))
    return path


@pytest.fixture
def make_task(tokenizer: Any, file: Path) -> Any:
    """A function from a teacher, or None, to a task whose last five texts are held out."""

    def make(teacher: Any = None, batch: int = 4) -> TuningTask:
        kind = LabelledKind(tokenizer, 10, labelled=True)
        items = read_labelled("--train", file, LABELS)
        held_out = Examples(kind, items[15:])
        return TuningTask(kind, items[:15], held_out, path=file, seed=3, batch=batch, teacher=teacher)

    return make


def make_model(kind: Any = BertForSequenceClassification, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(BertConfig(**SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.3)
    return model


def test_an_epoch_sees_each_row_once(make_task: Any) -> None:
    task = make_task()
    rows = [tuple(row["input_ids"]) for row in task.encoded.rows]

    def seen(first: int, last: int) -> list[tuple[int, ...]]:
        found = []
        for position in range(first, last):
            batch = task.batch(position // 4, range(position % 4, position % 4 + 1))
            found.append(tuple(batch["input_ids"][0].tolist()))
        return found

    first, second = seen(0, 15), seen(15, 30)
    assert sorted(first) == sorted(second) == sorted(rows)
    assert first != second
    assert seen(20, 24) == second[5:9]
    assert (task.steps(1), task.steps(2), task.steps(0.01)) == (4, 8, 1)


def test_losses_of_labels_and_of_a_teacher(make_task: Any) -> None:
    model, teacher = make_model(), make_model(seed=1).eval()
    model.eval()
    batch = make_task().batch(0, range(4))
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        own, other = model(**inputs).logits, teacher(**inputs).logits
        hard = F.cross_entropy(own, batch["labels"])
        p, q = (other / 2).softmax(-1), (own / 2).softmax(-1)
        soft = 4 * (p * (p.log() - q.log())).sum(-1).mean()
        torch.testing.assert_close(make_task().loss(model, batch), hard)
        task = make_task(Teacher(teacher))
        torch.testing.assert_close(task.loss(model, batch), (hard + soft) / 2)
        torch.testing.assert_close(task.loss(model, inputs), soft)
    scores = task.evaluate(model, torch.device("cpu"), last=False)
    assert list(scores) == ["loss", "accuracy"]
    with torch.no_grad():
        alone = [float(task.loss(model, task._batch(task.held_out.encoded, [i]))) for i in range(5)]
    assert scores["loss"] == pytest.approx(sum(alone) / 5, abs=1e-6)


def test_distances_of_other_outputs() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    one, other = torch.randn(2, 2, 3, generator=generator)
    own, wanted = ({"start_logits": each, "end_logits": one} for each in (one, other))
    start = distillation_loss(own, wanted, mask)
    parts = []
    for row, places in ((0, 3), (1, 2)):
        p, q = (x[row, :places].div(2).softmax(-1) for x in (other, one))
        parts.append(4 * float((p * (p.log() - q.log())).sum()))
    assert float(start) == pytest.approx(sum(parts) / 2 / 2, rel=1e-5)
    states, wanted = torch.randn(2, 2, 3, 4, generator=generator)
    real = mask.bool()
    expected = (states[real] - wanted[real]).square().sum() / wanted[real].square().sum()
    found = distillation_loss({"last_hidden_state": states}, {"last_hidden_state": wanted}, mask)
    torch.testing.assert_close(found, expected)
    p, q = (x[real].div(2).softmax(-1) for x in (wanted, states))
    found = distillation_loss({"logits": states}, {"logits": wanted}, mask)
    torch.testing.assert_close(found, 4 * (p * (p.log() - q.log())).sum(-1).mean())
    with pytest.raises(InputError, match="expected outputs with logits or last_hidden_state, got x"):
        distillation_loss({"x": states}, {"x": wanted}, mask)


def test_a_teacher_has_no_dropout_and_gets_no_gradient() -> None:
    teacher = Teacher(OneLayer())
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert not teacher({"input_ids": torch.zeros(1, 1)}).logits.requires_grad


def test_who_learns_from_a_teacher_has_no_dropout(make_task: Any) -> None:
    model = make_model()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    model.train()
    task = make_task(Teacher(make_model(seed=1)))
    batch = task.batch(0, range(4))
    first, again = task.loss(model, batch), task.loss(model, batch)
    assert torch.equal(first, again)
    assert model.training
    assert model.bert.encoder.layer[0].training
    first.backward()
    assert all(each.grad is not None for each in model.parameters())
    alone = make_task()
    assert not torch.equal(alone.loss(model, batch), alone.loss(model, batch))


class OneLayer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 2)

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.layer(input_ids))


def test_what_has_no_labels_needs_a_teacher(tokenizer: Any, file: Path, words: list[str]) -> None:
    kind = TextKind(tokenizer, 10)
    texts = [" ".join(words[i : i + 3]) for i in range(8)]
    options: dict[str, Any] = {"path": file, "seed": 0, "batch": 4}
    with pytest.raises(InputError, match=r"texts.jsonl: expected labels to train with, found texts without; a teacher"):
        TuningTask(kind, texts, Examples(kind, texts), **options)
    task = TuningTask(kind, texts, Examples(kind, texts), **options, teacher=Teacher(make_model(BertModel, seed=1)))
    assert list(task.evaluate(make_model(BertModel), torch.device("cpu"), last=True)) == ["loss"]


def test_quantization_aware_training_regains_what_few_bits_cost(make_task: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make_model()
    settings = TrainingSettings(steps=60, warmup=2, batch=8, lr=0.01, eval_every=60, save_every=60, device="cpu")
    task = make_task(batch=8)
    train_task(model, task, settings, tokenizer=task.kind.tokenizer, out=tmp_path / "float")
    teacher = Teacher(make_model())
    teacher.model.load_state_dict(model.state_dict())
    # What is measured is what is learned: so few texts tell nothing of others.
    seen = Examples(task.kind, task.items)
    swap(model.eval(), Recipe(input=QuantDescriptor(num_bits=3), weight=QuantDescriptor(num_bits=3, axis=0)))
    calibrate(model, lambda: seen(model))
    ranges = {name: each.amax.clone() for name, each in quantizers_of(model).items()}
    weight = model.bert.encoder.layer[0].output.dense.weight.detach().clone()
    task = make_task(teacher, batch=8)
    task.held_out = seen
    before = task.evaluate(model, torch.device("cpu"), last=True)
    result = train_task(model, task, settings, tokenizer=task.kind.tokenizer, out=tmp_path / "quantized")
    assert result.scores["loss"] < 0.5 * before["loss"]
    assert not torch.equal(model.bert.encoder.layer[0].output.dense.weight, weight)
    for name, each in quantizers_of(model).items():
        assert torch.equal(each.amax, ranges[name])
    loaded = BertForSequenceClassification.from_pretrained(tmp_path / "quantized").eval()
    assert torch.equal(task.held_out(loaded), task.held_out(model.eval()))
