"""Which files are a checkpoint, and that they belong together."""

import json

import pytest
import torch
from safetensors.torch import save_file

from modelwright.checkpoint.open import find_weights, open_checkpoint
from modelwright.checkpoint.save import save_checkpoint
from modelwright.core.errors import CheckpointError, RepoError
from modelwright.hub.local import LocalRepo

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    """A sharded checkpoint that somebody else wrote: no manifest."""
    save_file({"a": torch.ones(2)}, tmp_path / ONE)
    save_file({"b": torch.zeros(3)}, tmp_path / TWO)
    write_index(tmp_path, {"a": ONE, "b": TWO})
    return tmp_path


def write_index(folder, weight_map, **others):
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 20}, "weight_map": weight_map, **others}))


def refused(folder, *texts, kind=CheckpointError, **options):
    with pytest.raises(kind) as error:
        open_checkpoint(LocalRepo(folder), **options)
    for text in texts:
        assert text in str(error.value)


def test_sharded_reads_like_one(folder):
    with open_checkpoint(LocalRepo(folder)) as checkpoint:
        assert set(checkpoint.infos) == {"a", "b"}
        assert checkpoint.read("b").shape == (3,)
        assert [path.name for path in checkpoint.files] == [INDEX, ONE, TWO]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the index is not JSON"),
        ("", "the index is not JSON"),
        ("[" * 100_000, "the index is not JSON"),
        ("[]", "found no object 'metadata'"),
        ('{"weight_map": {"a": "x"}}', "found no object 'metadata'"),
        ('{"metadata": {}}', "found no object 'weight_map'"),
        ('{"metadata": {}, "weight_map": []}', "found no object 'weight_map'"),
        ('{"metadata": {}, "weight_map": {}}', "the index lists no tensor"),
        ('{"metadata": {}, "weight_map": {"a": 3}}', "expected a file name for 'a', found '3'"),
        ('{"metadata": {}, "weight_map": {"a": "x", "a": "y"}}', "lists 'a' twice, as 'x' and as 'y'"),
        ("<html>", "It is a web page"),
    ],
)
def test_broken_index(folder, text, message):
    (folder / INDEX).write_text(text)
    refused(folder, str(folder / INDEX), message)


def test_key_promised_but_missing(folder):
    write_index(folder, {"a": ONE, "b": TWO, "c": TWO})
    refused(folder, str(folder / TWO), "promises the tensor 'c' in this file, but it is in no shard")


def test_key_in_another_shard(folder):
    write_index(folder, {"a": TWO, "b": ONE})
    refused(folder, "promises the tensor 'a' in this file, but it is in " + ONE)


def test_key_not_in_index(folder):
    save_file({"b": torch.zeros(3), "x": torch.ones(1)}, folder / TWO)
    refused(folder, str(folder / TWO), f"it holds the tensor 'x', which {INDEX} does not list")


def test_key_in_two_shards(folder):
    save_file({"b": torch.zeros(3), "a": torch.ones(2)}, folder / TWO)
    refused(folder, "the tensor 'a' is in two of its shards", ONE, TWO)


def test_missing_shard(folder):
    (folder / TWO).unlink()
    refused(folder, INDEX, f"lists the shard {TWO!r}", "there is no file", kind=RepoError)


def test_damaged_shard(folder):
    (folder / TWO).write_bytes((folder / TWO).read_bytes()[:-1])
    refused(folder, str(folder / TWO), "truncated: 1 bytes are missing")


@pytest.mark.parametrize("absolute", [True, False])
def test_index_that_points_outside(folder, tmp_path_factory, absolute):
    outside = tmp_path_factory.mktemp("outside") / "secret.safetensors"
    save_file({"b": torch.zeros(3)}, outside)
    name = str(outside) if absolute else f"../{outside.parent.name}/secret.safetensors"
    write_index(folder, {"a": ONE, "b": name})
    refused(folder, INDEX, "which is not a plain relative path. Nothing was read", kind=RepoError)
    (folder / TWO).unlink()
    (folder / TWO).symlink_to(outside)
    write_index(folder, {"a": ONE, "b": TWO})
    refused(folder, INDEX, "is a link that leaves", kind=RepoError)


