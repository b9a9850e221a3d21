"""Checkpoints that several processes write, each its part."""

import json
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from modelwright.checkpoint.distributed import DistributedCheckpoint
from modelwright.checkpoint.open import open_checkpoint
from modelwright.checkpoint.save import save_checkpoint
from modelwright.checkpoint.verify import verify
from modelwright.core.errors import CheckpointError
from modelwright.hub.local import LocalRepo

NAME = "shard-{:05d}-model-00001-of-00001.safetensors"

WORKER = """
import sys, torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from modelwright.checkpoint.distributed import save_distributed
rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
whole = {"rows": torch.arange(35.0).reshape(7, 5), "columns": torch.arange(12).reshape(3, 4), "alike": torch.ones(3)}
state = {
    "rows": distribute_tensor(whole["rows"], mesh, [Shard(0)]),
    "columns": distribute_tensor(whole["columns"], mesh, [Shard(1)]),
    "alike": distribute_tensor(whole["alike"], mesh, [Replicate()]),
}
save_distributed(state, folder, extra_files={"config.json": "{}"})
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_write_one_checkpoint(tmp_path):
    save_checkpoint({"old": torch.ones(1)}, tmp_path / "ckpt")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(rank), str(port), tmp_path / "ckpt"]) for rank in range(2)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    files = sorted(path.name for path in (tmp_path / "ckpt").iterdir())
    assert len([name for name in files if name.startswith("shard-")]) == 2
    assert "model.safetensors" not in files
    with open_checkpoint(LocalRepo(tmp_path / "ckpt")) as opened:
        assert torch.equal(opened.read("rows"), torch.arange(35.0).reshape(7, 5))
        assert torch.equal(opened.read("columns", dtype=torch.float32), torch.arange(12.0).reshape(3, 4))
        assert torch.equal(opened.read("alike"), torch.ones(3))
        assert opened.maps("alike") and not opened.maps("rows")
    assert verify(tmp_path / "ckpt").ok


def pieces(folder, *offsets, info=None):
    paths = []
    for rank, offset in enumerate(offsets, start=1):
        metadata = {"DCP_SHARDING_INFO": json.dumps(info or {"w": {"saved_offsets": offset}})}
        paths.append(folder / NAME.format(rank))
        save_file({"w": torch.full((2, 3), float(rank))}, paths[-1], metadata=metadata)
    return paths


def test_pieces_are_put_together(tmp_path):
    with DistributedCheckpoint(pieces(tmp_path, [0, 0], [2, 0], [2, 0])) as opened:
        assert opened.infos["w"].shape == (4, 3)
        assert opened.read("w")[:, 0].tolist() == [1, 1, 2, 2]
        assert opened.read("w", dtype=torch.float16).dtype == torch.float16


@pytest.mark.parametrize("offsets", [([0, 0], [3, 0]), ([2, 0],), ([0, 0], [1, 0]), ([0, 0], [2, 2])])
def test_pieces_that_are_no_whole(tmp_path, offsets):
    pieces(tmp_path, *offsets)
    with pytest.raises(CheckpointError, match=r"the pieces of 'w' make up .* a file is missing, or of another save"):
        open_checkpoint(LocalRepo(tmp_path))
    assert not verify(tmp_path).ok


@pytest.mark.parametrize("info", [{"v": 1}, {"w": {"saved_offsets": [0]}}, {"w": {"saved_offsets": [-1, 0]}}, {"w": 5}])
def test_damaged_information(tmp_path, info):
    pieces(tmp_path, [0, 0], info=info)
    with pytest.raises(CheckpointError, match=r"shard-.*: expected the piece of a distributed checkpoint"):
        open_checkpoint(LocalRepo(tmp_path))
