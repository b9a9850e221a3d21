"""The header of a safetensors file, checked before anything is believed: 8 bytes of length, JSON, then tensor bytes.

The format is specified at https://github.com/huggingface/safetensors. The library `safetensors` reads the data; this
file exists because its errors name neither the file nor the cause.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from modelwright.checkpoint.diagnose import likely_cause
from modelwright.checkpoint.headers import TensorInfo
from modelwright.core.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # the library's own limit

_DTYPE_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
DTYPES: Mapping[str, torch.dtype] = {
    name: getattr(torch, attribute) for name, attribute in _DTYPE_NAMES.items() if hasattr(torch, attribute)
}


@dataclass(frozen=True)
class SafetensorsHeader:
    """A sound header: the tensors in the order of their bytes, where each starts in the file, and the metadata.

    `size` is the size of the whole file in bytes; `identity` tells whether the file at the path is still this one.
    """

    infos: Mapping[str, TensorInfo]
    starts: Mapping[str, int]
    metadata: Mapping[str, str]
    size: int
    identity: tuple[int, ...]


def file_identity(stat: os.stat_result) -> tuple[int, ...]:
    """Return what changes when a file is replaced or written to."""
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def read_header(path: Path, *, descriptor: int | None = None) -> SafetensorsHeader:
    """Read and check the header of the safetensors file `path`, through an open `descriptor` of it if given.

    Raises CheckpointError, which names the file, the expected and the found bytes and the likely cause, if the file is
    empty, cut, too long, not safetensors at all, or if its header contradicts itself.
    """
    try:
        with open(path if descriptor is None else descriptor, "rb", closefd=descriptor is None) as file:
            stat = os.fstat(file.fileno())
            head = file.read(512)
            if stat.st_size < 8:
                _refuse(path, head, stat.st_size, f"expected at least 8 bytes of header length, found {stat.st_size}")
            length = int.from_bytes(head[:8], "little")
            if length > MAX_HEADER_BYTES:
                _refuse(path, head, stat.st_size, f"its first 8 bytes announce a header of {length:,} bytes, which "
                        f"is more than the {MAX_HEADER_BYTES:,} that the format allows")  # fmt: skip
            if 8 + length > stat.st_size:
                _refuse(path, head, stat.st_size, f"expected a header of {length:,} bytes, found a file of "
                        f"{stat.st_size:,} bytes", expected=8 + length)  # fmt: skip
            file.seek(8)
            text = file.read(length)
    except OSError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: the file cannot be read: {error.strerror or error}") from error
    entries, metadata = _parse(path, text, head, stat.st_size)
    infos, starts, end = _layout(path, entries, 8 + length)
    if end != stat.st_size:
        _refuse(path, head, stat.st_size, f"expected {end:,} bytes, found {stat.st_size:,}", expected=end)
    return SafetensorsHeader(infos, starts, metadata, stat.st_size, file_identity(stat))


def _refuse(path: Path, head: bytes, size: int, what: str, *, expected: int | None = None) -> NoReturn:
    raise CheckpointError(
        f"{path}: not a sound safetensors file: {what}. " + likely_cause(path, head, size, expected=expected)
    )


def _damaged(path: Path, what: str) -> NoReturn:
    raise CheckpointError(
        f"{path}: the safetensors header is damaged: {what}. Bytes of the file were changed or it was written by a "
        "faulty program. Fetch or save it again."
    )


def _parse(path: Path, text: bytes, head: bytes, size: int) -> tuple[dict[str, Any], dict[str, str]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            _damaged(path, f"the key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
        return found

    try:
        if not text.startswith(b"{"):
            raise ValueError(f"expected '{{' as its first byte, found {text[:1]!r}")
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except CheckpointError:
        raise
    except RecursionError:
        _refuse(path, head, size, "its header is JSON that is nested too deeply")
    except (ValueError, UnicodeDecodeError) as error:
        _refuse(path, head, size, f"its header of {len(text):,} bytes is not JSON ({error})")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _damaged(path, "__metadata__ is not a mapping of text to text")
    return entries, metadata


def _layout(path: Path, entries: dict[str, Any], data_start: int) -> tuple[dict[str, TensorInfo], dict[str, int], int]:
    """Return infos, absolute starts and the end of the file, once the tensors cover the data exactly and once."""
    spans = []
    for name, entry in entries.items():
        dtype, shape, begin, end = _entry(path, name, entry)
        info = TensorInfo(name, dtype, shape, end - begin, path)
        if info.numel * dtype.itemsize != info.nbytes:
            _damaged(path, f"{name!r} of dtype {entry['dtype']} and shape {list(shape)} needs "
                     f"{info.numel * dtype.itemsize:,} bytes, its data_offsets give {info.nbytes:,}")  # fmt: skip
        spans.append((begin, end, info))
    spans.sort(key=lambda span: span[:2])
    position = 0
    for begin, end, info in spans:
        if begin != position:
            _damaged(path, f"{info.name!r} starts at byte {begin:,} of the data, expected {position:,} (the tensors "
                     f"{'overlap' if begin < position else 'leave a hole'})")  # fmt: skip
        position = end
    infos = {info.name: info for _, _, info in spans}
    return infos, {info.name: data_start + begin for begin, _, info in spans}, data_start + position


def _entry(path: Path, name: str, entry: Any) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _damaged(path, f"expected dtype, shape and data_offsets for {name!r}, found {str(entry)[:200]}")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        _damaged(path, f"{name!r} has the unknown dtype {str(entry['dtype'])[:50]!r}; known are {', '.join(DTYPES)}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _damaged(path, f"{name!r} has the shape {str(shape)[:100]} and the data_offsets {str(offsets)[:100]}")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)
