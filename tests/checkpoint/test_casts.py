"""Tensors that are cast together, from a map of their file, are what each would be alone."""

import threading

import pytest
import torch
from safetensors.torch import save_file

from modelwright.checkpoint import casts, safetensors_file
from modelwright.checkpoint.open import open_checkpoint
from modelwright.checkpoint.safetensors_file import SafetensorsFile
from modelwright.checkpoint.save import save_checkpoint
from modelwright.core.errors import CheckpointError
from modelwright.hub.local import LocalRepo

SIZES = [1, 7, 1000, 32768, 32769, 1 << 20, (1 << 20) + 1, 3_000_017, 5]


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    made = {f"t{i}": torch.randn(size, generator=generator) for i, size in enumerate(SIZES)}
    return made | {"none": torch.zeros(0, 3), "scalar": torch.tensor(2.5), "ids": torch.arange(100_000)}


@pytest.fixture
def path(tmp_path, tensors):
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def read_later(checkpoint, dtype):
    read = {name: checkpoint.read_later(name, dtype=dtype) for name in checkpoint.infos}
    checkpoint.finish()
    return read


def same(read, tensors, dtype):
    return read.keys() == tensors.keys() and all(
        tensor.dtype == dtype and torch.equal(tensor, tensors[name].to(dtype)) for name, tensor in read.items()
    )


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float32])
def test_tensors_that_are_read_later(path, tensors, three_threads, dtype, mmap):
    with SafetensorsFile(path, mmap=mmap) as file:
        assert same(read_later(file, dtype), tensors, dtype)
        assert same(read_later(file, dtype), tensors, dtype)  # again, of their own memory
        file.finish()  # nothing waits


def test_what_waits_is_cast_before_it_is_too_much(path, tensors, monkeypatch):
    monkeypatch.setattr(safetensors_file, "_MOST_WAITING_BYTES", 1 << 20)
    with SafetensorsFile(path) as file:
        assert torch.equal(file.read_later("t7", dtype=torch.float16), tensors["t7"].half())
        assert same(read_later(file, torch.float16), tensors, torch.float16)


def test_a_read_at_once_among_those_that_wait(path, tensors):
    with SafetensorsFile(path) as file:
        later = file.read_later("t7", dtype=torch.float16)
        assert torch.equal(file.read("t6", dtype=torch.float16), tensors["t6"].half())
        file.finish()
    assert torch.equal(later, tensors["t7"].half())


def test_shards_and_devices(tmp_path, tensors):
    save_checkpoint(tensors, tmp_path, max_shard_size=8 << 20)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    with open_checkpoint(LocalRepo(tmp_path)) as checkpoint:
        assert same(read_later(checkpoint, torch.bfloat16), tensors, torch.bfloat16)
        assert checkpoint.read_later("t7", "meta", torch.float16).is_meta


@pytest.mark.parametrize("refused", [lambda: lambda *advice: -1, lambda: None])
def test_where_no_advice_is_taken(path, tensors, monkeypatch, refused):
    monkeypatch.setattr(casts, "_madvise", refused)
    with SafetensorsFile(path) as file:
        assert same(read_later(file, torch.bfloat16), tensors, torch.bfloat16)


def test_only_whole_pages_of_the_result_are_asked_for(path, tensors, monkeypatch):
    asked = []
    monkeypatch.setattr(casts, "_advise", lambda start, end, advice: asked.append((start, end, advice)))
    with SafetensorsFile(path) as file:
        read = read_later(file, torch.bfloat16)
    places = [(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor in read.values()]
    for start, end, advice in asked:
        if advice == casts._POPULATE_WRITE:
            assert any(first <= start < end <= last for first, last in places)


def test_a_file_that_is_written_to_while_tensors_wait(path):
    with SafetensorsFile(path) as file:
        file.read_later("t7", dtype=torch.float16)
        with path.open("ab") as other:
            other.write(b"x")
        with pytest.raises(CheckpointError, match=r"was written to .* Load again"):
            file.finish()
        file.finish()  # they are given up


def test_a_checkpoint_that_is_closed_while_tensors_wait(path):
    file = SafetensorsFile(path)
    file.read_later("t7", dtype=torch.float16)
    file.close()
    file.finish()
    with pytest.raises(CheckpointError, match="was closed"):
        file.read_later("t7", dtype=torch.float16)


def test_inference_mode(path, tensors, three_threads):
    with SafetensorsFile(path) as file, torch.inference_mode():
        read = read_later(file, torch.float16)
    assert all(tensor.is_inference() for tensor in read.values())
    assert same(read, tensors, torch.float16)


def test_no_thread_is_left(path, three_threads):
    before = set(threading.enumerate())
    with SafetensorsFile(path) as file:
        read_later(file, torch.float16)
        new = set(threading.enumerate()) - before
    for thread in new:
        thread.join(10)
    assert not any(thread.is_alive() for thread in new)


@pytest.mark.parametrize("nbytes", [1 << 12, 1 << 20, 1 << 30])
def test_parts_are_everything_once_and_in_order(tensors, nbytes):
    flat = [(torch.empty(size, dtype=torch.float16), torch.arange(size)) for size in SIZES]
    parts = list(casts._parts(flat, nbytes))
    assert torch.equal(torch.cat([stored for part in parts for _, stored in part]), torch.cat([b for _, b in flat]))
    assert all(len(into) == len(stored) for part in parts for into, stored in part)
    sizes = [sum(stored.nbytes for _, stored in part) for part in parts]
    assert all(nbytes <= size < 2 * nbytes for size in sizes[:-1])