def test_hub_snapshot_of_links_opens(tmp_path):
    cache = tmp_path / "models--o--n"
    (cache / "snapshots" / "r").mkdir(parents=True)
    (cache / "blobs").mkdir()
    save_checkpoint({"a": torch.ones(2), "b": torch.zeros(3)}, tmp_path / "ckpt", max_shard_size=8)
    for path in (tmp_path / "ckpt").iterdir():
        path.replace(cache / "blobs" / f"blob-{path.name}")
        (cache / "snapshots" / "r" / path.name).symlink_to(f"../../blobs/blob-{path.name}")
    with open_checkpoint(LocalRepo(cache / "snapshots" / "r")) as checkpoint:
        assert set(checkpoint.infos) == {"a", "b"}


def test_single_and_index_of_different_saves(folder):
    save_file({"a": torch.ones(2)}, folder / "model.safetensors")
    refused(folder, f"both model.safetensors and {INDEX} are there", "Delete the one that is out of date")


def test_an_index_of_the_single_file_contradicts_nothing(folder):
    write_index(folder, {"a": "model.safetensors"})
    save_file({"a": torch.ones(2)}, folder / "model.safetensors")
    with open_checkpoint(LocalRepo(folder)) as checkpoint:
        assert set(checkpoint.infos) == {"a"}


@pytest.mark.parametrize("first", [{}, {"max_shard_size": 8}])
def test_foreign_save_over_ours_is_refused(tmp_path, first):
    weights = {"a": torch.ones(2), "b": torch.zeros(3)}
    save_checkpoint(weights, tmp_path / "ours", **first)
    save_checkpoint(weights, tmp_path / "theirs", **({} if first else {"max_shard_size": 8}))
    (tmp_path / "theirs" / "modelwright.manifest.json").unlink()
    for path in (tmp_path / "theirs").iterdir():
        path.replace(tmp_path / "ours" / path.name)
    entry = INDEX if first else "model.safetensors"
    refused(tmp_path / "ours", "are different checkpoints", f"The manifest of the last save knows {entry} only")


def test_search_order_and_options(tmp_path):
    weights = {"a": torch.ones(2), "b": torch.zeros(3)}
    save_checkpoint(weights, tmp_path / "bin", safe=False)
    save_file(weights, tmp_path / "bin" / "model.safetensors")
    repo = LocalRepo(tmp_path / "bin")
    assert find_weights(repo).entry == "model.safetensors"
    assert find_weights(repo, use_safetensors=False).entry == "pytorch_model.bin"
    (tmp_path / "bin" / "model.safetensors").unlink()
    assert find_weights(repo).entry == "pytorch_model.bin"
    refused(tmp_path / "bin", "use_safetensors=True excludes pytorch_model.bin", use_safetensors=True)
    refused(tmp_path / "bin", "There are weights without a variant: use variant=None", variant="fp16")


def test_nothing_there_says_what_is(tmp_path):
    (tmp_path / "readme.md").write_text("x")
    refused(tmp_path, "expected one of model.safetensors, model.safetensors.index.json", "no weights among its 1 files")
    (tmp_path / "tf_model.h5").write_text("x")
    refused(tmp_path, "found the weights files tf_model.h5", "TensorFlow and Flax weights cannot be read")
    save_checkpoint({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path, variant="fp16", max_shard_size=8)
    save_checkpoint({"a": torch.ones(2)}, tmp_path, variant="ema")
    refused(tmp_path, "There are weights of the variants ema, fp16: name one with variant=")
    with open_checkpoint(LocalRepo(tmp_path), variant="fp16") as checkpoint:
        assert set(checkpoint.infos) == {"a", "b"}
