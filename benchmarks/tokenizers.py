"""What a fast tokenizer costs: a batch of 10,000 sentences, and loading a folder up to the first ids, against peers.

All sides read the same folder, a WordPiece vocabulary that is trained at the start; the sides take turns.
"""

import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import harness  # takes this folder off the path: this file has the name of the library that it measures

SENTENCES = 10_000
SIDES = {"modelwright": harness.OURS, "transformers 4.57.1": harness.OURS, "transformers 5.23.0": harness.PEER_5}


def words(count: int) -> list[str]:
    """Words of random letters, always the same."""
    chosen = random.Random(0)
    return ["".join(chosen.choices("etaoinshrdlucmfw", k=chosen.randint(2, 9))) for _ in range(count)]


def sentences() -> list[str]:
    """Sentences of 5 to 40 words, always the same."""
    chosen, known = random.Random(1), words(20_000)
    return [" ".join(chosen.choices(known, k=chosen.randint(5, 40))) + "." for _ in range(SENTENCES)]


def worker(side: str) -> None:
    """One side's half."""
    folder = os.environ["TOKENIZER_FOLDER"]
    if side == "modelwright":
        from modelwright import AutoTokenizer
    else:
        from transformers import AutoTokenizer
    texts = sentences()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def encode() -> dict[str, float]:
        start = time.perf_counter()
        batch = tokenizer(texts, padding=False, truncation=True, max_length=128)
        seconds = time.perf_counter() - start
        assert len(batch["input_ids"]) == SENTENCES
        return {"seconds": seconds, "sentences_per_s": SENTENCES / seconds}

    def padded() -> dict[str, float]:
        start = time.perf_counter()
        tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        return {"seconds": time.perf_counter() - start}

    def load() -> dict[str, float]:
        start = time.perf_counter()
        AutoTokenizer.from_pretrained(folder)("A first sentence.")
        return {"seconds": time.perf_counter() - start}

    harness.serve({"encode": encode, "padded": padded, "load": load})


def make_folder(folder: str) -> None:
    """Train a vocabulary of 30,000 and save it."""
    from modelwright.cli.main import app

    text = Path(folder) / "text"
    text.write_text("\n".join(sentences()))
    arguments = ["tokenizer", "train", "--kind", "wordpiece", "--vocab-size", "30000", "--quiet"]
    app([*arguments, "--text", str(text), "-o", f"{folder}/tokenizer"], standalone_mode=False)


def measure(rounds: int, threads: int) -> dict[str, Any]:
    """All figures of all sides, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            make_folder(folder)
        except SystemExit as left:
            if left.code:
                raise
        environment = os.environ | {
            "TOKENIZER_FOLDER": f"{folder}/tokenizer",
            "RAYON_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "true",
            "HF_HUB_OFFLINE": "1",
        }
        workers = {
            side: harness.Worker(python, Path(__file__).resolve(), side, environment=environment)
            for side, python in SIDES.items()
        }
        figures = {
            call: harness.summarise(harness.interleave(workers, rounds, name=call))
            for call in ("encode", "padded", "load")
        }
        for each in workers.values():
            each.close()
    return figures


def main() -> None:
    """Measure, print, write."""
    arguments = harness.parser(__doc__ or "", rounds=7).parse_args()
    if arguments.worker:
        worker(arguments.worker)
        return
    figures = measure(arguments.rounds, arguments.threads)
    rows = [["side", "10,000 sentences, s", "sentences/s", "padded to tensors, s", "load + first ids, ms"]]
    for side in SIDES:
        encode = figures["encode"][side]
        rows.append([
            side, f"{encode['seconds']:.3f}", f"{encode['sentences_per_s']:,.0f}",
            f"{figures['padded'][side]['seconds']:.3f}", f"{1e3 * figures['load'][side]['seconds']:.1f}",
        ])  # fmt: skip
    print(harness.machine(), f"{arguments.rounds} rounds", sep="; ")
    print(harness.table(rows))
    print(harness.write_result("tokenizers", figures))


if __name__ == "__main__":
    main()
