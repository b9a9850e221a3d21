"""`modelwright embed` and `modelwright classify`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from modelwright.cli.texts import labels_of, load_runner, longest, read_texts
from modelwright.core.errors import InputError

_Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of a model, with model.onnx or without.")]
_Text = Annotated[Path, typer.Option(help="Text file in UTF-8, a text a line.")]
_Runtime = Annotated[str, typer.Option(help="onnx, torch, or auto: ONNX where there is a model.onnx.")]
_Threads = Annotated[int | None, typer.Option(min=1, help="Threads; by default one for each core.")]
_Length = Annotated[int, typer.Option(help="The most tokens of a text.")]


def embed(
    folder: _Folder,
    text: _Text,
    out: Annotated[Path | None, typer.Option(help="Write the vectors, [texts, size], as .npy instead.")] = None,
    runtime: _Runtime = "auto",
    threads: _Threads = None,
    max_length: _Length = 256,
) -> None:
    """Print a vector for each line of text, as JSON lines: the mean of the hidden states, of length 1."""
    texts, _, vectors = _run(folder, text, runtime, threads, max_length)
    if out is None:
        for line, vector in zip(texts, vectors.tolist(), strict=True):
            print(json.dumps({"text": line, "embedding": vector}, ensure_ascii=False))
        return
    import numpy as np

    with out.open("wb") as file:
        np.save(file, vectors.numpy())


def classify(
    folder: _Folder, text: _Text, runtime: _Runtime = "auto", threads: _Threads = None, max_length: _Length = 256
) -> None:
    """Print the likeliest label of each line of text and its probability, as JSON lines."""
    texts, model, logits = _run(folder, text, runtime, threads, max_length)
    labels = labels_of(model.config)
    if logits.shape[-1] != len(labels):
        raise InputError(
            f"classify: {folder}: expected a score for each of {len(labels)} labels, got {logits.shape[-1]} numbers a "
            "text; is this a model for sequence classification?"
        )
    for line, scores in zip(texts, logits.softmax(-1), strict=True):
        best = int(scores.argmax())
        print(json.dumps({"text": line, "label": labels[best], "score": float(scores[best])}, ensure_ascii=False))


def _run(folder: str, text: Path, runtime: str, threads: int | None, max_length: int) -> tuple[list[str], Any, Any]:
    from modelwright.models.auto.tokenization_auto import AutoTokenizer
    from modelwright.training.examples import Examples, TextKind

    texts = read_texts("--text", text)
    model = load_runner(folder, runtime, threads)
    kind = TextKind(AutoTokenizer.from_pretrained(folder), longest(model.config, max_length))
    return texts, model, Examples(kind, texts)(model)
