"""Many writers and readers of one folder: every load is one save, whole."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from modelwright.checkpoint.load import load_into, module_targets
from modelwright.checkpoint.open import open_checkpoint
from modelwright.checkpoint.plan import make_load_plan
from modelwright.checkpoint.save import save_checkpoint
from modelwright.checkpoint.verify import verify
from modelwright.hub.local import LocalRepo

WAYS = ({"max_shard_size": 100}, {}, {"max_shard_size": 100}, {"max_shard_size": 200}, {"safe": False})

WRITER = """
import sys, torch
from modelwright.checkpoint.save import save_checkpoint
number, folder, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
ways = ({"max_shard_size": 100}, {}, {"max_shard_size": 100}, {"max_shard_size": 200})
for turn in range(count):
    value = float(number * 1000 + turn)
    state = {f"l.{i}.weight": torch.full((4, 5), value) for i in range(4)}
    save_checkpoint(state, folder, extra_files={"config.json": str(value)}, **ways[(turn + number) % 4])
"""


def workdir():
    return tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


def read_one(folder):
    with open_checkpoint(LocalRepo(folder)) as checkpoint:
        values = {checkpoint.read(name).unique().tolist()[0] for name in checkpoint.infos}
        assert all(checkpoint.read(name).unique().numel() == 1 for name in checkpoint.infos)
        assert len(checkpoint.infos) == 4
    assert len(values) == 1, values


def test_readers_see_whole_saves_while_processes_write():
    with workdir() as where:
        folder = Path(where) / "ckpt"
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(number), folder, "12"],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(3)
        ]
        reads = 0
        while any(writer.poll() is None for writer in writers):
            if folder.exists():
                read_one(folder)
                reads += 1
        for writer in writers:
            assert writer.wait() == 0, writer.stderr.read()
            writer.stderr.close()
        assert reads > 5
        report = verify(folder, strict=True)
        assert report.ok, report
        assert os.listdir(where) == ["ckpt"]


def test_threads_save_and_load_in_one_process():
    errors = []
    with workdir() as where:
        folder = Path(where) / "ckpt"
        save_checkpoint({f"l.{i}.weight": torch.zeros(4, 5) for i in range(4)}, folder)
        stop = threading.Event()

        def guarded(work):
            try:
                work()
            except BaseException as error:
                errors.append(error)
                raise
            finally:
                if work is not read:
                    stop.set()

        def write():
            for turn in range(25):
                state = {f"l.{i}.weight": torch.full((4, 5), float(turn)) for i in range(4)}
                save_checkpoint(state, folder, **WAYS[turn % len(WAYS)])

        def read():
            while not stop.is_set():
                read_one(folder)

        threads = [threading.Thread(target=guarded, args=(work,)) for work in (write, write, read, read)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors, errors


@pytest.mark.parametrize("loads", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_threads_that_load_change_nothing_global(tmp_path, loads):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(5, 5, device="meta")
            self.b = nn.Linear(5, 5, device="meta")

    torch.manual_seed(0)
    wanted = {name: torch.randn(info[0]) for name, info in module_targets(Net()).items()}
    save_checkpoint(wanted, tmp_path, max_shard_size=100)

    def state():
        modules = (torch, torch.nn.Module, torch.nn.init, torch.nn.functional)
        return [{name: id(value) for name, value in vars(module).items()} for module in modules], torch.get_rng_state()

    wrong = []

    def load():
        for _ in range(loads):
            net = Net()
            with open_checkpoint(LocalRepo(tmp_path)) as checkpoint:
                load_into(net, checkpoint, make_load_plan(checkpoint.infos, module_targets(net)))
            wrong.extend(name for name, value in net.state_dict().items() if not torch.equal(value, wanted[name]))

    load()
    before = state()
    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = state()
    assert wrong == []
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert torch.get_default_dtype() == torch.float32
    assert nn.Linear(1, 1).weight.device.type == "cpu"


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be replaced there")
