import threading

import pytest
import torch
from safetensors.torch import save_file

from modelwright.checkpoint.helpers import Helpers
from modelwright.checkpoint.safetensors_file import SafetensorsFile
from modelwright.core.errors import CheckpointError

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture
def helpers():
    helpers = Helpers()
    yield helpers
    helpers.close()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_every_part_is_done_once(helpers, threads):
    done = []
    for _ in range(50):  # the same threads again and again
        parts = iter(range(100))
        helpers.run(lambda parts=parts: done.extend(parts), threads)
    assert sorted(done) == sorted(list(range(100)) * 50)


def test_who_runs_it_does_not_wait_for_helpers_that_are_busy(helpers):
    begun, go_on = threading.Event(), threading.Event()

    def block():
        if threading.current_thread() is not first:
            begun.set()
            go_on.wait()

    first = threading.Thread(target=helpers.run, args=(block, 2))
    first.start()
    assert begun.wait(10)
    parts = iter(range(3))
    done = []
    helpers.run(lambda: done.extend(parts), 2)
    assert done == [0, 1, 2]
    go_on.set()
    first.join(10)
    assert not first.is_alive()


@pytest.mark.parametrize("fails", ["here", "helper"])
def test_an_error_comes_when_nobody_works_any_more(helpers, fails):
    caller, both = threading.current_thread(), threading.Barrier(2)
    ended = []

    def work():
        both.wait(10)
        if (threading.current_thread() is caller) == (fails == "here"):
            raise CheckpointError("cut")
        threading.Event().wait(0.05)
        ended.append(True)

    with pytest.raises(CheckpointError, match="cut"):
        helpers.run(work, 2)
    assert ended == [True]


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", DTYPES)
def test_large_tensors_in_every_dtype(tmp_path, three_threads, stored, dtype):
    large = torch.randn(1031, 2053, dtype=torch.float64).to(stored)  # whole pieces and a rest
    save_file({"large": large}, tmp_path / "model.safetensors")
    file = SafetensorsFile(tmp_path / "model.safetensors", mmap=False)
    read = file.read("large", dtype=dtype)
    file.close()
    assert read.dtype == dtype
    assert torch.equal(read, large.to(dtype))


def test_two_readers_of_one_file(tmp_path, three_threads):
    tensors = {f"{i}": torch.full((1 << 20,), float(i)) for i in range(8)}
    save_file(tensors, tmp_path / "model.safetensors")
    file = SafetensorsFile(tmp_path / "model.safetensors")
    wrong = []

    def reader(names):
        read = ((name, file.read(name, dtype=torch.float16)) for name in names * 3)
        wrong.extend(name for name, tensor in read if not torch.equal(tensor, tensors[name].half()))

    readers = [threading.Thread(target=reader, args=(names,)) for names in (list("0246"), list("1357"))]
    for each in readers:
        each.start()
    for each in readers:
        each.join()
    file.close()
    assert wrong == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_that_is_cut_between_check_and_read(tmp_path, three_threads, monkeypatch, dtype):
    path = tmp_path / "model.safetensors"
    save_file({"large": torch.ones(1 << 22)}, path)
    file = SafetensorsFile(path, mmap=False)
    monkeypatch.setattr(file, "_check", lambda: None)
    with path.open("r+b") as cut:
        cut.truncate(5 << 20)
    with pytest.raises(CheckpointError, match="bytes of 'large' could not be read: the file was cut"):
        file.read("large", dtype=dtype)
    file.close()
