"""Pickled weights: tensors only, and no word on how to switch the protection off."""

import pickle

import pytest
import torch

from modelwright.checkpoint.bin_file import BinFile
from modelwright.core.errors import CheckpointError


@pytest.mark.parametrize("new_zip", [True, False])
def test_reads_both_formats(tmp_path, new_zip):
    path = tmp_path / "pytorch_model.bin"
    shared = torch.arange(6.0)
    torch.save(
        {"a": shared, "b": shared, "t": torch.ones(2, 3).t(), "p": torch.nn.Parameter(torch.zeros(2))},
        path,
        _use_new_zipfile_serialization=new_zip,
    )
    with BinFile(path) as file:
        assert file.infos["t"].shape == (3, 2)
        a, b = file.read("a"), file.read("b", dtype=torch.float64)
        a.zero_()
        assert torch.equal(b, shared.double())
        assert torch.equal(file.read("a"), shared)
        assert file.read("t").is_contiguous()
        assert not file.read("p").requires_grad
        assert file.equal("a", "b")
        assert not file.equal("a", "t")


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


@pytest.mark.parametrize("new_zip", [True, False])
def test_a_pickle_with_code_runs_nothing_and_advises_nothing(tmp_path, new_zip):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(1), "x": Evil(tmp_path / "ran")}, path, _use_new_zipfile_serialization=new_zip)
    with pytest.raises(CheckpointError, match=r"refused: the file asks for '(_io|io)\.open', which is not a tensor") as e:
        BinFile(path)
    assert not (tmp_path / "ran").exists()
    shown = str(e.value) + str(e.value.__cause__)
    assert e.value.__suppress_context__
    assert "weights_only" not in shown
    assert "safe_globals" not in shown
    assert "safetensors" in shown


def test_what_is_no_state_dict(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"state_dict": {"a": torch.ones(1)}, "epoch": 3}, path)
    with pytest.raises(CheckpointError, match=r"found a dict under 'state_dict'\. A file of a training framework"):
        BinFile(path)
    torch.save([torch.ones(1)], path)
    with pytest.raises(CheckpointError, match="expected tensors by name, found a list"):
        BinFile(path)


def test_damaged_files_name_the_cause(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(1000)}, path)
    data = path.read_bytes()
    for content, cause in [
        (b"", "The file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 77\n", "Git-LFS pointer of a file of 77 bytes"),
        (b"<html>", "It is a web page"),
        (data[: len(data) // 2], "not a sound PyTorch file of "),
        (data[:-30], "not a sound PyTorch file of "),
        (pickle.dumps({"a": 1})[:-3], "not a sound PyTorch file of "),
    ]:
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            BinFile(path)
        assert cause in str(error.value)
        assert str(path) in str(error.value)
        assert "weights_only" not in str(error.value)
