import json

import pytest
import torch
from safetensors.torch import load_file

from modelwright.checkpoint.convert import convert_checkpoint
from modelwright.checkpoint.names import Rename
from modelwright.checkpoint.open import open_checkpoint
from modelwright.checkpoint.save import save_checkpoint
from modelwright.checkpoint.verify import verify
from modelwright.core.errors import InputError
from modelwright.hub.local import LocalRepo


def state():
    torch.manual_seed(0)
    return {f"l.{i}.gamma": torch.randn(30, 10) for i in range(5)} | {"count": torch.arange(3)}


def convert(source, target, **options):
    repo = LocalRepo(source)
    with open_checkpoint(repo) as opened:
        return convert_checkpoint(opened, repo, target, **options)


def read_all(folder):
    with open_checkpoint(LocalRepo(folder)) as opened:
        return {name: opened.read(name).clone() for name in opened.infos}


def same(left, right):
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left
    )


@pytest.mark.parametrize("in_place", [False, True])
def test_bin_to_sharded_bfloat16_under_other_names(tmp_path, in_place):
    old, new = tmp_path / "old", tmp_path / ("old" if in_place else "new")
    texts = {"config.json": json.dumps({"torch_dtype": "float32", "a": 1}), "vocab.txt": "x\n"}
    save_checkpoint(state(), old, safe=False, extra_files=texts)
    report = convert(old, new, dtype=torch.bfloat16, max_shard_size=1300, renames=[Rename.literal("gamma", "weight")])
    expected = {
        name.replace("gamma", "weight"): tensor.bfloat16() if tensor.is_floating_point() else tensor
        for name, tensor in state().items()
    }
    assert len([name for name in report.files if name.endswith(".safetensors")]) == 3
    assert same(read_all(new), expected)
    assert json.loads((new / "config.json").read_text()) == {"torch_dtype": "bfloat16", "a": 1}
    assert (new / "vocab.txt").read_text() == "x\n"
    assert verify(new, strict=True).ok
    assert not list(new.glob("*.bin"))


def test_only_what_is_cast_is_in_memory(tmp_path):
    save_checkpoint(state(), tmp_path / "old", max_shard_size=1300)
    convert(tmp_path / "old", tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").glob("*.safetensors")] == ["model.safetensors"]
    assert same(load_file(tmp_path / "new" / "model.safetensors"), state())


def test_names_that_would_become_one(tmp_path):
    save_checkpoint(state(), tmp_path / "old")
    with pytest.raises(InputError, match=r"'l\.0\.gamma' and 'l\.1\.gamma' would both be called 'l\.gamma'"):
        convert(tmp_path / "old", tmp_path / "new", renames=[Rename(r"\.\d", "", inverse=("x", "x"))])
    assert not (tmp_path / "new").exists()


def test_distributed_and_back(tmp_path):
    save_checkpoint(state(), tmp_path / "old", extra_files={"config.json": "{}"})
    convert(tmp_path / "old", tmp_path / "pieces", distributed=True)
    assert sorted(path.name for path in (tmp_path / "pieces").iterdir()) == [
        "config.json",
        "shard-00001-model-00001-of-00001.safetensors",
    ]
    convert(tmp_path / "pieces", tmp_path / "back", max_shard_size=1300)
    assert same(read_all(tmp_path / "back"), state())
    convert(tmp_path / "pieces", tmp_path / "pieces")  # in place: the pieces go
    assert not list((tmp_path / "pieces").glob("shard-*"))
    assert same(read_all(tmp_path / "pieces"), state())
