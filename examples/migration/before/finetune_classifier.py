"""Fine-tune BERT to tell whether a review is good or bad, on reviews that this script makes up itself."""

import argparse
import random
import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from modelwright import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    DataCollatorWithPadding,
)
from modelwright.utils import logging

GOOD, BAD = ("good", "fine", "lovely", "great"), ("bad", "dull", "awful", "poor")
OTHER = ("the", "film", "book", "was", "is", "and", "very", "a", "plot")


def make_checkpoint(folder):
    """Stands for a checkpoint from the hub."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *OTHER]
    path = Path(folder) / "vocab.txt"
    path.write_text("\n".join(vocabulary))
    BertTokenizerFast(str(path)).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    BertForSequenceClassification(config).save_pretrained(folder)


def make_reviews(count, generator):
    reviews = []
    for _ in range(count):
        label = generator.randrange(2)
        words = [generator.choice((BAD, GOOD)[label]), *generator.choices(OTHER, k=generator.randrange(3, 9))]
        generator.shuffle(words)
        reviews.append((" ".join(words), label))
    return reviews


def accuracy(model, loader):
    model.eval()
    right = total = 0
    with torch.no_grad():
        for batch in loader:
            predicted = model(**batch).logits.argmax(-1)
            right += (predicted == batch["labels"]).sum().item()
            total += len(predicted)
    return right / total


def main(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    args = parser.parse_args(arguments)
    logging.set_verbosity_error()
    torch.manual_seed(0)
    generator = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(folder)
        config = AutoConfig.from_pretrained(folder, num_labels=2, id2label={0: "bad", 1: "good"})
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder, config=config)
    features = [
        {**tokenizer(text, truncation=True, max_length=32), "labels": label}
        for text, label in make_reviews(args.steps * args.batch_size + 64, generator)
    ]
    collator = DataCollatorWithPadding(tokenizer)
    held_out = DataLoader(features[:64], batch_size=32, collate_fn=collator)
    loader = DataLoader(features[64:], batch_size=args.batch_size, collate_fn=collator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / args.steps)
    model.train()
    for batch in loader:
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    print(f"loss {loss.item():.3f}, right {accuracy(model, held_out):.0%}")
    label = model(**tokenizer("the film was lovely", return_tensors="pt")).logits.argmax(-1).item()
    print("the film was lovely:", model.config.id2label[label])
    return loss.item(), model.config.id2label[label]


if __name__ == "__main__":
    main()
