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

from modelwright import BertConfig, BertForMaskedLM
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


@pytest.mark.parametrize(("processes", "saves"), [(3, 12), pytest.param(4, 50, marks=pytest.mark.slow)])
def test_readers_see_whole_saves_while_processes_write(processes, saves):
    with workdir() as where:
        folder = Path(where) / "ckpt"
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(number), folder, str(saves)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
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


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 5, device="meta")
        self.b = nn.Linear(5, 5, device="meta")


def load_weights(folder):
    net = Net()
    with open_checkpoint(LocalRepo(folder)) as checkpoint:
        load_into(net, checkpoint, make_load_plan(checkpoint.infos, module_targets(net)))
    return net


def saved_net(folder):
    weights = {name: torch.randn(info[0]) for name, info in module_targets(Net()).items()}
    save_checkpoint(weights, folder, max_shard_size=100)
    return weights, load_weights


def saved_bert(folder):
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertForMaskedLM(BertConfig(vocab_size=20, max_position_embeddings=8, **sizes))
    model.save_pretrained(folder, max_shard_size="2kB")
    return model.state_dict(), BertForMaskedLM.from_pretrained


def global_state():
    modules = (torch, torch.Tensor, torch.nn.Module, torch.nn.Linear, torch.nn.init, torch.nn.functional)
    return [{name: id(value) for name, value in vars(module).items()} for module in modules], torch.get_rng_state()


@pytest.mark.parametrize("saved", [saved_net, saved_bert])
@pytest.mark.parametrize("loads", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_threads_that_load_change_nothing_global(tmp_path, loads, saved):
    torch.manual_seed(0)
    wanted, load = saved(tmp_path)
    wrong, done = [], []

    def work():
        for _ in range(loads):
            found = load(tmp_path).state_dict()
            wrong.extend(name for name in wanted if not torch.equal(found[name], wanted[name]))
            done.append(found.keys() == wanted.keys())

    load(tmp_path)
    before = global_state()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = global_state()
    assert wrong == []
    assert done == [True] * (8 * loads)
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert torch.get_default_dtype() == torch.float32
    assert nn.Linear(1, 1).weight.device.type == "cpu"


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be replaced there")
