"""What is in a SentencePiece model file: read from its protocol buffer without generated code.

The fields are those of sentencepiece_model.proto (google/sentencepiece).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from modelwright.core.errors import ConfigError
from modelwright.tokenization.vocabulary_files import vocabulary_path

UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
# Serialized messages that follow one another merge: this one sets normalizer_spec.add_dummy_prefix to false.
NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


@dataclass
class SentencePieceFile:
    """The parts of a model that a tokenizer is built from."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    model_type: int = UNIGRAM
    unknown_id: int = 0
    byte_fallback: bool = False
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True


def read_sentencepiece(where: str, path: Any) -> SentencePieceFile:
    """Read a .model or .spm file; raises RepoError if it is missing, ConfigError if it is damaged."""
    file = vocabulary_path(where, path)
    model = SentencePieceFile()
    try:
        for number, value in _fields(file.read_bytes()):
            if number == 1:
                model.pieces.append(_piece(value))
            elif number == 2:
                trainer = dict(_fields(value))
                model.model_type = trainer.get(3, UNIGRAM)
                model.byte_fallback = bool(trainer.get(35, 0))
                model.unknown_id = trainer.get(40, 0)
            elif number == 3:
                normalizer = dict(_fields(value))
                model.charsmap = normalizer.get(2, b"")
                model.add_dummy_prefix = bool(normalizer.get(3, 1))
                model.remove_extra_whitespaces = bool(normalizer.get(4, 1))
    except (IndexError, struct.error, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: expected a SentencePiece model, but it cannot be read: {error}.") from error
    if not model.pieces:
        raise ConfigError(f"{file}: expected a SentencePiece model, found no pieces in it.")
    return model


def _piece(data: bytes) -> tuple[str, float, int]:
    values = dict(_fields(data))
    return values[1].decode("utf-8"), struct.unpack("<f", values.get(2, b"\0\0\0\0"))[0], values.get(3, NORMAL)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (field number, value) of one message: numbers as int, everything else as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"unknown wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"it ends in the middle of a field at byte {at}")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
