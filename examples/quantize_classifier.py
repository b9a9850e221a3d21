"""Train a small classifier on texts made here, quantize it after training and by training, and compare.

    python examples/quantize_classifier.py [OUT]

A text is a mixture of words about four topics and of words about none; its label is the topic with the most words. A
small BERT learns that from scratch. Then its linear layers are quantized with fewer and fewer bits: by calibration
alone (PTQ), and by training that goes on with the quantizers on (QAT), from the labels or from the float model's
outputs as well (distillation).

Of 1000 held-out texts the float model got all right, and so did each model of 8 bits. With 2 bits calibration alone
got 53.3 % right, training from the labels brought back 91.1 %.
"""

import copy
import dataclasses
import itertools
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

TOPICS = {
    "kitchen": ["soup", "bread", "oven", "knife", "butter", "plate", "recipe", "flour"],
    "garden": ["rose", "spade", "seed", "lawn", "hedge", "tulip", "compost", "rake"],
    "harbour": ["boat", "anchor", "rope", "pier", "sail", "crane", "buoy", "wave"],
    "school": ["pupil", "chalk", "lesson", "pencil", "exam", "desk", "teacher", "essay"],
}
OTHERS = ["the", "a", "was", "with", "near", "behind", "old", "small", "red", "quiet", "seen", "found"]
TOKENS = 40
BITS = (8, 2)
SETTINGS = TrainingSettings(
    steps=500, batch=32, lr=2e-3, final_lr=0.01, warmup=50, weight_decay=0.01, beta2=0.98, eval_every=500, keep=1
)
# Weights of two bits have to move far; 4e-5 is enough for eight.
AGAIN = dataclasses.replace(SETTINGS, steps=250, warmup=10, weight_decay=0.0, eval_every=250)


def labelled_text(chosen: random.Random) -> dict[str, str]:
    """Return a text and its label, which is the topic of one word more than any other."""
    counts = [chosen.randint(2, 5) for _ in TOPICS]
    first = chosen.randrange(len(counts))
    counts[first] = max(counts[:first] + counts[first + 1 :]) + 1
    words = [
        word for topic, count in zip(TOPICS, counts, strict=True) for word in chosen.choices(TOPICS[topic], k=count)
    ]
    words += chosen.choices(OTHERS, k=chosen.randint(4, 8))
    chosen.shuffle(words)
    return {"text": " ".join(words), "label": list(TOPICS)[first]}


def write_texts(path: Path, count: int, seed: int) -> None:
    """Write so many texts with their labels as JSON lines."""
    chosen = random.Random(seed)
    lines = [json.dumps(labelled_text(chosen)) for _ in range(count)]
    path.write_text("\n".join(lines), encoding="utf-8")


def make_tokenizer(folder: Path) -> BertTokenizerFast:
    """Return a tokenizer that knows each word of the texts."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *OTHERS, *itertools.chain(*TOPICS.values())]
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
        id2label=dict(enumerate(TOPICS)),
    )
    torch.manual_seed(0)
    return BertForSequenceClassification(config)


def quantize(model: BertForSequenceClassification, bits: int, seen: Examples) -> BertForSequenceClassification:
    """Return a copy whose linear layers take and hold numbers of so many bits, with ranges for the texts `seen`."""
    quantized = copy.deepcopy(model)
    activations, weights = QuantDescriptor(num_bits=bits, asymmetric=True), QuantDescriptor(num_bits=bits, axis=0)
    swap(quantized, Recipe("linear", input=activations, weight=weights))
    calibrate(quantized, lambda: seen(quantized))
    return quantized


def main(
    out: Path,
    *,
    texts: int = 6000,
    held_out: int = 1000,
    settings: TrainingSettings = SETTINGS,
    again: TrainingSettings = AGAIN,
) -> dict[str, float]:
    """Make the texts, train the float model, quantize it in each way, print the accuracies and return them."""
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    torch.set_num_threads(1)  # the products are too small to be worth sharing
    tokenizer = make_tokenizer(out)
    model = make_model(len(tokenizer))
    kind = LabelledKind(tokenizer, TOKENS, labelled=True)
    read = []
    for name, count, seed in (("train", texts, 1), ("held_out", held_out, 2)):
        write_texts(out / f"{name}.jsonl", count, seed)
        read.append(read_labelled(name, out / f"{name}.jsonl", model.config.id2label))
    judge, seen = Examples(kind, read[1]), Examples(kind, read[0]).at_most(256)

    def learn(student, name, how, teacher=None) -> float:
        task = TuningTask(kind, read[0], judge, path=out / "train.jsonl", seed=0, batch=how.batch, teacher=teacher)
        return train_task(student, task, how, tokenizer=tokenizer, out=out / name, resume=True).scores["accuracy"]

    found = {"float": learn(model, "float", settings)}
    model.eval()
    print(f"float: {found['float']:.3f}", flush=True)
    for bits in BITS:
        quantized = quantize(model, bits, seen)
        found[f"{bits} bits, PTQ"] = judge.scores(judge(quantized))["accuracy"]
        for way, teacher in (("QAT", None), ("QAT, distilled", Teacher(copy.deepcopy(model)))):
            folder = f"{bits}-bits-{way.lower().replace(', ', '-')}"
            found[f"{bits} bits, {way}"] = learn(copy.deepcopy(quantized), folder, again, teacher)
        print("  ".join(f"{name}: {found[name]:.3f}" for name in found if name.startswith(f"{bits} ")), flush=True)
    print(f"{time.monotonic() - began:.0f} s, everything in {out}")
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="quantize-classifier-")))
