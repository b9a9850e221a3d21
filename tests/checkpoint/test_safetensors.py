"""Headers are believed only when they are sound; every fault names file, expected, found and cause."""

import json
import struct
import time

import pytest
import torch
from safetensors.torch import save_file

from modelwright.checkpoint.safetensors_file import SafetensorsFile
from modelwright.checkpoint.safetensors_header import read_header
from modelwright.core.errors import CheckpointError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {"a": torch.arange(12.0).view(3, 4), "b": torch.ones(5, dtype=torch.bfloat16), "e": torch.zeros(0, 2)}
    save_file({**tensors, "s": torch.tensor(7)}, path, metadata={"format": "pt"})
    return path


def raw(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize("mmap", [True, False])
def test_reads_what_was_written(path, mmap):
    with SafetensorsFile(path, mmap=mmap) as file:
        assert {name: (info.shape, info.dtype) for name, info in file.infos.items()} == {
            "s": ((), torch.int64),
            "a": ((3, 4), torch.float32),
            "b": ((5,), torch.bfloat16),
            "e": ((0, 2), torch.float32),
        }
        assert file.infos["a"].nbytes == 48
        assert torch.equal(file.read("a"), torch.arange(12.0).view(3, 4))
        assert torch.equal(file.read("a", dtype=torch.float16), torch.arange(12.0).half().view(3, 4))
        assert file.read("b").tolist() == [1.0] * 5
        assert file.read("e").shape == (0, 2)
        assert file.read("s").item() == 7
        assert file.read("a", "meta").is_meta


@pytest.mark.parametrize("mmap", [True, False])
def test_two_reads_share_no_memory(path, mmap):
    with SafetensorsFile(path, mmap=mmap) as file:
        first = file.read("a")
        first.zero_()
        assert torch.equal(file.read("a"), torch.arange(12.0).view(3, 4))
        assert first.sum() == 0
    with SafetensorsFile(path) as file:
        assert torch.equal(file.read("a"), torch.arange(12.0).view(3, 4))


def test_the_map_survives_replacement_and_is_noticed(path, tmp_path):
    with SafetensorsFile(path) as file:
        tensor = file.read("a")
        save_file({"a": torch.zeros(3, 4)}, tmp_path / "new")
        (tmp_path / "new").replace(path)
        assert torch.equal(tensor, torch.arange(12.0).view(3, 4))
        with pytest.raises(CheckpointError, match=r"was replaced or written to .* Load again"):
            file.read("a")


def test_odd_header_length_gives_aligned_tensors(tmp_path):
    text = json.dumps({"a": entry()}).encode()
    for pad in range(4):
        raw(tmp_path / "x.safetensors", text + b" " * pad, struct.pack("<2f", 1, 2))
        tensor = SafetensorsFile(tmp_path / "x.safetensors").read("a")
        assert tensor.tolist() == [1, 2]
        assert tensor.data_ptr() % 4 == 0


def test_truncation_at_every_byte(path, tmp_path):
    data = path.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for size in range(len(data)):
        cut.write_bytes(data[:size])
        with pytest.raises(CheckpointError) as error:
            read_header(cut)
        message = str(error.value)
        assert str(cut) in message
        if size == 0:
            assert "The file is empty" in message
        elif size >= 8:
            assert f"{size:,}" in message
            assert "truncated" in message
            assert "bytes are missing at its end" in message
    assert f"expected {len(data):,} bytes, found {len(data) - 1:,}" in message


def test_every_bit_flip_in_the_header_is_an_error_or_harmless(path, tmp_path):
    data = bytearray(path.read_bytes())
    end = 8 + int.from_bytes(data[:8], "little")
    good = read_header(path)
    flipped = tmp_path / "flipped.safetensors"
    refused = 0
    for position in range(end):
        for bit in range(8):
            data[position] ^= 1 << bit
            flipped.write_bytes(data)
            data[position] ^= 1 << bit
            try:
                header = read_header(flipped)
            except CheckpointError as error:
                assert str(flipped) in str(error)
                refused += 1
                continue
            # What a header can still say, it says visibly: another name, or a dtype or shape of the same size.
            changed = {(info.name, info.dtype, info.shape) for info in header.infos.values()}
            same = {(info.name, info.dtype, info.shape) for info in good.infos.values()}
            assert changed != same or header.metadata != good.metadata or bytes(data[position : position + 1]).isspace()
    assert refused > 0.6 * end * 8


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 132\n", "Git-LFS pointer of a file of 132 b"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "It is a web page"),
        (b"  <html>", "It is a web page"),
        (b"Entry not found", "error message of a server"),
        (b"PK\x03\x04" + b"x" * 60, "It is a zip archive"),
        (b"\x80\x02}q" + b"x" * 60, "looks like a Python pickle"),
        (b"\0" * 100, "starts with zero bytes"),
        (b"\xff" * 8 + b"{}", "announce a header of 18,446,744,073,709,551,615 bytes"),
        (struct.pack("<Q", 2**63) + b"{}", "more than the 100,000,000 that the format allows"),
        (b"abc", "expected at least 8 bytes of header length, found 3"),
    ],
)
def test_what_is_not_safetensors(tmp_path, content, cause):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=r"not a sound safetensors file") as error:
        SafetensorsFile(path)
    assert time.perf_counter() - start < 0.1
    assert cause in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        (b"[1]", 0, "expected '{' as its first byte"),
        (b'{"a": ', 0, "is not JSON"),
        (b"{\xff}", 0, "is not JSON"),
        (b'{"a":' * 50_000, 0, "nested too deeply"),
        (b'{"a":{},"a":{}}', 0, "the key 'a' occurs twice"),
        ({"a": 1}, 0, "expected dtype, shape and data_offsets for 'a', found 1"),
        ({"a": {"dtype": "F32"}}, 0, "expected dtype, shape and data_offsets for 'a'"),
        ({"a": entry("F31")}, 8, "'a' has the unknown dtype 'F31'; known are F64, F32"),
        ({"a": entry(["F32"])}, 8, "'a' has the unknown dtype"),
        ({"a": entry(shape=(3,))}, 8, "'a' of dtype F32 and shape [3] needs 12 bytes, its data_offsets give 8"),
        ({"a": entry("F16")}, 8, "needs 4 bytes, its data_offsets give 8"),
        ({"a": entry(shape=(-2,))}, 8, "'a' has the shape [-2]"),
        ({"a": entry(shape=(True, 2))}, 8, "'a' has the shape [True, 2]"),
        ({"a": entry(shape=(2**62, 2**62))}, 8, "its data_offsets give 8"),
        ({"a": entry(offsets=(8, 0))}, 8, "the data_offsets [8, 0]"),
        ({"a": entry(offsets=(0, 8, 8))}, 8, "the data_offsets [0, 8, 8]"),
        ({"a": entry(), "b": entry(offsets=(4, 12))}, 12, "'b' starts at byte 4 of the data, expected 8 (the tensors ov"),
        ({"a": entry(), "b": entry()}, 8, "(the tensors overlap)"),
        ({"a": entry(offsets=(8, 16))}, 16, "'a' starts at byte 8 of the data, expected 0 (the tensors leave a hole)"),
        ({"a": entry()}, 9, "expected 77 bytes, found 78. 1 bytes too many"),
        ({"a": entry(), "__metadata__": {"x": 1}}, 8, "__metadata__ is not a mapping of text to text"),
        ({"a": entry(), "__metadata__": []}, 8, "__metadata__ is not a mapping of text to text"),
    ],
)
def test_headers_that_contradict_themselves(tmp_path, header, size, message):
    path = raw(tmp_path / "model.safetensors", header, b"\0" * size)
    with pytest.raises(CheckpointError) as error:
        read_header(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_random_headers_raise_nothing_else(tmp_path):
    hypothesis = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    path = tmp_path / "fuzz.safetensors"
    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=10,
    )
    entries = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "I8", "BF16"]) | json_values,
            "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
            "data_offsets": st.lists(st.integers(-1, 20), min_size=2, max_size=2) | json_values,
        }
    )

    @hypothesis.settings(max_examples=300, deadline=None, database=None)
    @hypothesis.given(st.dictionaries(st.text(max_size=4), entries | json_values, max_size=4), st.binary(max_size=64))
    def check(header, data):
        raw(path, json.dumps(header).encode(), data)
        try:
            found = read_header(path)
        except CheckpointError:
            return
        assert sum(info.nbytes for info in found.infos.values()) == len(data)
        with SafetensorsFile(path) as file:
            for name in file.infos:
                file.read(name)

    check()
