import errno
import re
import subprocess
import sys
import threading
from pathlib import Path

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


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", DTYPES)
def test_large_tensors_in_every_dtype(tmp_path, three_threads, stored, dtype, mmap):
    large = torch.randn(2311, 2053, dtype=torch.float64).to(stored)  # whole pieces and a rest
    save_file(
        {"large": large, "scalar": large[0, 0].clone(), "none": large[:0].clone()}, tmp_path / "model.safetensors"
    )
    with SafetensorsFile(tmp_path / "model.safetensors", mmap=mmap) as file:
        read = {name: file.read(name, dtype=dtype) for name in file.infos}
    assert all(tensor.dtype == dtype for tensor in read.values())
    assert torch.equal(read["large"], large.to(dtype))
    assert torch.equal(read["scalar"], large[0, 0].to(dtype))
    assert read["none"].shape == (0, 2053)


def test_what_a_caller_wrote_into_a_map_stays_when_others_are_cast(tmp_path):
    tensors = {name: torch.zeros(5_000_001) for name in ("first", "second")}
    save_file(tensors, tmp_path / "model.safetensors")
    with SafetensorsFile(tmp_path / "model.safetensors") as file:
        mapped = {name: file.read(name).fill_(7) for name in tensors}
        for name in tensors:
            assert not file.read(name, dtype=torch.bfloat16).any()
    assert all((tensor == 7).all() for tensor in mapped.values())


def test_a_cast_where_there_is_no_room_for_a_map(tmp_path, monkeypatch):
    save_file({"large": torch.arange(1 << 21) / 7}, tmp_path / "model.safetensors")

    def refuse(*arguments, **options):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("mmap.mmap", refuse)
    with SafetensorsFile(tmp_path / "model.safetensors") as file:
        assert torch.equal(file.read("large", dtype=torch.float16), (torch.arange(1 << 21) / 7).half())


def mapped_bytes_of(path):
    """The bytes of this process's maps of a file that are in memory, and how many maps there are."""
    maps = Path("/proc/self/smaps").read_text().split("VmFlags")
    ours = [each for each in maps if str(path) in each]
    return sum(int(re.search(r"Rss:\s+(\d+)", each)[1]) << 10 for each in ours), len(ours)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc")
@pytest.mark.parametrize("later", [True, False])
def test_pages_that_were_cast_are_let_go(tmp_path, later):
    path = tmp_path / "model.safetensors"
    save_file({f"{i}": torch.ones(1 << 20) for i in range(20)} | {"large": torch.ones(12 << 20)}, path)
    most = 0
    with SafetensorsFile(path) as file:
        for name in file.infos:
            tensor = (file.read_later if later else file.read)(name, dtype=torch.float16)
            if later and name in ("7", "large"):
                file.finish()
            assert later or tensor.all()
            most = max(most, mapped_bytes_of(path)[0])
        assert mapped_bytes_of(path)[1] == 1
    assert most <= 16 << 20
    assert mapped_bytes_of(path) == (0, 0)


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


def test_a_large_cast_in_inference_mode(tmp_path, three_threads):
    save_file({"large": torch.arange(1 << 21) / 7}, tmp_path / "model.safetensors")
    with SafetensorsFile(tmp_path / "model.safetensors") as file:
        with torch.inference_mode():
            inside = file.read("large", dtype=torch.float16)
        outside = file.read("large", dtype=torch.float16)
    assert inside.is_inference()
    assert not outside.is_inference()
    assert torch.equal(inside, outside)


def test_a_cast_below_another_device(tmp_path, three_threads):
    tensors = {"large": torch.arange(1 << 21) / 7, "small": torch.ones(3)}
    save_file(tensors, tmp_path / "model.safetensors")

    def cast():
        with SafetensorsFile(tmp_path / "model.safetensors") as file, torch.device("meta"):
            read.update({name: file.read(name, "cpu", torch.float16) for name in tensors})

    read: dict[str, torch.Tensor] = {}
    caller = threading.Thread(target=cast)  # has no memory for casts yet
    caller.start()
    caller.join()
    assert all(torch.equal(read[name], tensor.half()) for name, tensor in tensors.items())


def test_open_files_share_their_threads_which_end_with_the_last(tmp_path, three_threads):
    before = set(threading.enumerate())
    files = []
    for i in range(10):
        save_file({"large": torch.full((1 << 20,), float(i))}, tmp_path / f"{i}.safetensors")
        files.append(SafetensorsFile(tmp_path / f"{i}.safetensors"))
        assert torch.equal(files[i].read("large", dtype=torch.float16), torch.full((1 << 20,), i, dtype=torch.float16))
    started = set(threading.enumerate()) - before
    assert len(started) <= 2
    for file in files:
        file.close()
    for thread in started:
        thread.join(10)
        assert not thread.is_alive()


def test_no_thread_can_be_started(helpers, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    parts, done = iter(range(3)), []
    helpers.run(lambda: done.extend(parts), 3)
    assert done == [0, 1, 2]


def test_a_thread_that_outlives_the_main_one_reads(tmp_path):
    save_file({"large": torch.ones(1 << 21)}, tmp_path / "model.safetensors")
    code = """
import sys, threading, pathlib, torch
from modelwright.checkpoint.safetensors_file import SafetensorsFile
torch.set_num_threads(3)
def read():
    threading.main_thread().join()
    with SafetensorsFile(pathlib.Path(sys.argv[1])) as file:
        print(file.read("large", dtype=torch.float16).sum(dtype=torch.float32).item())
threading.Thread(target=read).start()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "model.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"{1 << 21}.0"], done.stderr


def test_a_read_that_fails_names_file_and_tensor(tmp_path, monkeypatch):
    save_file({"small": torch.ones(3)}, tmp_path / "model.safetensors")
    with SafetensorsFile(tmp_path / "model.safetensors", mmap=False) as file:

        def fail(view, offset):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(file, "_read_at", fail)
        with pytest.raises(CheckpointError, match=r"model.safetensors: 'small' could not be read: Input/output error"):
            file.read("small")
