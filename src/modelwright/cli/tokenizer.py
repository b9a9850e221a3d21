"""`modelwright tokenizer`."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelwright.core.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

app = typer.Typer(name="tokenizer", help="Train tokenizers.", no_args_is_help=True)


class Kind(StrEnum):
    """The model of a tokenizer."""

    WORDPIECE = "wordpiece"
    UNIGRAM = "unigram"
    BPE = "bpe"


@app.callback()
def _group() -> None:
    """Train tokenizers."""


@app.command()
def train(
    text: Annotated[list[Path], typer.Option("--text", help="Text file in UTF-8, a text a line; may be repeated.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to save the tokenizer into.")],
    kind: Annotated[Kind, typer.Option(help="wordpiece as BERT, unigram as T5, bpe (of bytes) as GPT-2.")],
    vocab_size: Annotated[int, typer.Option(min=1, help="Tokens, special ones too.")] = 30_000,
    lower_case: Annotated[bool, typer.Option(help="Lower case, for wordpiece.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Train a tokenizer on text files and save it for from_pretrained."""
    for path in text:
        if not path.is_file():
            raise InputError(f"--text: expected a text file, but there is none at {path}.")
    try:
        saved = make_tokenizer(kind, _lines(text), vocab_size, output, lower_case=lower_case, quiet=quiet)
    except UnicodeDecodeError as error:
        raise InputError(f"--text: expected files in UTF-8: {error}.") from error
    saved.save_pretrained(output)
    print(f"{output}: {type(saved).__name__} of {len(saved)} tokens")


def make_tokenizer(
    kind: Kind, texts: Iterable[str], vocab_size: int, folder: Path, *, lower_case: bool = True, quiet: bool = True
) -> Any:
    """Return a tokenizer trained on `texts`, whose file is in `folder`; raise InputError for too few tokens."""
    from modelwright.models.auto.tables import load_public

    backend, class_name, options = _pipeline(kind, lower_case)
    backend.train_from_iterator(texts, trainer=_trainer(kind, vocab_size, quiet))
    if backend.get_vocab_size() > vocab_size:
        raise InputError(
            f"--vocab-size {vocab_size} is too small: the single letters of the text and the special tokens are "
            f"{backend.get_vocab_size()} already."
        )
    return load_public(class_name)(tokenizer_file=_finished(backend, kind, folder), **options)


def _lines(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line := line.rstrip("\n"):
                    yield line


SPECIAL = {
    Kind.WORDPIECE: ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    Kind.UNIGRAM: ["<pad>", "</s>", "<unk>"],
    Kind.BPE: ["<|endoftext|>"],
}


def _pipeline(kind: Kind, lower_case: bool) -> tuple["Tokenizer", str, dict[str, Any]]:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    if kind is Kind.WORDPIECE:
        backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        return backend, "BertTokenizerFast", {"do_lower_case": lower_case}
    if kind is Kind.UNIGRAM:
        backend = Tokenizer(models.Unigram())
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), " ")]
        )
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        return backend, "T5TokenizerFast", {"extra_ids": 0}
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend, "GPT2TokenizerFast", {}


def _trainer(kind: Kind, vocab_size: int, quiet: bool) -> Any:
    from tokenizers import pre_tokenizers, trainers

    shared = {"vocab_size": vocab_size, "special_tokens": SPECIAL[kind], "show_progress": not quiet}
    if kind is Kind.WORDPIECE:
        return trainers.WordPieceTrainer(**shared)
    if kind is Kind.UNIGRAM:
        return trainers.UnigramTrainer(unk_token="<unk>", **shared)
    return trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **shared)


def _finished(backend: "Tokenizer", kind: Kind, output: Path) -> str:
    """Write the trained tokenizer with the rows of its kind into `output` and return its path."""
    from tokenizers import processors

    ids = {token: backend.token_to_id(token) for token in SPECIAL[kind]}
    if kind is Kind.WORDPIECE:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
        )
    elif kind is Kind.UNIGRAM:
        backend.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", ids["</s>"])]
        )
    else:
        backend.post_processor = processors.ByteLevel(trim_offsets=False)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "tokenizer.json"
    backend.save(str(path))
    return str(path)
