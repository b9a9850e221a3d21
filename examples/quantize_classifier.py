"""Train a small classifier on texts made here, quantize it after training and by training, and compare.

    python examples/quantize_classifier.py [OUT]

A text is a few remarks ("the soup was not very good"); its label is their sum: a remark counts 1, twice with "very",
and "not" turns it round. A small BERT learns that from scratch. Then its linear layers are quantized with fewer and
fewer bits: by calibration alone (PTQ), and by training that goes on with the quantizers on (QAT), from the labels or
from the float model's outputs as well (distillation). MEASURED
"""

import copy
import dataclasses
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import torch

from modelwright import BertConfig, BertForSequenceClassification, BertTokenizerFast
from modelwright.quantization import QuantDescriptor, Recipe, swap
from modelwright.quantization.ptq import calibrate
from modelwright.training.distillation import Teacher
from modelwright.training.examples import Examples
from modelwright.training.labelled import LabelledKind, read_labelled
from modelwright.training.loop import train_task
from modelwright.training.settings import TrainingSettings
from modelwright.training.tuning import TuningTask

GOOD = ["good", "great", "lovely", "fresh", "warm", "kind", "quick", "tasty"]
BAD = ["bad", "poor", "awful", "stale", "cold", "rude", "slow", "bland"]
THINGS = ["soup", "bread", "waiter", "wine", "table", "music", "salad", "coffee", "service", "dessert"]
LABELS = ("awful", "bad", "mixed", "good", "great")
TOKENS = 32
SETTINGS = TrainingSettings(
    steps=1000, batch=32, lr=3e-3, final_lr=0.01, warmup=50, weight_decay=0.01, beta2=0.98, eval_every=500, keep=1
)


def remark(chosen: random.Random) -> tuple[str, int]:
    """Return a remark and what it counts."""
    value = chosen.choice((1, -1))
    words = [chosen.choice(GOOD if value > 0 else BAD)]
    if chosen.random() < 0.4:
        words.insert(0, "very")
        value *= 2
    if chosen.random() < 0.4:
        words.insert(0, "not")
        value = -value
    return f"the {chosen.choice(THINGS)} was {' '.join(words)}", value


def write_texts(path: Path, count: int, seed: int) -> None:
    """Write so many texts with their labels as JSON lines."""
    chosen = random.Random(seed)
    lines = []
    for _ in range(count):
        remarks = [remark(chosen) for _ in range(chosen.randint(1, 3))]
        total = sum(value for _, value in remarks)
        label = LABELS[0 if total < -2 else 1 if total < 0 else 2 if total == 0 else 3 if total <= 2 else 4]
        lines.append(json.dumps({"text": " , ".join(text for text, _ in remarks), "label": label}))
    path.write_text("\n".join(lines), encoding="utf-8")


def make_tokenizer(folder: Path) -> BertTokenizerFast:
    """Return a tokenizer that knows each word of the texts."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "was", "not", "very", ",", *THINGS, *GOOD, *BAD]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    return BertTokenizerFast(vocab_file=str(folder / "vocab.txt"))


def make_model(words: int) -> BertForSequenceClassification:
    """Return a small classifier that has learned nothing."""
    config = BertConfig(
        vocab_size=words,
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.06,
        id2label=dict(enumerate(LABELS)),
    )
    torch.manual_seed(0)
    return BertForSequenceClassification(config)


def main() -> None:
    """Make the texts, train the float model, quantize it in each way, and print a table."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="quantize-classifier-"))
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    tokenizer = make_tokenizer(out)
    model = make_model(len(tokenizer))
    kind = LabelledKind(tokenizer, TOKENS, labelled=True)
    for name, count, seed in (("train", 8000, 1), ("held_out", 1000, 2)):
        write_texts(out / f"{name}.jsonl", count, seed)
    train, held_out = (
        read_labelled(name, out / f"{name}.jsonl", model.config.id2label) for name in ("train", "held_out")
    )
    judge, seen = Examples(kind, held_out), Examples(kind, train).at_most(256)

    def learn(student, name, settings, teacher=None) -> float:
        task = TuningTask(kind, train, judge, path=out / "train.jsonl", seed=0, batch=settings.batch, teacher=teacher)
        return train_task(student, task, settings, tokenizer=tokenizer, out=out / name, resume=True).scores["accuracy"]

    rows = [("float", learn(model, "float", SETTINGS))]
    model.eval()
    print(f"float model: accuracy {rows[0][1]:.3f} after {time.monotonic() - began:.0f} s", flush=True)
    again = dataclasses.replace(SETTINGS, steps=300, lr=5e-4, warmup=10, eval_every=300)
    for bits in (8, 4, 3):
        quantized = copy.deepcopy(model)
        descriptor = QuantDescriptor(num_bits=bits, asymmetric=True)
        swap(quantized, Recipe("linear", input=descriptor, weight=QuantDescriptor(num_bits=bits, axis=0)))
        calibrate(quantized, lambda: seen(quantized))  # noqa: B023 (called at once)
        found = [judge.scores(judge(quantized))["accuracy"]]
        for way, teacher in (("labels", None), ("distilled", Teacher(copy.deepcopy(model)))):
            found.append(learn(copy.deepcopy(quantized), f"{bits}-bits-{way}", again, teacher))
        print(f"{bits} bits: PTQ {found[0]:.3f}  QAT {found[1]:.3f}  QAT, distilled {found[2]:.3f}", flush=True)
    print(f"{time.monotonic() - began:.0f} s, everything in {out}")


if __name__ == "__main__":
    main()
