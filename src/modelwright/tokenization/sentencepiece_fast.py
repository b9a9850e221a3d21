"""A SentencePiece model file becomes a tokenizer of the `tokenizers` library."""

import os
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers import models as backends

from modelwright.core.errors import ConfigError, RepoError
from modelwright.tokenization.fast_tokenizer import PreTrainedTokenizerFast
from modelwright.tokenization.sentencepiece_file import (
    BPE,
    CONTROL,
    UNIGRAM,
    USER_DEFINED,
    SentencePieceFile,
    read_sentencepiece,
)
from modelwright.tokenization.vocabulary_files import copy_file, target

SPACE = "▁"


class SentencePieceTokenizerFast(PreTrainedTokenizerFast):
    """A fast tokenizer from tokenizer.json, or by conversion of a SentencePiece model."""

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "spiece.model", "tokenizer_file": "tokenizer.json"}
    model_input_names = ("input_ids", "attention_mask")

    def __init__(self, vocab_file: Any = None, tokenizer_file: Any = None, **kwargs: Any) -> None:
        """Read tokenizer.json, or a SentencePiece model when there is none.

        Raises RepoError when there is neither, ConfigError for a file that cannot be read.
        """
        self.vocab_file = None if vocab_file is None else os.fspath(vocab_file)
        super().__init__(tokenizer_file=tokenizer_file, **kwargs)

    def _build_backend(self) -> Tokenizer:
        if self.vocab_file is None:
            name = self.vocab_files_names["vocab_file"]
            raise RepoError(f"{type(self).__name__}: expected {name} or tokenizer.json, got neither.")
        return self._convert(read_sentencepiece(type(self).__name__, self.vocab_file))

    def _convert(self, file: SentencePieceFile) -> Tokenizer:
        """Return the tokenizer of `file`; a subclass adds its own."""
        return convert_model(self._where(), file, [(piece, score) for piece, score, _ in file.pieces])

    def _where(self) -> str:
        return f"{type(self).__name__}: {self.vocab_file}"

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Copy the SentencePiece model, if there is one, into the folder `save_directory` and return its path."""
        if self.vocab_file is None or not Path(self.vocab_file).is_file():
            return ()
        path = target(save_directory, filename_prefix, self.vocab_files_names["vocab_file"])
        return (copy_file(self.vocab_file, path),)


def convert_model(
    where: str, file: SentencePieceFile, vocabulary: list[tuple[str, float]], prepend_scheme: str = "always"
) -> Tokenizer:
    """Return `file` as a tokenizer with the pieces and scores `vocabulary`.

    prepend_scheme: where a space is put before the text: "always", "first", "never".
    Raises ConfigError for a model that is neither Unigram nor BPE.
    """
    if file.model_type == UNIGRAM:
        backend = Tokenizer(backends.Unigram(vocabulary, unk_id=file.unknown_id, byte_fallback=file.byte_fallback))
    elif file.model_type == BPE:
        ids = {piece: index for index, (piece, _) in enumerate(vocabulary)}
        unknown = file.pieces[file.unknown_id][0]
        backend = Tokenizer(
            backends.BPE(ids, merges_of(vocabulary), unk_token=unknown, fuse_unk=True, byte_fallback=file.byte_fallback)
        )
    else:
        raise ConfigError(f"{where}: expected a Unigram or BPE model, got type {file.model_type}: use the slow class.")
    add_marked_pieces(backend, file)
    steps = [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), SPACE)]
    if file.charsmap:
        steps.insert(0, normalizers.Precompiled(file.charsmap))
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=prepend_scheme)
    backend.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme=prepend_scheme)
    return backend


def add_marked_pieces(backend: Tokenizer, file: SentencePieceFile) -> None:
    """Add the control and user-defined pieces of `file` as tokens that are matched as they are written."""
    marked = [(piece, kind == CONTROL) for piece, _, kind in file.pieces if kind in (CONTROL, USER_DEFINED)]
    backend.add_tokens([AddedToken(piece, normalized=False, special=special) for piece, special in marked])


def merges_of(vocabulary: list[tuple[str, float]]) -> list[tuple[str, str]]:
    """Return the merges that lead to the pieces of a BPE model, the best score first."""
    ids = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    merges: list[tuple[str, str, float]] = []
    for piece, score in dict(vocabulary).items():
        splits = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        known = [(left, right) for left, right in splits if left in ids and right in ids]
        known.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        merges += [(left, right, score) for left, right in known]
    merges.sort(key=lambda merge: (merge[2], len(merge[0]), len(merge[1])), reverse=True)
    return [(left, right) for left, right, _ in merges]
