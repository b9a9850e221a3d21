import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelwright.checkpoint import filesystem, safetensors_file
from modelwright.checkpoint.safetensors_file import SafetensorsFile

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks statfs")


@linux
def test_the_type_of_a_file_system(tmp_path):
    with Path("/proc/self/status").open() as file:
        assert filesystem.filesystem_type(file.fileno()) == 0x9FA0  # PROC_SUPER_MAGIC
    with (tmp_path / "file").open("w") as file:
        assert filesystem.filesystem_type(file.fileno()) is not None
        assert not filesystem.is_remote(file.fileno())


@pytest.mark.parametrize("kind", [0x6969, 0x65735546, 0xFF534D42])
def test_network_mounts_are_read_and_not_mapped(tmp_path, monkeypatch, kind):
    save_file({"w": torch.arange(12.0).reshape(3, 4)}, tmp_path / "w.safetensors")
    with SafetensorsFile(tmp_path / "w.safetensors") as local:
        assert local.maps("w")
    monkeypatch.setattr(filesystem, "filesystem_type", lambda descriptor: kind)
    with SafetensorsFile(tmp_path / "w.safetensors") as remote:
        assert not remote.maps("w")
        monkeypatch.setattr(safetensors_file, "safe_open", None)  # nothing is mapped
        assert torch.equal(remote.read("w"), torch.arange(12.0).reshape(3, 4))
        assert remote.read("w", dtype=torch.bfloat16).dtype == torch.bfloat16
