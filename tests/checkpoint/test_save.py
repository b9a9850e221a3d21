"""What a save writes, what it removes, what it refuses. Crashes are in tests/hostile."""

import json
import os
import shutil
import sys

import pytest
import torch

from modelwright.checkpoint import commit, fsops
from modelwright.checkpoint.lock import writer_lock
from modelwright.checkpoint.open import open_checkpoint
from modelwright.checkpoint.save import save_checkpoint
from modelwright.checkpoint.verify import verify
from modelwright.core.errors import CheckpointError, InputError, RepoError
from modelwright.hub.local import LocalRepo

WEIGHTS = {f"layers.{i}.weight": torch.arange(4.0) + i for i in range(4)}
MANIFEST = "modelwright.manifest.json"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def read(folder, **options):
    with open_checkpoint(LocalRepo(folder), **options) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.infos}


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("shard", ["5GB", "40B"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_round_trip(tmp_path, safe, shard, variant):
    target = tmp_path / "deep" / "er"
    report = save_checkpoint(WEIGHTS, target, max_shard_size=shard, variant=variant, safe=safe)
    assert equal(read(target, variant=variant), WEIGHTS)
    assert names(target) == sorted([*report.files, MANIFEST])
    assert report.total_size == 64
    assert report.method == "new folder"
    assert len(report.files) == (1 if shard == "5GB" else 3)
    assert os.listdir(tmp_path / "deep") == ["er"]


def test_index_text(tmp_path):
    save_checkpoint(WEIGHTS, tmp_path, max_shard_size=40, total_parameters=99)
    text = (tmp_path / "model.safetensors.index.json").read_text()
    index = json.loads(text)
    assert index["metadata"] == {"total_parameters": 99, "total_size": 64}
    assert index["weight_map"]["layers.2.weight"] == "model-00002-of-00002.safetensors"
    assert text == json.dumps(index, indent=2, sort_keys=True) + "\n"


def test_safetensors_metadata(tmp_path):
    from safetensors import safe_open

    save_checkpoint(WEIGHTS, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.skipif(sys.platform == "win32", reason="access modes")
def test_modes_respect_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        save_checkpoint(WEIGHTS, tmp_path / "x", extra_files={"config.json": "{}"}, max_shard_size=40)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "x").iterdir()} == {0o640}
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o750


def test_cleans_up_its_own_old_files_only(tmp_path):
    save_checkpoint(WEIGHTS, tmp_path, variant="fp16", max_shard_size=20)
    save_checkpoint(WEIGHTS, tmp_path, max_shard_size=20)
    mine = ["modelling-00001-of-00002.safetensors", "model-1.safetensors", "model_weights.bin", "tokenizer.json"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    report = save_checkpoint(WEIGHTS, tmp_path)
    assert len(report.removed) == 5
    left = names(tmp_path)
    assert [name for name in left if "fp16" in name] == [
        *(f"model.fp16-0000{i}-of-00004.safetensors" for i in range(1, 5)),
        "model.safetensors.index.fp16.json",
    ]
    assert set(mine) < set(left)
    assert len(left) == 5 + len(mine) + 2
    assert equal(read(tmp_path, variant="fp16"), WEIGHTS)
    assert verify(tmp_path).ok


def test_extra_files(tmp_path):
    save_checkpoint(WEIGHTS, tmp_path, extra_files={"config.json": '{"é": 1}\n'})
    assert (tmp_path / "config.json").read_text(encoding="utf-8") == '{"é": 1}\n'
    for name in ("../x", "a/b", "model.safetensors", "model-00001-of-00002.safetensors", MANIFEST, "x.bin"):
        with pytest.raises((InputError, RepoError), match="expected the name of a file"):
            save_checkpoint(WEIGHTS, tmp_path, extra_files={name: "x"})


def test_shared_memory_is_stored_for_every_name_unless_tied(tmp_path):
    one = torch.arange(6.0)
    state = {"a": one, "b": one, "c": one[2:4]}
    save_checkpoint(state, tmp_path / "all")
    assert equal(read(tmp_path / "all"), state)
    save_checkpoint(state, tmp_path / "tied", tied=[["a", "b"]])
    assert set(read(tmp_path / "tied")) == {"a", "c"}
    save_checkpoint(state, tmp_path / "bin", safe=False, max_shard_size=8)
    assert names(tmp_path / "bin") == [MANIFEST, "pytorch_model.bin"]


def test_a_model_mapped_from_the_folder_saves_back_into_it(tmp_path):
    for options in ({}, {"safe": False}, {"max_shard_size": 20}, {"max_shard_size": 20}, {}):
        save_checkpoint(WEIGHTS, tmp_path, **options)
        mapped = read(tmp_path)
        save_checkpoint(mapped, tmp_path, **options)
        assert equal(read(tmp_path), WEIGHTS)
        assert equal(mapped, WEIGHTS)


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(InputError, match="expected tensors, got a int under 'a'"):
        save_checkpoint({"a": 1}, tmp_path)
    with pytest.raises(InputError, match="'a' is on the meta device and has no values to save"):
        save_checkpoint({"a": torch.empty(1, device="meta")}, tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RepoError, match="expected a folder to save in, found a file"):
        save_checkpoint(WEIGHTS, tmp_path / "file")
    with pytest.raises(RepoError, match="the folder cannot be created"):
        save_checkpoint(WEIGHTS, tmp_path / "file" / "x")
    assert names(tmp_path) == ["file"]


def test_free_space_is_checked_first(tmp_path, monkeypatch):
    save_checkpoint(WEIGHTS, tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    monkeypatch.setattr(fsops, "make_folder", lambda _: pytest.fail("touched the disk"))
    with pytest.raises(CheckpointError, match=r"saving needs [\d,]+ bytes .*, 1,000 are free\. Nothing was changed"):
        save_checkpoint(WEIGHTS, tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="locks folders")
def test_what_a_dead_writer_left_beside_the_folder_goes(tmp_path):
    left = [tmp_path / f".ckpt.modelwright-tmp-{name}" for name in ("new-old", "new-young", "exchange")]
    for path in left:
        path.mkdir()
        (path / "model.safetensors").write_text("half")
    os.utime(left[0], (0, 0))
    with writer_lock(left[2], timeout=1):
        save_checkpoint(WEIGHTS, tmp_path / "ckpt")
        assert names(tmp_path) == [left[2].name, left[1].name, "ckpt"]
    save_checkpoint(WEIGHTS, tmp_path / "ckpt")
    assert names(tmp_path) == [left[1].name, "ckpt"]


def test_a_second_writer_waits_or_gives_up(tmp_path):
    save_checkpoint(WEIGHTS, tmp_path)
    with writer_lock(tmp_path, timeout=1), pytest.raises(CheckpointError, match="another process or thread"):
        save_checkpoint(WEIGHTS, tmp_path, lock_timeout=0.05)
    save_checkpoint(WEIGHTS, tmp_path, lock_timeout=0.05)
    assert ".modelwright.lock" not in names(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2")
class TestFolders:
    def test_a_link_to_the_folder_stays_a_link(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        for seed in range(2):
            report = save_checkpoint(WEIGHTS, tmp_path / "link", extra_files={"config.json": str(seed)})
        assert report.method == "exchange"
        assert (tmp_path / "link").is_symlink()
        assert names(tmp_path) == ["link", "real"]
        assert (tmp_path / "real" / "config.json").read_text() == "1"

    def test_an_exchange_keeps_files_links_and_mode(self, tmp_path):
        folder = tmp_path / "ckpt"
        save_checkpoint(WEIGHTS, folder, max_shard_size=20)
        (folder / "log.txt").write_text("log")
        (folder / "link").symlink_to("log.txt")
        folder.chmod(0o711)
        with (folder / "log.txt").open("a") as log:
            assert save_checkpoint(WEIGHTS, folder, max_shard_size=20).method == "exchange"
            log.write(" goes on")
        assert (folder / "link").read_text() == "log goes on"
        assert (folder / "link").is_symlink()
        assert folder.stat().st_mode & 0o777 == 0o711
        assert names(tmp_path) == ["ckpt"]

    def test_what_appears_during_an_exchange_moves_along(self, tmp_path, monkeypatch):
        folder = tmp_path / "ckpt"
        save_checkpoint(WEIGHTS, folder, max_shard_size=20)
        exchange = fsops.exchange

        def late(first, second):
            if first == folder:
                (folder / "late.txt").write_text("late")
            exchange(first, second)

        monkeypatch.setattr(fsops, "exchange", late)
        assert save_checkpoint(WEIGHTS, folder, max_shard_size=20).method == "exchange"
        assert (folder / "late.txt").read_text() == "late"

    @pytest.mark.parametrize("why", ["subfolder", "working folder", "no renameat2", "mount point"])
    def test_a_journal_where_folders_cannot_change_places(self, tmp_path, monkeypatch, why):
        folder = tmp_path / "ckpt"
        save_checkpoint(WEIGHTS, folder, max_shard_size=20)
        if why == "subfolder":
            (folder / "runs").mkdir()
        elif why == "working folder":
            monkeypatch.chdir(folder)
        elif why == "no renameat2":
            monkeypatch.setattr(sys, "platform", "darwin")
        else:
            monkeypatch.setattr(type(folder), "is_mount", lambda self: self == folder)
        inode = folder.stat().st_ino
        new = {name: value + 1 for name, value in WEIGHTS.items()}
        assert save_checkpoint(new, folder, max_shard_size=20).method == "journal"
        assert folder.stat().st_ino == inode
        assert equal(read(folder), new)
        assert not [name for name in names(folder) if name.startswith(".")]
        assert verify(folder, strict=True).ok


def test_a_file_that_is_locked_away_names_itself(tmp_path, monkeypatch):
    save_checkpoint(WEIGHTS, tmp_path)

    def full(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(fsops, "write_file", full)
    with pytest.raises(CheckpointError, match=r"saving failed: .*No space left.*still holds what it held before"):
        save_checkpoint({"other": torch.ones(1)}, tmp_path)
    assert equal(read(tmp_path), WEIGHTS)
    assert names(tmp_path) == ["model.safetensors", MANIFEST]


def test_tidying_up_that_fails_says_that_the_new_one_counts(tmp_path, monkeypatch):
    save_checkpoint(WEIGHTS, tmp_path, max_shard_size=20)
    new = {name: value + 1 for name, value in WEIGHTS.items()}
    do = commit._do

    def failing(folder, stage, step):
        if step.action == "remove":
            raise PermissionError(13, "Permission denied", step.name)
        do(folder, stage, step)

    monkeypatch.setattr(commit, "_do", failing)
    with pytest.raises(CheckpointError, match="The new checkpoint is complete"):
        save_checkpoint(new, tmp_path)
    monkeypatch.undo()
    assert equal(read(tmp_path), new)
    save_checkpoint(new, tmp_path)
    assert names(tmp_path) == ["model.safetensors", MANIFEST]
